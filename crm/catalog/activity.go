package catalog

import "github.com/tradepost-crm/tradepost/crm"

// activity is something that happened or is to be done: calls, letters, tasks.
// Nodes only add activities, apart from ticking off a task.
func activity() *crm.Entity {
	return &crm.Entity{ID: Activity, Name: "activity", Label: "Activity", Plural: "Activities", Home: crm.HomeRoot, Parent: "account",
		Title:   []string{"subject"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"account", "at"}}, {ID: 2, Fields: []string{"owner", "done", "due_date"}}},
		Fields: []*crm.Field{
			externalID("ActivityId", "TaskId", "EventId", "Legacy ID"),
			owner("Activity owner", "Sales rep"),
			choice(18, "kind", "Kind", required, byDefault("note"), options("call", "email", "meeting", "letter", "fax", "web_form", "chat", "note", "task"),
				alias("Type", "Activity type", "TaskSubtype")),
			text(19, "subject", "Subject", search, limit(255), alias("Activity subject", "Call subject", "Name")),
			text(20, "body", "Body", limit(16<<10), alias("Description", "Comments", "Notes", "Message", "Text")),
			instant(21, "at", "When", required, indexed, alias("ActivityDate", "Date", "StartDateTime", "Start time", "Activity time")),
			link(22, "account", "Account", "account", alias("AccountId", "AccountName", "Company", "Company name", "Customer")),
			link(23, "contact", "Contact", "contact", alias("ContactId", "WhoId", "Contact.Name", "Person")),
			link(24, "opportunity", "Opportunity", "opportunity", alias("OpportunityId", "Opportunity.Name", "Deal", "Deal name")),
			link(25, "case", "Case", "case", alias("CaseId", "Case number", "Ticket", "Ticket ID")),
			yesNo(26, "done", "Done", alias("IsClosed", "Completed", "Is done")),
			choice(27, "direction", "Direction", options("in", "out"), alias("CallType", "Call direction")),
			date(28, "due_date", "Due date", alias("Due", "Deadline")),
			integer(29, "duration_minutes", "Duration (min)", alias("DurationInMinutes", "Duration", "Minutes")),
		}}
}

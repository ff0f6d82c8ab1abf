package catalog

import "github.com/tradepost-crm/tradepost/crm"

// supportCase is a question or complaint to be answered.
func supportCase() *crm.Entity {
	return &crm.Entity{ID: Case, Name: "case", Label: "Case", Plural: "Cases", Home: crm.HomeRoot, Parent: "account", Title: []string{"number", "subject"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"account", "status", "created_at"}}, {ID: 2, Fields: []string{"status", "priority"}},
			{ID: 3, Fields: []string{"owner", "status"}}},
		Fields: []*crm.Field{
			externalID("CaseId", "Ticket ID", "Complaint ID", "Legacy ID"),
			owner("Case owner", "Ticket owner", "Agent"),
			text(18, "number", "Number", series("CS"), limit(80), alias("CaseNumber", "Ticket number", "Case no")),
			text(19, "subject", "Subject", required, search, limit(255), alias("Case subject", "Ticket name", "Summary", "Name")),
			choice(20, "status", "Status", required, byDefault("new"), caseStatus, alias("CaseStatus", "Ticket status", "State")),
			choice(21, "priority", "Priority", byDefault("normal"), options("low", "normal", "high", "urgent"), alias("CasePriority", "Severity")),
			choice(22, "type", "Type", indexed, alias("CaseType", "Ticket category", "Category")),
			choice(23, "origin", "Origin", indexed, alias("CaseOrigin", "Source", "Channel", "Submitted via")),
			choice(24, "reason", "Reason", indexed, alias("CaseReason", "Issue")),
			link(25, "account", "Account", "account", alias("AccountId", "AccountName", "Company", "Company name", "Customer")),
			link(26, "contact", "Contact", "contact", alias("ContactId", "Contact.Name", "Reported by")),
			text(27, "description", "Description", alias("Case description", "Ticket description", "Narrative", "Details")),
			instant(28, "closed_at", "Closed", alias("ClosedDate", "Date closed", "Close date", "Resolved at")),
			yesNo(29, "escalated", "Escalated", indexed, alias("IsEscalated")),
			link(30, "order", "Order", "order", alias("OrderId", "OrderNumber")),
			link(31, "product", "Product", "product", alias("ProductId", "Product name")),
			text(32, "resolution", "Resolution", alias("Answer", "Solution")),
		}}
}

func caseStatus(f *crm.Field) {
	options("new", "assigned", "pending", "closed", "rejected", "duplicate")(f)
	moves("new", "assigned", "pending", "closed", "rejected", "duplicate")(f)
	moves("assigned", "pending", "closed", "rejected", "duplicate")(f)
	moves("pending", "assigned", "closed", "rejected", "duplicate")(f)
	moves("closed", "assigned")(f)
	moves("rejected", "assigned")(f)
	moves("duplicate", "assigned")(f)
}

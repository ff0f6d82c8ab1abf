package catalog

import "github.com/tradepost-crm/tradepost/crm"

// user is a person who works here. Every site knows every user.
func user() *crm.Entity {
	return &crm.Entity{ID: User, Name: "user", Label: "User", Plural: "Users", Home: crm.HomeShared, Title: []string{"name"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"site", "name"}}},
		Fields: []*crm.Field{
			externalID("UserId", "EmployeeID", "employeeNumber", "Legacy ID"),
			owner("Manager", "ReportsTo", "ManagerId"),
			email(18, "email", "Email", required, unique, search, alias("Email address", "Login")),
			text(19, "name", "Name", required, indexed, search, limit(255), alias("Full name", "User", "User name", "Sales agent", "Agent")),
			yesNo(20, "active", "Active", byDefault("true"), alias("IsActive", "Enabled")),
			text(21, "site", "Site", indexed, limit(80), alias("officeCode", "Regional office", "Branch", "Location")),
			text(22, "title", "Title", limit(120), alias("Job title", "Position")),
			text(23, "time_zone", "Time zone", limit(64), alias("TimeZoneSidKey", "TZ")),
			text(24, "locale", "Language", limit(35), alias("LocaleSidKey", "LanguageLocaleKey", "Lang")),
			phone(25, "phone", "Phone", search, alias("Phone number", "Telephone", "Work phone")),
			text(26, "department", "Department", limit(120), alias("Dept", "Team")),
		}}
}

package catalog

import "github.com/tradepost-crm/tradepost/crm"

// contact is a person at an account.
func contact() *crm.Entity {
	return &crm.Entity{ID: Contact, Name: "contact", Label: "Contact", Plural: "Contacts", Home: crm.HomeRoot, Parent: "account",
		Title: []string{"first_name", "last_name"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"account", "last_name", "first_name"}}, {ID: 2, Fields: []string{"last_name", "first_name"}},
			{ID: 3, Fields: []string{"owner", "last_name"}}},
		Fields: []*crm.Field{
			externalID("ContactId", "Legacy ID"),
			owner("Contact owner", "Lead owner", "sales_id", "Sales rep"),
			link(18, "account", "Account", "account", alias("AccountId", "AccountName", "Company", "Company name", "company_id", "Associated company", "Organization", "Organisation", "Employer", "Entreprise", "Empresa", "Firma", "CustomerID")),
			text(19, "salutation", "Salutation", limit(40), alias("TitleOfCourtesy", "Honorific", "honorificPrefix", "Name prefix")),
			text(20, "first_name", "First name", search, limit(120), alias("Given name", "Forename", "contactFirstName", "Prénom", "Vorname", "Nombre")),
			text(21, "middle_name", "Middle name", limit(120), alias("additionalName")),
			text(22, "last_name", "Last name", required, search, limit(120), alias("Surname", "Family name", "contactLastName", "Nom", "Nachname", "Apellidos")),
			text(23, "suffix", "Suffix", limit(40), alias("Name suffix", "honorificSuffix")),
			text(24, "title", "Title", search, limit(120), alias("Job title", "Position", "ContactTitle")),
			text(25, "department", "Department", limit(120), alias("Dept")),
			email(26, "email", "Email", search, indexed, alias("Email address", "emails", "email_work", "Work email", "Courriel", "Correo", "البريد")),
			phone(27, "phone", "Phone", search, indexed, alias("Phone number", "Telephone", "Work phone", "phone_work", "Business phone", "phones", "Telefon", "Teléfono", "Telefone", "الهاتف")),
			phone(28, "mobile_phone", "Mobile", search, alias("Mobile phone number", "Mobile number", "Cell", "Cell phone", "Handy")),
			phone(29, "home_phone", "Home phone", search, alias("phone_home", "Private phone")),
			phone(30, "fax", "Fax", alias("Fax number")),
			date(31, "birthdate", "Birthday", alias("Date of birth", "BDAY", "DOB")),
			address(32, "mailing_address", "Mailing address", alias("Mailing", "Address", "Postal address", "Work", "Primary address")),
			choice(33, "lead_source", "Lead source", indexed, alias("Original source", "Source")),
			yesNo(34, "do_not_call", "Do not call", alias("No calls")),
			yesNo(35, "has_opted_out_of_email", "Email opt-out", alias("Unsubscribed", "Unsubscribed from all email", "Opted out of email")),
			link(36, "reports_to", "Reports to", "contact", alias("ReportsToId", "ReportsTo.Name", "Manager", "Supervisor")),
			text(37, "description", "Description", alias("Notes", "Comments", "Remarks", "Background")),
			integer(38, "points", "Points", policy(crm.Counter), alias("Loyalty points", "Score", "Lead score")),
			choices(39, "tags", "Tags", indexed, alias("Labels", "Keywords", "Categories")),
			text(40, "locale", "Language", limit(35), alias("Preferred language", "Lang")),
		}}
}

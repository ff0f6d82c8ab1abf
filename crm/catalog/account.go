package catalog

import "github.com/tradepost-crm/tradepost/crm"

// account is the root of a customer's records. Its territory field says where
// all of them live.
func account() *crm.Entity {
	return &crm.Entity{ID: Account, Name: "account", Label: "Account", Plural: "Accounts", Home: crm.HomeRoot, Title: []string{"name"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"territory", "name"}}, {ID: 2, Fields: []string{"owner", "name"}}},
		Fields: []*crm.Field{
			externalID("AccountId", "CustomerID", "customerNumber", "Company ID", "Legacy ID"),
			owner("Account owner", "Company owner", "salesRepEmployeeNumber", "Sales rep"),
			text(18, "name", "Name", required, indexed, search, limit(255), alias("AccountName", "Account", "Company", "Company name", "Customer name", "Customer", "Organization", "Organisation", "Organization name", "Entreprise", "Nom", "Empresa", "Firma", "src_name")),
			text(19, "account_number", "Account number", indexed, search, limit(80), alias("Account no", "Customer no", "Client number")),
			text(20, "legal_name", "Legal name", search, limit(255), policy(crm.Review), alias("Registered name", "Company legal name")),
			choice(21, "type", "Type", indexed, alias("AccountType", "Company type", "Customer type")),
			choice(22, "industry", "Industry", indexed, alias("Sector", "Branch of industry")),
			money(23, "annual_revenue", "Annual revenue", alias("Revenue", "annualRecurringRevenue", "Turnover")),
			integer(24, "number_of_employees", "Employees", alias("Employee count", "Headcount")),
			choice(25, "rating", "Rating", options("hot", "warm", "cold"), alias("AccountRating")),
			phone(26, "phone", "Phone", search, alias("Phone number", "Telephone", "Main phone", "Company phone", "Telefon", "Teléfono", "Telefone", "الهاتف")),
			phone(27, "fax", "Fax", alias("Fax number")),
			webAddress(28, "website", "Website", search, alias("Website URL", "Web", "domainName", "Domain", "Company domain name", "HomePage", "URL")),
			email(29, "email", "Email", search, alias("Email address", "Company email", "البريد")),
			address(30, "billing_address", "Billing address", alias("Billing", "Bill to", "Address", "Invoice address", "Office")),
			address(31, "shipping_address", "Shipping address", alias("Shipping", "Ship to", "Ship", "Delivery", "Delivery address")),
			link(32, "parent", "Parent account", "account", alias("ParentId", "Parent.Name", "Parent company", "subsidiary_of", "src_parent")),
			text(33, "description", "Description", alias("Notes", "Comments", "Remarks", "About us")),
			choices(34, "tags", "Tags", indexed, alias("Labels", "Keywords")),
			text(35, "territory", "Territory", indexed, limit(40), alias("Territory code", "Sales territory")),
			text(36, "currency", "Currency", limit(3), alias("CurrencyIsoCode", "Currency code")),
			money(37, "credit_limit", "Credit limit"),
			text(38, "payment_terms", "Payment terms", limit(255), policy(crm.Review), alias("Terms", "Contract terms")),
		}}
}

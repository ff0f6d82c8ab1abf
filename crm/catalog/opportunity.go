package catalog

import (
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
)

// opportunity is a sale that may come about.
func opportunity() *crm.Entity {
	return &crm.Entity{ID: Opportunity, Name: "opportunity", Label: "Opportunity", Plural: "Opportunities", Home: crm.HomeRoot, Parent: "account",
		Title: []string{"name"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"account", "close_date"}}, {ID: 2, Fields: []string{"stage", "owner"}},
			{ID: 3, Fields: []string{"owner", "close_date"}}},
		Fields: []*crm.Field{
			externalID("OpportunityId", "Deal ID", "Legacy ID"),
			owner("Opportunity owner", "Deal owner", "hubspot_owner_id", "Sales agent", "Sales rep"),
			text(18, "name", "Name", required, search, limit(255), alias("OpportunityName", "Deal name", "Deal", "Opportunity")),
			link(19, "account", "Account", "account", alias("AccountId", "AccountName", "Company", "Company name", "Associated company", "Customer", "Organization")),
			link(20, "contact", "Contact", "contact", alias("ContactId", "Contact.Name", "pointOfContact", "Primary contact")),
			link(21, "product", "Product", "product", alias("ProductId", "Product name")),
			money(22, "amount", "Amount", alias("Deal amount", "Value", "close_value", "Deal value")),
			date(23, "close_date", "Close date", indexed, alias("Expected close date")),
			choice(24, "stage", "Stage", required, byDefault("Prospecting"), stages, alias("StageName", "Deal stage", "Sales stage", "Pipeline stage")),
			decimal(25, "probability", "Probability (%)", alias("Deal probability", "Win probability")),
			choice(26, "forecast_category", "Forecast category", options("Pipeline", "BestCase", "MostLikely", "Forecast", "Closed", "Omitted"), alias("ForecastCategoryName")),
			text(27, "next_step", "Next step", limit(255)),
			choice(28, "type", "Type", indexed, alias("OpportunityType", "Deal type")),
			choice(29, "lead_source", "Lead source", indexed, alias("Original source", "Source")),
			date(30, "engage_date", "Engage date", alias("Engaged on")),
			text(31, "description", "Description", alias("Notes", "Comments", "Deal description")),
			text(32, "lost_reason", "Reason lost", limit(255), alias("Loss reason", "Closed lost reason")),
			text(33, "pipeline", "Pipeline", indexed, limit(120)),
		}}
}

// stages are Salesforce's. Open stages may follow each other in any order, every
// open stage may be won or lost, and a lost sale may be taken up again.
func stages(f *crm.Field) {
	open := []string{"Prospecting", "Qualification", "Needs Analysis", "Value Proposition", "Id. Decision Makers", "Perception Analysis",
		"Proposal/Price Quote", "Negotiation/Review"}
	all := append(slices.Clone(open), "Closed Won", "Closed Lost")
	options(all...)(f)
	for i, from := range open {
		moves(from, slices.Delete(slices.Clone(all), i, i+1)...)(f)
	}
	moves("Closed Lost", "Qualification")(f)
}

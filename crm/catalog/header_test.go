package catalog

import (
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

func TestMatchHeader_EverySpellingMeansOneField(t *testing.T) {
	for _, e := range mustSchema(t).Entities {
		if e.System {
			continue
		}
		meaning := map[string]*crm.Field{}
		for _, f := range e.Fields {
			for _, s := range append([]string{f.Name, f.Label}, f.Aliases...) {
				if squeeze(s) == "" {
					t.Errorf("%s.%s: spelling %q has no letter", e.Name, f.Name, s)
				}
				if other := meaning[squeeze(s)]; other != nil && other != f {
					t.Errorf("%s: %q means both %s and %s", e.Name, s, other.Name, f.Name)
				}
				meaning[squeeze(s)] = f
				if got, ok := MatchHeader(e, strings.ToUpper(s)); !ok || got != f {
					t.Errorf("%s: %q is matched to %+v, want %s", e.Name, s, got, f.Name)
				}
			}
		}
	}
}

func TestMatchHeader_AliasesSayMoreThanNames(t *testing.T) {
	for _, e := range mustSchema(t).Entities {
		for _, f := range e.Fields {
			seen := map[string]bool{squeeze(f.Name): true, squeeze(f.Label): true}
			for _, a := range f.Aliases {
				if seen[squeeze(a)] {
					t.Errorf("%s.%s: alias %q repeats another", e.Name, f.Name, a)
				}
				seen[squeeze(a)] = true
			}
		}
	}
}

func TestMatchHeader(t *testing.T) {
	s := mustSchema(t)
	for entity, headers := range map[string]string{
		"contact": "Record ID=external_id;First Name=first_name;FirstName=first_name;firstName=first_name;Last Name=last_name;Email=email" +
			";Phone Number=phone;Job Title=title;jobTitle=title;Company Name=account;Contact owner=owner;Associated Company=account" +
			";LeadSource=lead_source;Original Source=lead_source;MobilePhone=mobile_phone;Mobile phone number=mobile_phone;HasOptedOutOfEmail=has_opted_out_of_email" +
			";Account.Name=account;Téléphone=phone;TELEPHONE=phone;Entreprise=account;البريد=email;email_work=email;Lifecycle stage=;created_time=;Pipeline=",
		"account": "AccountName=name;Company name=name;domainName=website;Company domain name=website;Website URL=website;AnnualRevenue=annual_revenue" +
			";NumberOfEmployees=number_of_employees;ParentId=parent;OwnerId=owner;accountOwner=owner;sector=industry;subsidiary_of=parent;customerName=name;creditLimit=credit_limit;=;--=",
		"opportunity": "Deal name=name;Deal stage=stage;StageName=stage;CloseDate=close_date;closeDate=close_date;hubspot_owner_id=owner;pointOfContact=contact" +
			";sales_agent=owner;close_value=amount;engage_date=engage_date;opportunity_id=external_id;ForecastCategoryName=forecast_category",
		"order":      "OrderID=external_id;CustomerID=account;EmployeeID=owner;OrderDate=order_date;Freight=freight;ShipName=ship_name;orderNumber=number;comments=description",
		"order_line": "OrderID=order;ProductID=product;UnitPrice=unit_price;quantityOrdered=quantity;priceEach=unit_price;Discount=discount;orderLineNumber=line_number",
		"product":    "ProductName=name;QuantityPerUnit=quantity_per_unit;UnitsInStock=units_in_stock;productCode=code;MSRP=unit_price;SKU=code",
		"case":       "CaseNumber=number;Origin=origin;IsEscalated=escalated;ClosedDate=closed_at;Submitted via=origin",
	} {
		e := s.Entity(entity)
		for pair := range strings.SplitSeq(headers, ";") {
			header, want, _ := strings.Cut(pair, "=")
			got := ""
			if f, ok := MatchHeader(e, header); ok {
				got = f.Name
			}
			if got != want {
				t.Errorf("%s: %q is matched to %q, want %q", entity, header, got, want)
			}
		}
	}
}

func TestMatchPart(t *testing.T) {
	s := mustSchema(t)
	for _, tc := range []struct {
		entity, header, field string
		part                  Part
	}{
		{"account", "BillingStreet", "billing_address", Street},
		{"account", "BillingPostalCode", "billing_address", PostalCode},
		{"account", "billing_address_country", "billing_address", Country},
		{"account", "ShippingState/Province", "shipping_address", State},
		{"account", "City", "billing_address", City},
		{"account", "State/Region", "billing_address", State},
		{"account", "Country/Region", "billing_address", Country},
		{"account", "Address", "billing_address", Street},
		{"account", "addressLine2", "billing_address", Street},
		{"account", "Industry", "", ""},
		{"account", "Velocity", "", ""},
		{"contact", "MailingCity", "mailing_address", City},
		{"contact", "Postal Code", "mailing_address", PostalCode},
		{"order", "ShipRegion", "shipping_address", State},
		{"order", "ShipCountry", "shipping_address", Country},
		{"order", "ShipAddress", "shipping_address", Street},
		{"order", "Region", "", ""},
		{"activity", "City", "", ""},
	} {
		f, part, ok := MatchPart(s.Entity(tc.entity), tc.header)
		got := ""
		if ok {
			got = f.Name
		}
		if got != tc.field || ok && part != tc.part {
			t.Errorf("%s: %q is %s of %q, want %s of %q", tc.entity, tc.header, part, got, tc.part, tc.field)
		}
	}
}

func TestPart_Put(t *testing.T) {
	var a crm.PostalAddress
	for _, in := range []struct {
		part Part
		s    string
	}{{Street, "54, rue Royale"}, {Street, ""}, {Street, "2e étage"}, {City, "Nantes"}, {State, "Loire"}, {PostalCode, "44000"}, {Country, "France"}} {
		in.part.Put(&a, in.s)
	}
	want := crm.PostalAddress{Street: "54, rue Royale\n2e étage", City: "Nantes", State: "Loire", PostalCode: "44000", Country: "France"}
	if a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
}

package catalog

import "github.com/tradepost-crm/tradepost/crm"

// product is what is sold. Every site holds every product.
func product() *crm.Entity {
	return &crm.Entity{ID: Product, Name: "product", Label: "Product", Plural: "Products", Home: crm.HomeShared, Title: []string{"name"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"family", "name"}}},
		Fields: []*crm.Field{
			externalID("ProductId", "Product2Id", "Legacy ID"),
			owner("Product owner", "Product manager"),
			text(18, "code", "Code", required, unique, search, limit(80), alias("ProductCode", "SKU", "Part number", "Item number", "Article number")),
			text(19, "name", "Name", required, indexed, search, limit(255), alias("ProductName", "Product", "Item", "Article")),
			choice(20, "family", "Family", indexed, alias("ProductFamily", "Product line", "Category", "CategoryName", "CategoryID", "Series")),
			money(21, "unit_price", "Unit price", alias("List price", "Price", "sales_price", "MSRP")),
			text(22, "unit", "Unit", limit(40), alias("Unit of measure", "QuantityUnitOfMeasure", "UoM")),
			yesNo(23, "active", "Active", byDefault("true"), alias("IsActive")),
			text(24, "quantity_per_unit", "Quantity per unit", limit(120), alias("Pack size")),
			integer(25, "units_in_stock", "In stock", policy(crm.Counter), alias("quantityInStock", "Stock", "On hand")),
			text(26, "description", "Description", alias("ProductDescription", "Notes")),
			money(27, "cost", "Cost", alias("buyPrice", "Purchase price", "Unit cost")),
			text(28, "vendor", "Vendor", limit(255), alias("productVendor", "Supplier", "SupplierID", "Manufacturer")),
			yesNo(29, "discontinued", "Discontinued", alias("Is discontinued")),
		}}
}

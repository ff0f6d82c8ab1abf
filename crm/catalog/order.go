package catalog

import "github.com/tradepost-crm/tradepost/crm"

// order is a customer's order. Cancelling is final: a shipment that crosses a
// cancellation is parked for a person.
func order() *crm.Entity {
	return &crm.Entity{ID: Order, Name: "order", Label: "Order", Plural: "Orders", Home: crm.HomeRoot, Parent: "account", Title: []string{"number"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"account", "order_date"}}, {ID: 2, Fields: []string{"status", "order_date"}},
			{ID: 3, Fields: []string{"owner", "order_date"}}},
		Fields: []*crm.Field{
			externalID("OrderId", "Legacy ID"),
			owner("Order owner", "Employee", "EmployeeID", "Sales rep"),
			text(18, "number", "Number", series("ORD"), limit(80), alias("OrderNumber", "Order no", "Order #")),
			link(19, "account", "Account", "account", required, alias("AccountId", "AccountName", "Customer", "CustomerID", "customerNumber", "Customer name", "Company", "Company name")),
			link(20, "contact", "Contact", "contact", alias("ContactId", "Contact.Name", "BillToContactId", "Ordered by")),
			choice(21, "status", "Status", required, byDefault("draft"), orderStatus, alias("OrderStatus", "State of order")),
			date(22, "order_date", "Order date", required, indexed, alias("EffectiveDate", "Date", "Ordered at")),
			date(23, "required_date", "Required date", alias("Due date", "Requested delivery date")),
			date(24, "shipped_date", "Shipped date", alias("Ship date")),
			text(25, "ship_name", "Ship to", limit(255), alias("Shipping name", "Recipient")),
			address(26, "shipping_address", "Shipping address", alias("Shipping", "Ship", "Ship address", "Delivery", "Delivery address")),
			money(27, "freight", "Freight", alias("Shipping cost", "Shipping amount", "Freight cost")),
			text(28, "currency", "Currency", limit(3), alias("CurrencyIsoCode", "Currency code")),
			money(29, "total", "Total", alias("TotalAmount", "Order total", "Amount", "Grand total")),
			text(30, "region", "Sales region", indexed, limit(80), alias("Sales area")),
			text(31, "description", "Description", alias("Notes", "Comments", "Remarks")),
			text(32, "purchase_order", "Customer's reference", search, limit(80), alias("PoNumber", "Purchase order number", "Customer reference")),
			link(33, "opportunity", "Opportunity", "opportunity", alias("OpportunityId", "Opportunity.Name", "Deal", "Deal name")),
		}}
}

func orderStatus(f *crm.Field) {
	options("draft", "open", "confirmed", "on_hold", "shipped", "delivered", "invoiced", "cancelled")(f)
	moves("draft", "open", "confirmed", "cancelled")(f)
	moves("open", "draft", "confirmed", "on_hold", "cancelled")(f)
	moves("confirmed", "on_hold", "shipped", "cancelled")(f)
	moves("on_hold", "open", "confirmed", "cancelled")(f)
	moves("shipped", "delivered", "invoiced")(f)
	moves("delivered", "invoiced")(f)
	moves("invoiced", "delivered")(f)
}

// orderLine is one product of an order.
func orderLine() *crm.Entity {
	return &crm.Entity{ID: OrderLine, Name: "order_line", Label: "Order line", Plural: "Order lines", Home: crm.HomeRoot, Parent: "order", Owned: true,
		Title:   []string{"line_number", "description"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"order", "line_number"}}},
		Fields: []*crm.Field{
			externalID("OrderItemId", "Order line ID", "Line ID", "OrderDetailID"),
			owner("Line owner"),
			link(18, "order", "Order", "order", required, fixed, alias("OrderId", "OrderNumber", "Order.OrderNumber")),
			link(19, "product", "Product", "product", alias("ProductId", "Product2Id", "ProductCode", "Product name", "Product2.Name", "SKU", "Item", "Article")),
			integer(20, "line_number", "Line", alias("orderLineNumber", "Line no", "Position", "OrderItemNumber")),
			decimal(21, "quantity", "Quantity", required, alias("Qty", "quantityOrdered", "product_qty")),
			money(22, "unit_price", "Unit price", alias("priceEach", "Price", "Sales price", "product_unit_price")),
			decimal(23, "discount", "Discount", scale(4), alias("Discount fraction")),
			text(24, "description", "Description", search, limit(4000), alias("item_description", "Name", "Notes")),
		}}
}

package catalog

import "github.com/tradepost-crm/tradepost/crm"

// shipment is goods on their way for an order; an order may have several.
func shipment() *crm.Entity {
	return &crm.Entity{ID: Shipment, Name: "shipment", Label: "Shipment", Plural: "Shipments", Home: crm.HomeRoot, Parent: "order", Owned: true,
		Title:   []string{"carrier", "tracking_number"},
		Indexes: []crm.Index{{ID: 1, Fields: []string{"order", "shipped_date"}}, {ID: 2, Fields: []string{"status", "shipped_date"}}},
		Fields: []*crm.Field{
			externalID("ShipmentId", "DeliveryId", "Legacy ID"),
			owner("Shipment owner"),
			link(18, "order", "Order", "order", required, fixed, alias("OrderId", "OrderNumber", "Order.OrderNumber")),
			text(19, "carrier", "Carrier", indexed, limit(120), alias("ShipVia", "Shipper", "Shipped via", "Provider")),
			text(20, "tracking_number", "Tracking number", indexed, search, limit(120), alias("Tracking no", "Tracking code", "Consignment number")),
			choice(21, "status", "Status", required, byDefault("draft"), shipmentStatus, alias("DeliveryStatus", "Shipment status")),
			date(22, "shipped_date", "Shipped date", alias("Ship date", "ActualShipDate")),
			date(23, "delivered_date", "Delivered date", alias("ActualDeliveryDate", "Delivery date")),
			text(24, "ship_name", "Ship to", limit(255), alias("ShipToName", "Recipient")),
			address(25, "shipping_address", "Shipping address", alias("Shipping", "Ship", "Ship address", "Delivery address", "Address")),
			money(26, "freight", "Freight", alias("Shipping cost", "Freight cost")),
			decimal(27, "weight", "Weight (kg)", scale(3), alias("Gross weight")),
			integer(28, "packages", "Packages", alias("Parcels", "Number of packages")),
			text(29, "description", "Description", alias("Notes", "Comments", "Instructions")),
		}}
}

func shipmentStatus(f *crm.Field) {
	options("draft", "ready", "in_transit", "delivered", "failed", "cancelled")(f)
	moves("draft", "ready", "cancelled")(f)
	moves("ready", "draft", "in_transit", "cancelled")(f)
	moves("in_transit", "delivered", "failed")(f)
	moves("failed", "ready", "cancelled")(f)
}

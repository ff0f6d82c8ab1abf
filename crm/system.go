package crm

// The system entities exist before any metadata record and describe the
// cluster itself. Their ids and field ids are part of the format.
const (
	EntityEntity    EntityID = 1 // metadata: an entity
	EntityField     EntityID = 2 // metadata: a field
	EntityTerritory EntityID = 3
	EntitySite      EntityID = 4
	EntityNode      EntityID = 5
	EntityAttention EntityID = 6 // conflicts, parked and rejected edits
	EntityPurge     EntityID = 7 // a replica's proof that it dropped a territory's records
	EntityJoinToken EntityID = 8
	FirstEntity     EntityID = 16
)

// Fields of the metadata records.
const (
	MetaNumber     FieldID = 16
	MetaName       FieldID = 17
	MetaDefinition FieldID = 18 // JSON of Entity or Field
	MetaEntity     FieldID = 19 // of a field: its entity's number
)

// Fields of a territory.
const (
	TerritoryCode   FieldID = 16
	TerritoryName   FieldID = 17
	TerritoryNumber FieldID = 18 // TerritoryID, given by the master
)

// Fields of a site.
const (
	SiteName        FieldID = 16
	SiteCity        FieldID = 17
	SiteTerritories FieldID = 18 // codes of the granted territories
	SiteHome        FieldID = 19 // code of the territory of records made here without an account
	SiteCountry     FieldID = 20
)

// Fields of a node.
const (
	NodeNumber FieldID = 16 // NodeID, given by the master
	NodeSite   FieldID = 17 // site name
	NodeRole   FieldID = 18 // master or replica
	NodeSync   FieldID = 19 // address of the sync port, if it can be dialled
	NodeHTTP   FieldID = 20 // address of the HTTP port
	NodeStatus FieldID = 21 // active, removed
	NodeCity   FieldID = 22
	NodeRaft   FieldID = 23 // address of the Raft port of a master

	NodeSuffrage FieldID = 24 // of a master: voter, which empty means too, or nonvoter
)

// Fields of an attention record.
const (
	AttentionKind     FieldID = 16 // conflict, parked, rejected
	AttentionStatus   FieldID = 17 // open, resolved, dismissed
	AttentionEntity   FieldID = 18 // name of the record's entity
	AttentionRecord   FieldID = 19 // id of the record, as text
	AttentionField    FieldID = 20 // name of the field; empty: the whole op
	AttentionCode     FieldID = 21 // why
	AttentionMessage  FieldID = 22 // a sentence for a clerk
	AttentionKept     FieldID = 23 // JSON: the value that stands, with actor, node and time
	AttentionLost     FieldID = 24 // JSON: the value that lost or waits
	AttentionBase     FieldID = 25 // JSON: the value both started from, where known
	AttentionOps      FieldID = 26 // JSON: the ops to apply again (parked, rejected)
	AttentionNode     FieldID = 27 // number of the node whose edit this is
	AttentionSeq      FieldID = 28
	AttentionActor    FieldID = 29 // whose edit this is
	AttentionUnder    FieldID = 30 // link: the rejection this one depends on
	AttentionIntent   FieldID = 31
	AttentionAccount  FieldID = 32 // link to the root account, so that it travels along
	AttentionResolved FieldID = 33 // how it was resolved
)

// Fields of a purge proof.
const (
	PurgeSite      FieldID = 16
	PurgeNode      FieldID = 17
	PurgeTerritory FieldID = 18 // code
	PurgeRev       FieldID = 19 // the Rev at which it left
	PurgeCount     FieldID = 20 // records dropped
	PurgeLeft      FieldID = 21 // records of the territory still held: 0
)

// Fields of a join token.
const (
	JoinTokenID     FieldID = 16
	JoinTokenHash   FieldID = 17 // hex SHA-256; the secret itself is never stored
	JoinTokenSite   FieldID = 18
	JoinTokenRole   FieldID = 19
	JoinTokenUntil  FieldID = 20
	JoinTokenStatus FieldID = 21 // open, used
	JoinTokenNode   FieldID = 22
)

func field(id FieldID, name, label string, k Kind) *Field {
	return &Field{ID: id, Name: name, Label: label, Kind: k}
}

func (f *Field) with(edit func(*Field)) *Field { edit(f); return f }

func unique(f *Field)   { f.Unique, f.Required, f.Immut = true, true, true }
func required(f *Field) { f.Required = true }
func indexed(f *Field)  { f.Indexed = true }
func numbered(f *Field) { f.Indexed, f.ReadOnly = true, true }
func searched(f *Field) { f.Search = true }
func options(values ...string) func(*Field) {
	return func(f *Field) {
		f.Indexed = true
		for _, v := range values {
			f.Options = append(f.Options, Option{Value: v})
		}
	}
}

// systemEntities returns fresh definitions, because Finish fills them in.
func systemEntities() []*Entity {
	return []*Entity{
		{ID: EntityEntity, Name: "entity", Label: "Entity", Plural: "Entities", Home: HomeShared, System: true, Title: []string{"name"}, Fields: []*Field{
			field(MetaNumber, "number", "Number", Integer).with(unique), field(MetaName, "name", "Name", Text).with(unique),
			field(MetaDefinition, "definition", "Definition", Text).with(required)}},
		{ID: EntityField, Name: "field", Label: "Field", Plural: "Fields", Home: HomeShared, System: true, Title: []string{"name"}, Fields: []*Field{
			field(MetaNumber, "number", "Number", Integer).with(required), field(MetaName, "name", "Name", Text).with(required),
			field(MetaDefinition, "definition", "Definition", Text).with(required),
			field(MetaEntity, "entity", "Entity", Integer).with(required).with(indexed)}},
		{ID: EntityTerritory, Name: "territory", Label: "Territory", Plural: "Territories", Home: HomeShared, System: true, Title: []string{"name"}, Fields: []*Field{
			field(TerritoryCode, "code", "Code", Text).with(unique).with(searched), field(TerritoryName, "name", "Name", Text).with(required).with(searched),
			field(TerritoryNumber, "number", "Number", Integer).with(numbered)}},
		{ID: EntitySite, Name: "site", Label: "Site", Plural: "Sites", Home: HomeShared, System: true, Title: []string{"name"}, Fields: []*Field{
			field(SiteName, "name", "Name", Text).with(unique).with(searched), field(SiteCity, "city", "City", Text).with(searched),
			field(SiteTerritories, "territories", "Territories", Choices), field(SiteHome, "home_territory", "Home territory", Text),
			field(SiteCountry, "country", "Country", Text)}},
		{ID: EntityNode, Name: "node", Label: "Node", Plural: "Nodes", Home: HomeShared, System: true, Title: []string{"number"}, Fields: []*Field{
			field(NodeNumber, "number", "Number", Integer).with(numbered), field(NodeSite, "site", "Site", Text).with(required).with(indexed),
			field(NodeRole, "role", "Role", Choice).with(required).with(options("master", "replica")),
			field(NodeSync, "sync_address", "Sync address", Text), field(NodeHTTP, "http_address", "HTTP address", Text),
			field(NodeStatus, "status", "Status", Choice).with(options("active", "removed")), field(NodeCity, "city", "City", Text),
			field(NodeRaft, "raft_address", "Raft address", Text),
			field(NodeSuffrage, "suffrage", "Suffrage", Choice).with(options("voter", "nonvoter")).with(func(f *Field) { f.Level = levelRelays })}},
		attentionEntity(),
		{ID: EntityPurge, Name: "purge", Label: "Purge", Plural: "Purges", Home: HomeHeadOffice, System: true, Title: []string{"territory"}, Fields: []*Field{
			field(PurgeSite, "site", "Site", Text).with(required).with(indexed), field(PurgeNode, "node", "Node", Integer).with(required),
			field(PurgeTerritory, "territory", "Territory", Text).with(required), field(PurgeRev, "left_rev", "Left at rev", Integer).with(required),
			field(PurgeCount, "count", "Records dropped", Integer), field(PurgeLeft, "left", "Records left", Integer)}},
		{ID: EntityJoinToken, Name: "join_token", Label: "Join token", Plural: "Join tokens", Home: HomeHeadOffice, System: true, Title: []string{"token"}, Fields: []*Field{
			field(JoinTokenID, "token", "Token", Text).with(unique), field(JoinTokenHash, "hash", "Hash", Text).with(required),
			field(JoinTokenSite, "site", "Site", Text).with(required), field(JoinTokenRole, "role", "Role", Choice).with(required).with(options("master", "replica")),
			field(JoinTokenUntil, "until", "Valid until", Instant).with(required),
			field(JoinTokenStatus, "status", "Status", Choice).with(options("open", "used")), field(JoinTokenNode, "node", "Node", Integer)}},
	}
}

func attentionEntity() *Entity {
	return &Entity{ID: EntityAttention, Name: "attention", Label: "Attention", Plural: "Attention list", Home: HomeRoot, System: true, Title: []string{"message"},
		Indexes: []Index{{ID: 1, Fields: []string{"status", "created_at"}}},
		Fields: []*Field{
			field(AttentionKind, "kind", "Kind", Choice).with(required).with(options("conflict", "parked", "rejected")),
			field(AttentionStatus, "status", "Status", Choice).with(required).with(options("open", "resolved", "dismissed")),
			field(AttentionEntity, "entity", "Entity", Text), field(AttentionRecord, "record", "Record", Text).with(indexed),
			field(AttentionField, "field", "Field", Text), field(AttentionCode, "code", "Code", Text),
			field(AttentionMessage, "message", "Message", Text), field(AttentionKept, "kept", "Kept", Text),
			field(AttentionLost, "lost", "Lost", Text), field(AttentionBase, "base", "Base", Text),
			field(AttentionOps, "ops", "Edit", Text), field(AttentionNode, "node", "Node", Integer).with(indexed),
			field(AttentionSeq, "seq", "Seq", Integer), field(AttentionActor, "actor", "Actor", Text),
			field(AttentionUnder, "under", "Depends on", Link).with(func(f *Field) { f.Target = "attention" }),
			field(AttentionIntent, "intent", "Intent", Text), field(AttentionAccount, "account", "Account", Link),
			field(AttentionResolved, "resolution", "Resolution", Text)}}
}

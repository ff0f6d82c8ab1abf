package main

import (
	"context"
	"iter"
	"strconv"
	"strings"
)

const schemaSQL = `
CREATE TABLE accounts (id BIGINT PRIMARY KEY, name TEXT NOT NULL, industry TEXT NOT NULL, region TEXT NOT NULL, city TEXT NOT NULL, phone TEXT NOT NULL, website TEXT NOT NULL, annual_revenue BIGINT NOT NULL, employees INTEGER NOT NULL, owner_id INTEGER NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, description TEXT NOT NULL);
CREATE TABLE contacts (id BIGINT PRIMARY KEY, account_id BIGINT NOT NULL, first_name TEXT NOT NULL, last_name TEXT NOT NULL, email TEXT NOT NULL, phone TEXT NOT NULL, title TEXT NOT NULL, owner_id INTEGER NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE opportunities (id BIGINT PRIMARY KEY, account_id BIGINT NOT NULL, contact_id BIGINT NOT NULL, name TEXT NOT NULL, stage TEXT NOT NULL, amount_cents BIGINT NOT NULL, probability INTEGER NOT NULL, owner_id INTEGER NOT NULL, close_date TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE orders (id BIGINT PRIMARY KEY, account_id BIGINT NOT NULL, contact_id BIGINT NOT NULL, number TEXT NOT NULL, status TEXT NOT NULL, order_date TEXT NOT NULL, region TEXT NOT NULL, currency TEXT NOT NULL, total_cents BIGINT NOT NULL, owner_id INTEGER NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE order_lines (id BIGINT PRIMARY KEY, order_id BIGINT NOT NULL, line_no INTEGER NOT NULL, sku TEXT NOT NULL, qty INTEGER NOT NULL, unit_cents BIGINT NOT NULL, discount_pct INTEGER NOT NULL, amount_cents BIGINT NOT NULL);
CREATE TABLE activities (id BIGINT PRIMARY KEY, account_id BIGINT NOT NULL, contact_id BIGINT NOT NULL, opportunity_id BIGINT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL, owner_id INTEGER NOT NULL, at TEXT NOT NULL, done INTEGER NOT NULL)`

const indexSQL = `
CREATE INDEX accounts_place ON accounts(industry, region, name);
CREATE INDEX accounts_region ON accounts(region, name);
CREATE INDEX contacts_acc ON contacts(account_id, last_name, first_name);
CREATE INDEX opp_acc ON opportunities(account_id);
CREATE INDEX opp_stage ON opportunities(stage, owner_id);
CREATE INDEX orders_acc ON orders(account_id, order_date);
CREATE INDEX orders_date ON orders(order_date);
CREATE INDEX lines_order ON order_lines(order_id);
CREATE INDEX act_acc ON activities(account_id, at)`

// The statements. Both peers run the same text.
const (
	pointSQL    = `SELECT id, account_id, first_name, last_name, email, phone, title, owner_id, created_at, updated_at FROM contacts WHERE id = ?`
	listSQL     = `SELECT id, first_name, last_name, email, phone, title FROM contacts WHERE account_id = ? ORDER BY last_name, first_name LIMIT 50`
	placeSQL    = `SELECT id, name, industry, region, city, phone, owner_id FROM accounts WHERE industry = ? AND region = ? ORDER BY name LIMIT 50`
	sizeSQL     = `SELECT id, name, industry, region, city, phone, owner_id FROM accounts WHERE region = ? AND employees > ? ORDER BY name LIMIT 50`
	accountSQL  = `SELECT * FROM accounts WHERE id = ?`
	timelineSQL = `SELECT a.id, a.contact_id, c.first_name, c.last_name, a.kind, a.subject, a.body, a.owner_id, a.at, a.done FROM activities a LEFT JOIN contacts c ON c.id = a.contact_id WHERE a.account_id = ? ORDER BY a.at DESC LIMIT 20`
	openSQL     = `SELECT id, number, status, order_date, total_cents FROM orders WHERE account_id = ? AND status IN ('open','confirmed') ORDER BY order_date DESC LIMIT 50`
	revenueSQL  = `SELECT substr(o.order_date,1,7) AS m, o.region, count(*) AS n, CAST(sum(l.amount_cents) AS BIGINT) AS amt FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.status IN ('shipped','invoiced') GROUP BY 1, 2 ORDER BY 1, 2`
	monthSQL    = `SELECT o.region, o.owner_id, count(*) AS n, CAST(sum(l.amount_cents) AS BIGINT) AS amt FROM orders o JOIN order_lines l ON l.order_id = o.id WHERE o.order_date >= '2024-05-01' AND o.order_date < '2024-06-01' AND o.status IN ('shipped','invoiced') GROUP BY 1, 2 ORDER BY 1, 2`
	pipelineSQL = `SELECT stage, owner_id, count(*) AS n, CAST(sum(amount_cents) AS BIGINT) AS amt, CAST(sum(amount_cents*probability) AS BIGINT) AS w FROM opportunities WHERE stage NOT IN ('won','lost') GROUP BY stage, owner_id ORDER BY stage, owner_id`
	insertSQL   = `INSERT INTO activities(id, account_id, contact_id, opportunity_id, kind, subject, body, owner_id, at, done) VALUES(?,?,?,?,?,?,?,?,?,?)`
)

// A peer is a database beside ours. There are two: SQLite and PostgreSQL.
type peer interface {
	// query runs a statement for a client, fetches every row and gives the
	// decoded ones to row, if that is not nil.
	query(ctx context.Context, client int, text string, row func([]any), args ...any) (int, error)
	// exec runs a statement as a transaction of its own, durable when it returns.
	exec(ctx context.Context, client int, text string, args ...any) error
}

// A table is one table of the data set as the peers hold it.
type table struct {
	name    string
	columns []string
	rows    iter.Seq[[]any]
}

func (d *data) tables() []table {
	return []table{
		{"accounts", split("id name industry region city phone website annual_revenue employees owner_id created_at updated_at description"), rowsOf(d.accounts, func(k int, a account) []any {
			return []any{k, a.name, a.industry, regions[a.region], a.city, a.phone, a.website, a.revenue, a.employees, a.owner, stamp(a.createdAt), stamp(a.updatedAt), a.description}
		})},
		{"contacts", split("id account_id first_name last_name email phone title owner_id created_at updated_at"), rowsOf(d.contacts, func(k int, c contact) []any {
			return []any{k, c.account, c.first, c.last, c.email, c.phone, c.title, c.owner, stamp(c.createdAt), stamp(c.updatedAt)}
		})},
		{"opportunities", split("id account_id contact_id name stage amount_cents probability owner_id close_date created_at updated_at"), rowsOf(d.opportunities, func(k int, o opportunity) []any {
			return []any{k, o.account, o.contact, o.name, stages[o.stage], o.cents, stageOdds[o.stage], o.owner, day(o.closeAt), stamp(o.createdAt), stamp(o.updatedAt)}
		})},
		{"orders", split("id account_id contact_id number status order_date region currency total_cents owner_id created_at"), rowsOf(d.orders, func(k int, o order) []any {
			return []any{k, o.account, o.contact, o.number, o.status, day(o.at), regions[o.region], "EUR", o.cents, o.owner, stamp(o.at)}
		})},
		{"order_lines", split("id order_id line_no sku qty unit_cents discount_pct amount_cents"), rowsOf(d.lines, func(k int, l line) []any {
			return []any{k, l.order, l.number, sku(l.product), l.quantity, l.unit, l.discount, l.cents}
		})},
		{"activities", split("id account_id contact_id opportunity_id kind subject body owner_id at done"), rowsOf(d.activities, func(k int, a activity) []any {
			return []any{k, a.account, a.contact, a.opportunity, a.kind, a.subject, a.body, a.owner, stamp(a.at), a.done}
		})},
	}
}

func split(names string) []string { return strings.Fields(names) }

// rowsOf yields the rows from 1 on.
func rowsOf[T any](list []T, columns func(int, T) []any) iter.Seq[[]any] {
	return func(yield func([]any) bool) {
		for k := 1; k < len(list); k++ {
			if !yield(columns(k, list[k])) {
				return
			}
		}
	}
}

// numbered writes ? as $1, $2 and so on.
func numbered(text string) string {
	var b strings.Builder
	n := 0
	for _, c := range text {
		if c == '?' {
			n++
			b.WriteString("$" + strconv.Itoa(n))
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}

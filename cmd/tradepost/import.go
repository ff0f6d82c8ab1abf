package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// importFlags are what the flags of an import say.
type importFlags struct {
	spec     mappingSpec
	form     csvForm
	mode     string
	currency string
	dryRun   bool
	resume   bool
}

func (c *cli) importCommand() *cobra.Command {
	o := &importFlags{}
	cmd := &cobra.Command{
		Use: "import ENTITY FILE.csv", Short: "Create or update records from a CSV file",
		Long: `Create or update records from a CSV file.

The first line names the columns. Each header is matched with the names, labels
and aliases of the entity's fields; --map says it where that does not suffice:

  --map "Customer Name=name"             a field
  --map "City=billing_address.city"      a part of an address
  --map "CustomerID=account.external_id" a link, found by a field of its target
  --map "Full name=first_name+last_name" two fields, cut at the last blank
  --map "Notes="                         leave the column out

Links are found by external_id where nothing else is said. Empty cells and NULL
clear a field; a field without a column stays as it is.

Rows are told apart by --key, external_id where a column fills it, so that a file
imported again makes no second record and changes nothing. Rows that fail are
written to FILE.failed.csv, with the reason, to be corrected and imported alone.
What is done is kept in FILE.import-state, and --resume continues there.

--dry-run reads the file and looks keys and links up, but does not ask the node
whether it would take each edit.`,
		Example: `  tradepost import account customers.csv --ignore-unmapped
  tradepost import contact customers.csv --map CustomerID=external_id --map CustomerID=account.external_id \
      --map ContactName=first_name+last_name --map CompanyName= --ignore-unmapped
  tradepost import order orders.csv --map EmployeeID= --map ShipVia= --currency USD
  tradepost import order_line order_details.csv --key-from OrderID,ProductID --currency USD
  tradepost import shipment orders.csv --skip-empty ShippedDate --map OrderID=external_id --map OrderID=order.external_id \
      --map "ShipVia=carrier" --map-value "ShipVia:1=Speedy Express" --set status=delivered --currency USD --ignore-unmapped
  tradepost import opportunity pipeline.csv --map-value "deal_stage:Won=Closed Won" --dry-run`,
		Args: want("ENTITY", "FILE.csv"),
	}
	o.register(cmd)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return c.live(entityNames)(cmd, args, part)
		}
		return []string{"csv"}, cobra.ShellCompDirectiveFilterFileExt
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.importFile(cmd.Context(), o, args[0], args[1]) }
	return cmd
}

func (o *importFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.spec.maps, "map", nil, `"Header=field": where a column goes; may be repeated, also for one column`)
	f.StringArrayVar(&o.spec.values, "map-value", nil, `"Header:cell=value": what a cell means`)
	f.StringArrayVar(&o.spec.set, "set", nil, `"field=value" of every row`)
	f.BoolVar(&o.spec.ignoreUnmapped, "ignore-unmapped", false, "leave out columns that no field is known for")
	f.StringVar(&o.spec.key, "key", "", "unique field that tells rows apart, or id (default: external_id if a column fills it)")
	f.StringSliceVar(&o.spec.keyFrom, "key-from", nil, "columns whose cells, joined by a hyphen, are the key")
	f.StringSliceVar(&o.spec.skipEmpty, "skip-empty", nil, "leave out rows in which this column is empty")
	f.StringVar(&o.mode, "mode", modeUpsert, "create, upsert or update")
	f.StringVar(&o.currency, "currency", "", "currency of amounts that name none, such as EUR")
	f.StringVar(&o.form.encoding, "encoding", "", "encoding of the file, such as windows-1252 (default: UTF-8, or what a byte order mark says)")
	f.StringVar(&o.form.delimiter, "delimiter", "", "character between cells, or tab (default: , ; or tab, as the header shows)")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be done")
	f.BoolVar(&o.resume, "resume", false, "continue an import that was interrupted")
	complete(cmd, "mode", modeCreate, modeUpsert, modeUpdate)
}

func (o *importFlags) validate() error {
	if o.mode != modeCreate && o.mode != modeUpsert && o.mode != modeUpdate {
		return usage("--mode", "%q is not create, upsert or update", o.mode)
	}
	probe := crm.Field{Name: "--currency", Kind: crm.Decimal, Money: true}
	if o.currency != "" && probe.Check(crm.DecimalValue(1, 0, o.currency)) != nil {
		return usage("--currency", "%q is not an ISO 4217 code such as EUR", o.currency)
	}
	if o.dryRun && o.resume {
		return usage("--resume", "a dry run leaves nothing to continue")
	}
	return nil
}

// importFile imports a file: it is read once to see that it is whole, and once
// more to import it.
func (c *cli) importFile(ctx context.Context, o *importFlags, entity, name string) error {
	if err := o.validate(); err != nil {
		return err
	}
	v, err := c.survey(name, o.form)
	if err != nil {
		return err
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	schema, e, err := entityOf(ctx, api, entity)
	if err != nil {
		return err
	}
	f, err := c.open(name)
	if err != nil {
		return failed("import", name, err)
	}
	defer f.Close()
	s, err := openSheet(name, f, o.form)
	if err != nil {
		return err
	}
	m, err := newMapping(schema, e, s.header, o.spec)
	if err != nil {
		return err
	}
	if m.key == nil && o.mode == modeUpdate {
		return usage("--key", "an update must tell which record a row means; map a column to external_id or name a key")
	}
	return c.importSheet(ctx, o, s, m, v, api)
}

func (c *cli) survey(name string, form csvForm) (survey, error) {
	f, err := c.open(name)
	if err != nil {
		return survey{}, failed("import", name, err)
	}
	defer f.Close()
	return surveySheet(name, f, form)
}

func (c *cli) importSheet(ctx context.Context, o *importFlags, s *sheet, m *mapping, v survey, api *httpapi.Client) error {
	p, err := c.startProgress(o, s, m.entity.Name, v)
	if err != nil {
		return err
	}
	defer p.close()
	im := &importer{
		api: api, m: m, mode: o.mode, dry: o.dryRun, form: importForm{o.currency, v.hash}, links: map[linkKey]crm.RecordID{},
		counts: p.state.Counts, fail: p.fail,
	}
	bar := c.bar(v.rows)
	im.done = func(offset int64) error {
		bar.Set(im.counts.rows())
		return p.save(offset, im.counts)
	}
	err = im.run(ctx, s, p.state.Offset)
	bar.Finish()
	if err != nil {
		if !o.dryRun {
			c.note("%d of %d rows are done; the same command with --resume continues", p.state.Counts.rows(), v.rows)
		}
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	return c.printImport(o, im.counts, p)
}

// bar shows progress to a person at a terminal.
func (c *cli) bar(rows int) *progressbar.ProgressBar {
	if !c.stderrTTY {
		return progressbar.DefaultSilent(int64(rows))
	}
	return progressbar.NewOptions(rows, progressbar.OptionSetWriter(c.stderr), progressbar.OptionShowCount(), progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("rows"), progressbar.OptionSetWidth(30), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
}

type importText struct {
	SchemaVersion int  `json:"schema_version"`
	DryRun        bool `json:"dry_run"`
	importCounts
	FailedFile string     `json:"failed_file,omitempty"`
	Failures   []failText `json:"failures"` // the first of them
}

func (c *cli) printImport(o *importFlags, n importCounts, p *progress) error {
	t := importText{SchemaVersion: schemaVersion, DryRun: o.dryRun, importCounts: n, Failures: p.first}
	slices.SortStableFunc(t.Failures, func(a, b failText) int { return a.Line - b.Line }) // wrong cells are found before what the node refuses
	if n.Failed > 0 && !o.dryRun {
		t.FailedFile = p.failedName()
	}
	if err := c.print(t, t.write); err != nil {
		return err
	}
	if n.Failed == 0 {
		return nil
	}
	what := "see " + t.FailedFile
	if o.dryRun {
		what = "nothing was changed"
	}
	return &crm.Error{Code: codeRows, Op: "import", Message: fmt.Sprintf("%d of %d rows failed; %s", n.Failed, n.rows(), what)}
}

func (t importText) write(w io.Writer) {
	g := columns("created", "updated", "unchanged", "failed", "skipped")
	if t.DryRun {
		g = columns("to create", "to update", "unchanged", "failed", "skipped")
	}
	g.right = []int{0, 1, 2, 3, 4}
	g.add(t.Created, t.Updated, t.Unchanged, t.Failed, t.Skipped)
	g.render(w)
	if len(t.Failures) > 0 {
		fmt.Fprintln(w)
		g := columns("line", "code", "error")
		g.whole = true
		for _, f := range t.Failures {
			g.add(f.Line, f.Code, f.Error)
		}
		g.render(w)
	}
}

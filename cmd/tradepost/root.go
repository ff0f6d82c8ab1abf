package main

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tradepost-crm/tradepost/httpapi"

	"github.com/tradepost-crm/tradepost/crm/query"
)

// A cli is one command line: what the global flags say, in the world it runs in.
type cli struct {
	*world
	form      string // table, json or yaml
	addr      string
	tokenFile string
	timeout   time.Duration
	noInput   bool
	yes       bool
	asked     string // base URL of the node that was asked; "" while none was
}

const defaultAddr = "http://127.0.0.1:8400"

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tradepost",
		Short: "A CRM with a node in every branch",
		Long: `Tradepost is a CRM with a node in every branch.

tradepost dev starts a whole cluster on this machine. The other commands speak to
the node at --addr, run a node, or prepare one.

Exit codes: 0 ok, 1 failed, 2 attention (only with --detailed-exitcode), 64 usage,
69 no node or quorum reachable, 75 deadline passed, 77 denied.`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return c.settle(cmd) },
	}
	grouped(root)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	c.globals(root.PersistentFlags())
	complete(root, "output", formTable, formJSON, formYAML)
	root.AddCommand(c.commands()...)
	return root
}

func (c *cli) commands() []*cobra.Command {
	return []*cobra.Command{
		c.devCommand(), c.initCommand(), c.tokenCommand(), c.joinCommand(), c.serveCommand(), c.statusCommand(), c.nodeCommand(), c.siteCommand(), c.territoryCommand(),
		c.recordCommand(), c.importCommand(), c.exportCommand(), c.reportCommand(), c.searchCommand(), c.conflictCommand(), c.outboxCommand(),
		c.checkCommand(), c.backupCommand(), c.restoreCommand(), c.promoteCommand(), c.operatorCommand(), c.wanCommand(), c.versionCommand(),
	}
}

func (c *cli) globals(f *pflag.FlagSet) {
	f.StringVarP(&c.form, "output", "o", formTable, "form of the data: table, json or yaml")
	f.StringVar(&c.addr, "addr", defaultAddr, "HTTP address of the node, also TRADEPOST_ADDR")
	f.StringVar(&c.tokenFile, "token-file", "", "file that holds the bearer token (default: admin.token of $TRADEPOST_DIR or ./tradepost-data)")
	f.DurationVar(&c.timeout, "timeout", 30*time.Second, "how long to wait for an answer of the node")
	f.BoolVar(&c.noInput, "no-input", false, "never ask")
	f.BoolVar(&c.yes, "yes", false, "do not ask before what cannot be taken back")
}

// fromEnvironment are the global flags that a TRADEPOST_ variable may set.
// What --yes says is never taken from the surroundings.
var fromEnvironment = []string{"output", "addr", "token-file", "timeout", "no-input"}

// settle lays the environment under the flags and judges both.
func (c *cli) settle(cmd *cobra.Command) error {
	for _, name := range fromEnvironment {
		variable := "TRADEPOST_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		f := cmd.Flags().Lookup(name)
		value, ok := c.lookup(variable)
		if f == nil || f.Changed || !ok || value == "" {
			continue
		}
		if err := f.Value.Set(value); err != nil {
			return usage(variable, "%q does not fit --%s: %v", value, name, err)
		}
	}
	if !slices.Contains([]string{formTable, formJSON, formYAML}, c.form) {
		return usage("--output", "%q is not table, json or yaml", c.form)
	}
	if c.timeout <= 0 {
		return usage("--timeout", "%s is no time to wait", c.timeout)
	}
	return nil
}

// client returns the client of the node at --addr.
func (c *cli) client() (*httpapi.Client, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	addr := c.addr
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	c.asked = addr
	return &httpapi.Client{BaseURL: addr, Token: token, HTTP: &http.Client{Timeout: c.timeout}}, nil
}

// token reads the bearer token. Where no file is named and none lies in the
// usual place, requests go without one.
func (c *cli) token() (string, error) {
	if c.tokenFile != "" {
		b, err := c.readFile(c.tokenFile)
		if err != nil {
			return "", usage("--token-file", "%s: %s", c.tokenFile, reason(err))
		}
		token := strings.TrimSpace(string(b))
		if token == "" || len(token) > maxToken || strings.ContainsFunc(token, notOfToken) {
			return "", usage("--token-file", "%s holds no token: one line such as admin.token in a node's directory", c.tokenFile)
		}
		return token, nil
	}
	dir, ok := c.lookup("TRADEPOST_DIR")
	if !ok {
		dir = "tradepost-data"
	}
	b, err := c.readFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		return "", nil
	}
	return strings.TrimSpace(string(b)), nil
}

// maxToken bounds a bearer token, in bytes.
const maxToken = 512

// notOfToken reports what a request's header cannot carry as part of a token.
func notOfToken(r rune) bool { return r <= ' ' || r > '~' }

// grouped makes a command that only holds others: alone it shows its help.
func grouped(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var names []string
		for _, k := range cmd.Commands() {
			if !k.Hidden {
				names = append(names, k.Name())
			}
		}
		return usage(args[0], "no such command%s", query.Suggest(args[0], names))
	}
	cmd.AddCommand(children...)
	return cmd
}

// flagError says what is wrong with a flag, and which flag may have been meant.
func flagError(cmd *cobra.Command, err error) error {
	if unknown, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok {
		var names []string
		add := func(f *pflag.Flag) { names = append(names, "--"+f.Name) }
		cmd.Flags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		return usage("--"+unknown, "no such flag%s", query.Suggest("--"+unknown, names))
	}
	return usage("", "%s", err.Error())
}

// want demands the named arguments; one in brackets may be left out, and one
// with dots may be repeated.
func want(names ...string) cobra.PositionalArgs {
	least, most := 0, len(names)
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
		if strings.HasSuffix(strings.TrimSuffix(n, "]"), "...") {
			most = 1 << 20
		}
	}
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(strings.TrimSuffix(names[len(args)], "..."), "this argument is missing")
		case len(args) > most:
			return usage(args[most], "one argument too many")
		}
		return nil
	}
}

// confirm asks before what cannot be taken back.
func (c *cli) confirm(what string) error {
	if c.yes {
		return nil
	}
	if c.noInput || !c.stdinTTY {
		return usage("--yes", "this would %s; say --yes to do it without being asked", what)
	}
	c.note("This will %s. Go on? [y/N]", what)
	answer := make([]byte, 16)
	n, _ := c.stdin.Read(answer)
	if s := strings.ToLower(strings.TrimSpace(string(answer[:n]))); s != "y" && s != "yes" {
		return usage("", "nothing was done")
	}
	return nil
}

func complete(cmd *cobra.Command, flag string, words ...string) {
	fixed := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, fixed); err != nil {
		panic(err) // the flag does not exist
	}
}

package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/tradepost-crm/tradepost/crm"
)

type versionText struct {
	SchemaVersion int    `json:"schema_version"`
	Version       string `json:"version"`
	Protocol      int    `json:"protocol"`
	Go            string `json:"go"`
	Platform      string `json:"platform"`
}

// programVersion names this build: as it was told, or else by the commit that Go
// found the sources at.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version of this program", Args: want(), RunE: func(*cobra.Command, []string) error {
		v := versionText{schemaVersion, programVersion(), crm.ProtocolVersion, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		return c.print(v, func(w io.Writer) {
			fmt.Fprintf(w, "tradepost %s (protocol %d, %s, %s)\n", v.Version, v.Protocol, v.Go, v.Platform)
		})
	}}
}

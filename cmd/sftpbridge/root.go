package main

import (
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// newRoot returns the command. argv are its arguments, for the commands that
// start themselves again in the background.
func newRoot(argv []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "sftpbridge",
		Short: "One tree of files at two doors: a FUSE mount and an SFTP server",
		Long: `sftpbridge takes a tree of files from a backend and shows it as a mount on this
machine and as an SFTP server, from one process; what changes at one door is seen
at the other at once, and every operation is checked against the user who asks.

` + backendForms + `.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return usagef("no command")
		},
		RunE: func(cmd *cobra.Command, args []string) error { return nil },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err.Error()} })
	root.AddCommand(newServe(argv), newMount(argv), newRun(argv), newSFTPServer(), newCheck(), newDemo(), newHashPassword(), newVersion())
	return root
}

// exactArgs accepts as many arguments as it is given names.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s: no %s", cmd.Name(), names[len(args)])
		case len(args) > len(names):
			return usagef("%s: unexpected argument %q", cmd.Name(), args[len(names)])
		}
		return nil
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "sftpbridge", version())
			return err
		},
	}
}

// version is what the build knows of where it came from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, revision := info.Main.Version, ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	if v == "" || v == "(devel)" {
		v = "devel"
		if revision != "" {
			v += " " + revision
		}
	}
	return v + " " + info.GoVersion
}

// newLogger returns the logger that a plan asks for.
func newLogger(p logPlan, w io.Writer) *slog.Logger {
	opt := &slog.HandlerOptions{Level: p.level}
	if p.format == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

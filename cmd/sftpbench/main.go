// Command sftpbench measures sftpbridge beside its peers, all on this machine
// and in one run: mounts of an OpenSSH server, mounts of a directory, SFTP
// servers of a directory, SFTP servers of another SFTP server, and a mount and
// an SFTP server of one tree at once.
//
// A workload is what is measured, a system is what it is measured on, and an
// instance is a system that runs. Each measurement has an instance of its own,
// that nothing is warm in but what the workload says; the systems take turns,
// and the median of the rounds counts. Between an instance and the server that
// it mounts is a proxy that adds the round-trip time and counts round trips.
//
// Start it with scripts/bench, which installs the peers.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sftpbench:", err)
		os.Exit(1)
	}
}

// options are what a run is told.
type options struct {
	run      *regexp.Regexp // workloads
	systems  *regexp.Regexp
	rtts     []time.Duration
	rounds   int
	limit    time.Duration // of one measurement
	quick    bool
	bridge   string // the program
	dir      string // where to work
	markdown string // file to write, "" for none
	progress io.Writer
	table    io.Writer
}

func newRoot() *cobra.Command {
	var opt options
	var run, systems, rtts string
	var list bool
	cmd := &cobra.Command{
		Use:           "sftpbench",
		Short:         "Measure sftpbridge beside its peers",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if opt.run, err = regexp.Compile(run); err != nil {
				return err
			}
			if opt.systems, err = regexp.Compile("^(" + systems + ")$"); err != nil {
				return err
			}
			if opt.rtts, err = parseRTTs(rtts); err != nil {
				return err
			}
			opt.progress, opt.table = cmd.ErrOrStderr(), cmd.OutOrStdout()
			if list {
				return listWorkloads(opt)
			}
			return benchmark(cmd.Context(), opt)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&run, "run", "", "only workloads (group/name) that match `REGEXP`")
	fs.StringVar(&systems, "systems", defaultSystems, "only systems whose whole name matches `REGEXP`")
	fs.StringVar(&rtts, "rtt", "0,10,50", "round-trip times to the upstream in `MILLISECONDS`")
	fs.IntVar(&opt.rounds, "rounds", 3, "measure `N` times; the median counts")
	fs.DurationVar(&opt.limit, "limit", 10*time.Second, "`TIME` after which a measurement ends with what is done")
	fs.BoolVar(&opt.quick, "quick", false, "small sizes")
	fs.StringVar(&opt.bridge, "bridge", "bin/sftpbridge", "`PROGRAM` to measure")
	fs.StringVar(&opt.dir, "dir", "", "work below `DIR` (default /dev/shm)")
	fs.StringVarP(&opt.markdown, "output", "o", "", "write Markdown tables to `FILE`")
	fs.BoolVarP(&list, "list", "l", false, "list the workloads and their systems")
	cmd.AddCommand(newLoopback(), newStock())
	return cmd
}

func parseRTTs(list string) ([]time.Duration, error) {
	var rtts []time.Duration
	for field := range strings.SplitSeq(list, ",") {
		ms, err := strconv.ParseUint(strings.TrimSpace(field), 10, 16)
		if err != nil {
			return nil, fmt.Errorf("round-trip time %q: %w", field, err)
		}
		rtts = append(rtts, time.Duration(ms)*time.Millisecond)
	}
	return rtts, nil
}

// listWorkloads prints the workloads that are asked for.
func listWorkloads(opt options) error {
	for _, w := range workloads() {
		if !opt.run.MatchString(w.name) {
			continue
		}
		var names []string
		for _, s := range w.systems {
			if opt.systems.MatchString(s.name) {
				names = append(names, s.name)
			}
		}
		if _, err := fmt.Fprintf(opt.table, "%-24s %-10s %s\n", w.name, w.unit, strings.Join(names, " ")); err != nil {
			return err
		}
	}
	return nil
}

// Command sftpbridge shows one tree of files at two doors: as a FUSE mount on
// this machine and as an SFTP server.
//
// Each subcommand has its file. All of them bring what they were told, on the
// command line or in a configuration file, into one form (config) which the
// gateway then carries out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// A usageError is a command line that makes no sense.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

// run is the command: it carries out args, whose first is the name of the
// program, and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	syscall.Umask(0) // modes are the callers' to choose
	raiseFileLimit()
	argv, err := helperArgs(args)
	if err == nil {
		cmd := newRoot(argv)
		cmd.SetArgs(argv)
		cmd.SetIn(stdin)
		cmd.SetOut(stdout)
		cmd.SetErr(stderr)
		cmd, err = cmd.ExecuteContextC(ctx)
		var usage usageError
		if errors.As(err, &usage) {
			fmt.Fprintf(stderr, "sftpbridge: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
			return exitUsage
		}
	}
	var usage usageError
	var background backgroundError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &background):
		return background.code
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "sftpbridge: %v\n", err)
		return exitUsage
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "sftpbridge: %s\n", strings.TrimRight(line, "\n"))
	}
	return exitFailure
}

// raiseFileLimit lets the process open as many files as it may: clients' open
// files are descriptors here.
func raiseFileLimit() {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) == nil && lim.Cur < lim.Max {
		lim.Cur = lim.Max
		syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
	}
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// daemonEnv tells a process that it is the one in the background: descriptor 3
// is the pipe on which its parent waits.
const daemonEnv = "SFTPBRIDGE_DAEMON"

// daemonUp is the last line on the pipe, when the doors are open.
const daemonUp = "up"

// inBackground reports whether this process was started by background.
func inBackground() bool { return os.Getenv(daemonEnv) != "" }

// background starts this program again, with the same arguments, and returns
// when its doors are open. The lines that the new process has for standard
// output go to stdout. It shares the terminal until then, so that it can
// ask for a password.
func background(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), daemonEnv+"=1")
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stderr = os.Stderr
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(unix.SIGTERM) })
	defer stop()
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if lines.Text() == daemonUp {
			return cmd.Process.Release()
		}
		fmt.Fprintln(stdout, lines.Text())
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return backgroundError{exit.ExitCode()}
	}
	return errors.Join(errors.New("the background process ended"), err)
}

// A backgroundError is the failure of the process in the background, which
// has told of it itself.
type backgroundError struct{ code int }

func (e backgroundError) Error() string { return "the background process failed" }

// An announcer tells whoever waits for the doors what opens: a line each on
// standard output, or on the pipe to the parent, and in the end systemd.
type announcer struct {
	out  io.Writer
	pipe *os.File // nil in the foreground
}

func newAnnouncer(stdout io.Writer) *announcer {
	if !inBackground() {
		return &announcer{out: stdout}
	}
	os.Unsetenv(daemonEnv)
	unix.CloseOnExec(3)
	pipe := os.NewFile(3, "daemon pipe")
	return &announcer{out: pipe, pipe: pipe}
}

// opened tells that a door is open.
func (a *announcer) opened(format string, args ...any) {
	fmt.Fprintf(a.out, format+"\n", args...)
}

// ready tells that all doors are. A process in the background then leaves the
// terminal and its session, and its standard error becomes logFile, or
// nothing.
func (a *announcer) ready(logFile string) error {
	daemon.SdNotify(false, daemon.SdNotifyReady)
	if a.pipe == nil {
		return nil
	}
	if err := detach(logFile); err != nil {
		return err
	}
	fmt.Fprintln(a.pipe, daemonUp)
	return a.pipe.Close()
}

// stopping tells systemd that the end has begun.
func (a *announcer) stopping() { daemon.SdNotify(false, daemon.SdNotifyStopping) }

func detach(logFile string) error {
	if logFile == "" {
		logFile = os.DevNull
	}
	f, err := os.OpenFile(logFile, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Dup3(int(f.Fd()), 2, 0); err != nil {
		return err
	}
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return err
	}
	return os.Chdir("/")
}

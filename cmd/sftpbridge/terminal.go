package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// askTerminal asks a question on the terminal of the process, whatever
// standard input is, and returns the answer. echo shows it as it is typed. The
// end of ctx ends the waiting.
func askTerminal(ctx context.Context, question string, echo bool) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("no terminal to ask %q on", strings.TrimSpace(question))
	}
	defer tty.Close()
	if !echo {
		restore, err := withoutEcho(tty)
		if err != nil {
			return "", err
		}
		defer func() {
			restore()
			fmt.Fprintln(tty)
		}()
	}
	stop := context.AfterFunc(ctx, func() { tty.SetReadDeadline(time.Now()) })
	defer stop()
	fmt.Fprint(tty, question)
	answer, err := bufio.NewReader(tty).ReadString('\n')
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	return strings.TrimRight(answer, "\r\n"), err
}

// withoutEcho has the terminal not show what is typed, until it is restored.
func withoutEcho(tty *os.File) (restore func(), err error) {
	conn, err := tty.SyscallConn()
	if err != nil {
		return nil, err
	}
	var before *unix.Termios
	var failed error
	err = conn.Control(func(fd uintptr) {
		if before, failed = unix.IoctlGetTermios(int(fd), unix.TCGETS); failed != nil {
			return
		}
		silent := *before
		silent.Lflag &^= unix.ECHO
		failed = unix.IoctlSetTermios(int(fd), unix.TCSETS, &silent)
	})
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	return func() {
		conn.Control(func(fd uintptr) { unix.IoctlSetTermios(int(fd), unix.TCSETS, before) })
	}, nil
}

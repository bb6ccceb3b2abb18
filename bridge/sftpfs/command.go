package sftpfs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Command returns a Dialer whose sessions are processes that speak SFTP on
// their standard input and output: an sftp-server on this machine, or ssh(1)
// with the option -s.
func Command(name string, args ...string) Dialer {
	return func(ctx context.Context) (Transport, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, err
		}
		return &commandTransport{path: path, args: args}, nil
	}
}

type commandTransport struct {
	path string
	args []string

	mu     sync.Mutex
	open   map[*commandChannel]struct{} // guarded by mu
	closed bool                         // guarded by mu
}

func (t *commandTransport) Open(ctx context.Context) (io.ReadWriteCloser, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, io.ErrClosedPipe
	}
	c := &commandChannel{t: t, cmd: exec.Command(t.path, t.args...), exited: make(chan struct{})}
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // no Ctrl-C for it
	c.cmd.WaitDelay = time.Second                           // its children may hold stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer w.Close()
	c.WriteCloser, c.out, c.cmd.Stdout = in, out, w
	if err := c.cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	go func() {
		c.cmd.Wait()
		close(c.exited)
	}()
	if t.open == nil {
		t.open = make(map[*commandChannel]struct{})
	}
	t.open[c] = struct{}{}
	return c, nil
}

// Ping has nobody to ask: a process that ended has ended its session.
func (t *commandTransport) Ping(ctx context.Context) error { return ctx.Err() }

func (t *commandTransport) Close() error {
	t.mu.Lock()
	t.closed = true
	var open []*commandChannel
	for c := range t.open {
		open = append(open, c)
	}
	t.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	return nil
}

// A commandChannel is one process.
type commandChannel struct {
	io.WriteCloser
	t      *commandTransport
	cmd    *exec.Cmd
	out    *os.File
	exited chan struct{} // closed when the process has ended
	stderr tail
	once   sync.Once
}

// Read reads what the process says. At its end, the error tells its last words.
func (c *commandChannel) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err != io.EOF {
		return n, err
	}
	select {
	case <-c.exited:
	case <-time.After(time.Second):
	}
	if s := c.stderr.String(); s != "" {
		err = fmt.Errorf("%s: %s: %w", c.t.path, s, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Close kills the process and waits for it.
func (c *commandChannel) Close() error {
	c.once.Do(func() {
		c.WriteCloser.Close()
		c.cmd.Process.Kill()
		<-c.exited
		c.out.Close()
		c.t.mu.Lock()
		delete(c.t.open, c)
		c.t.mu.Unlock()
	})
	return nil
}

// A tail keeps the last line that was written to it.
type tail struct {
	mu   sync.Mutex
	line []byte // guarded by mu
}

func (t *tail) Write(p []byte) (int, error) {
	const most = 1024
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = append(t.line, p...)
	full := bytes.TrimRight(t.line, "\r\n")
	if i := bytes.LastIndexByte(full, '\n'); i >= 0 {
		t.line = append([]byte(nil), t.line[i+1:]...)
	}
	if n := len(t.line); n > most {
		t.line = append([]byte(nil), t.line[n-most:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.line))
}

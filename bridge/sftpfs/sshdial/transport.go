package sshdial

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// A transport is a chain of SSH connections, each but the first through the
// one before.
type transport struct {
	base    net.Conn // the connection below all
	clients []*ssh.Client
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool // nothing is begun any more; guarded by mu
}

// begin runs f beside, unless the transport is being closed.
func (t *transport) begin(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// connect connects to h: through the last client if there is one, else by its
// ProxyCommand, else by TCP.
func (t *transport) connect(ctx context.Context, h hop) (net.Conn, error) {
	if n := len(t.clients); n > 0 {
		return t.clients[n-1].DialContext(ctx, "tcp", h.addr())
	}
	var conn net.Conn
	var err error
	if h.proxyCommand != "" {
		conn, err = runProxy(h.proxyCommand)
	} else {
		dialer := net.Dialer{KeepAlive: 15 * time.Second}
		conn, err = dialer.DialContext(ctx, "tcp", h.addr())
	}
	if err != nil {
		return nil, err
	}
	t.base = conn
	return &bufferedConn{Conn: conn, r: bufio.NewReaderSize(conn, 256<<10)}, nil
}

// A bufferedConn reads from the socket in large pieces: an SSH packet at a
// time costs a system call each.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Open starts the sftp subsystem on a channel of its own.
func (t *transport) Open(ctx context.Context) (io.ReadWriteCloser, error) {
	type result struct {
		ch  *channel
		err error
	}
	done := make(chan result)
	gone := make(chan struct{})
	if !t.begin(func() {
		ch, err := t.open()
		select {
		case done <- result{ch, err}:
		case <-gone:
			if err == nil {
				ch.Close()
			}
		}
	}) {
		return nil, net.ErrClosed
	}
	select {
	case r := <-done:
		if r.err != nil {
			return nil, r.err
		}
		return r.ch, nil
	case <-ctx.Done():
		close(gone)
		return nil, ctx.Err()
	}
}

func (t *transport) open() (*channel, error) {
	c, reqs, err := t.last().OpenChannel("session", nil)
	if err != nil {
		return nil, err
	}
	ch := &channel{Channel: c}
	t.wg.Go(func() { ssh.DiscardRequests(reqs) })
	t.wg.Go(func() { ch.said.read(c.Stderr()) })
	ok, err := c.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	if err == nil && !ok {
		err = errors.New("the host has no sftp subsystem")
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return ch, nil
}

func (t *transport) last() *ssh.Client { return t.clients[len(t.clients)-1] }

// Ping asks for an answer, as ssh(1) does with ServerAliveInterval.
func (t *transport) Ping(ctx context.Context) error {
	done := make(chan error, 1)
	if !t.begin(func() {
		_, _, err := t.last().SendRequest("keepalive@openssh.com", true, nil)
		done <- err
	}) {
		return net.ErrClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer to a keepalive: %w", ctx.Err())
	}
}

// Close ends all connections and waits for what serves them. The socket comes
// first: what waits to write to a peer that is gone ends with it.
func (t *transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	var err error
	if t.base != nil {
		err = t.base.Close()
	}
	for i := len(t.clients) - 1; i >= 0; i-- {
		t.clients[i].Close()
		t.clients[i].Wait()
	}
	t.wg.Wait()
	return err
}

// A channel is one sftp subsystem.
type channel struct {
	ssh.Channel
	said lastLine
}

// Read reads; at the end, the error has the last line that the server's side
// wrote to its standard error.
func (c *channel) Read(p []byte) (int, error) {
	n, err := c.Channel.Read(p)
	if err == io.EOF {
		if s := c.said.String(); s != "" {
			err = fmt.Errorf("the sftp subsystem said %q: %w", s, io.ErrUnexpectedEOF)
		}
	}
	return n, err
}

// A lastLine keeps the last line that is read.
type lastLine struct {
	mu   sync.Mutex
	line []byte // guarded by mu
}

func (l *lastLine) read(r io.Reader) {
	s := bufio.NewReaderSize(r, 1024)
	for {
		line, err := s.ReadSlice('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			l.mu.Lock()
			l.line = append(l.line[:0], line...)
			l.mu.Unlock()
		}
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return plain(string(l.line))
}

// A watchdog closes a connection whose handshake takes too long, or whose
// context ends.
type watchdog struct {
	conn   net.Conn
	ctx    context.Context
	detach func() bool

	mu    sync.Mutex
	timer *time.Timer   // guarded by mu
	left  time.Duration // guarded by mu
	since time.Time     // guarded by mu
	late  bool          // guarded by mu
}

func watch(ctx context.Context, conn net.Conn, timeout time.Duration) *watchdog {
	w := &watchdog{conn: conn, ctx: ctx, left: timeout, since: time.Now()}
	w.timer = time.AfterFunc(timeout, w.fire)
	w.detach = context.AfterFunc(ctx, func() { conn.Close() })
	return w
}

func (w *watchdog) fire() {
	w.mu.Lock()
	w.late = true
	w.mu.Unlock()
	w.conn.Close()
}

// pause stops the clock until the function that it returns is called.
func (w *watchdog) pause() (resume func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.left -= time.Since(w.since)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.since = time.Now()
		w.timer = time.AfterFunc(max(w.left, time.Second), w.fire)
	}
}

// stop ends the watch and returns why the connection was closed, if it was.
func (w *watchdog) stop() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	if !w.detach() && w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if w.late {
		return os.ErrDeadlineExceeded
	}
	return nil
}

package sftpsrv

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	connBuffer  = 256 << 10 // of reading much, and of what waits to be written
	closeLinger = 2 * time.Second
)

// A bufConn is a connection that is read and written in large pieces. Package
// ssh reads and writes it packet by packet; joining these saves system calls.
// What is written is taken by a goroutine of its own, so that many small
// packets become one write while the one before is under way.
type bufConn struct {
	net.Conn
	r        *readBuffer
	in, out  atomic.Int64  // bytes
	lastRead atomic.Int64  // when, in UnixNano
	finished chan struct{} // closed when the writer has ended

	mu      sync.Mutex
	changed sync.Cond // of pending, closed and err
	pending []byte    // to be written
	closed  bool
	err     error // of a write that failed

	// guarded by mu
}

func newBufConn(c net.Conn) *bufConn {
	b := &bufConn{Conn: c, finished: make(chan struct{})}
	b.r = newReadBuffer(countingReader{b})
	b.changed.L = &b.mu
	b.lastRead.Store(time.Now().UnixNano())
	go b.writer()
	return b
}

// A countingReader reads the connection below the buffer.
type countingReader struct{ b *bufConn }

func (c countingReader) Read(p []byte) (int, error) {
	n, err := c.b.Conn.Read(p)
	if n > 0 {
		c.b.in.Add(int64(n))
		c.b.lastRead.Store(time.Now().UnixNano())
	}
	return n, err
}

func (b *bufConn) Read(p []byte) (int, error) { return b.r.Read(p) }

// Write takes p, waiting while too much waits already.
func (b *bufConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.pending) >= connBuffer && b.err == nil && !b.closed {
		b.changed.Wait()
	}
	switch {
	case b.err != nil:
		return 0, b.err
	case b.closed:
		return 0, net.ErrClosed
	}
	b.pending = append(b.pending, p...)
	b.changed.Broadcast()
	return len(p), nil
}

// writer writes what is pending until the connection is closed.
func (b *bufConn) writer() {
	defer close(b.finished)
	var taken []byte
	var last time.Time
	for {
		b.mu.Lock()
		for len(b.pending) == 0 && !b.closed {
			b.changed.Wait()
		}
		if len(b.pending) == 0 {
			b.mu.Unlock()
			return
		}
		taken, b.pending = b.pending, taken[:0]
		now := time.Now()
		if now.Sub(last) > calm { // an idle connection needs no large buffers
			b.pending = nil
		}
		last = now
		b.changed.Broadcast()
		b.mu.Unlock()

		n, err := b.Conn.Write(taken)
		b.out.Add(int64(n))
		if err != nil {
			b.mu.Lock()
			b.err = err
			b.changed.Broadcast()
			b.mu.Unlock()
			return
		}
	}
}

// Close closes the connection when what was written has left, but waits for
// that only for a moment.
func (b *bufConn) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.Conn.SetWriteDeadline(time.Now().Add(closeLinger))
		b.changed.Broadcast()
	}
	b.mu.Unlock()
	<-b.finished
	return b.Conn.Close()
}

// SetDeadline does nothing once the connection is closed, whose last write has
// a deadline of its own.
func (b *bufConn) SetDeadline(t time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return net.ErrClosed
	}
	return b.Conn.SetDeadline(t)
}

// silence is for how long nothing has come in.
func (b *bufConn) silence() time.Duration {
	return time.Since(time.Unix(0, b.lastRead.Load()))
}

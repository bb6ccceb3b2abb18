// Package faulty is a line between a client and a server that is slow, stalls
// or breaks, for tests.
package faulty

import (
	"errors"
	"io"
	"sync"
	"time"
)

// A Line is the way that all connections wrapped by it go. Its zero value is a
// good one.
type Line struct {
	mu      sync.Mutex
	delay   time.Duration      // guarded by mu
	stalled chan struct{}      // closed at the end of a stall; nil without one; guarded by mu
	left    int64              // bytes until the cut, if cutting; guarded by mu
	cutting bool               // guarded by mu
	losing  bool               // guarded by mu
	open    map[*conn]struct{} // guarded by mu
	bursts  int                // guarded by mu
	heard   bool               // something was read since the last write; guarded by mu
}

// ErrCut is the error of a connection that was cut.
var ErrCut = errors.New("faulty: cut")

// Delay has all that is sent from now on arrive after d, in each direction.
func (l *Line) Delay(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.delay = d
}

// Stall holds up all that is under way, until the function that it returns is
// called.
func (l *Line) Stall() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stalled == nil {
		l.stalled = make(chan struct{})
	}
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(l.stalled)
		l.stalled = nil
	})
}

// Cut breaks all connections that are open.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutLocked()
}

// CutAfter breaks all connections when n more bytes have been written; what
// is beyond is not delivered.
func (l *Line) CutAfter(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left, l.cutting = n, true
}

// LoseAnswer breaks all connections in the place of the next that comes from
// the other side: what was asked for is done, and nobody hears of it.
func (l *Line) LoseAnswer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.losing = true
}

// lose reports whether what has come is lost, and cuts the line then.
func (l *Line) lose() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.losing {
		return false
	}
	l.losing = false
	l.cutLocked()
	return true
}

func (l *Line) cutLocked() {
	for c := range l.open {
		go c.under.Close() // the owner of c waits for its pumps in Close
		c.fail()
	}
	l.cutting = false
}

// Bursts returns how many times something was written after something had been
// read, since the last call: the number of round trips of a single client.
func (l *Line) Bursts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.bursts
	l.bursts, l.heard = 0, true
	return n
}

// Wrap returns rwc as it is at the end of the line. Its Close waits for what
// runs for it.
func (l *Line) Wrap(rwc io.ReadWriteCloser) io.ReadWriteCloser {
	c := &conn{l: l, under: rwc}
	c.in.init()
	c.out.init()
	l.mu.Lock()
	if l.open == nil {
		l.open = make(map[*conn]struct{})
		l.heard = true
	}
	l.open[c] = struct{}{}
	l.mu.Unlock()
	c.wg.Go(c.pumpIn)
	c.wg.Go(c.pumpOut)
	return c
}

// due returns when what is sent now arrives.
func (l *Line) due() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.delay)
}

// wait waits until t, and for the end of a stall.
func (l *Line) wait(t time.Time, stop <-chan struct{}) bool {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
		return false
	}
	for {
		l.mu.Lock()
		stalled := l.stalled
		l.mu.Unlock()
		if stalled == nil {
			return true
		}
		select {
		case <-stalled:
		case <-stop:
			return false
		}
	}
}

// allow returns how many of n bytes get through, and cuts the line at them.
func (l *Line) allow(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.cutting {
		return n
	}
	ok := int(min(int64(n), l.left))
	l.left -= int64(ok)
	return ok
}

// A conn is one connection.
type conn struct {
	l       *Line
	under   io.ReadWriteCloser
	in, out queue
	rest    []byte // read, but not yet taken
	wg      sync.WaitGroup
}

func (c *conn) Write(p []byte) (int, error) {
	c.l.mu.Lock()
	if c.l.heard {
		c.l.bursts++
		c.l.heard = false
	}
	c.l.mu.Unlock()
	if !c.out.put(piece{append([]byte(nil), p...), c.l.due(), nil}) {
		return 0, ErrCut
	}
	return len(p), nil
}

func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		q, ok := c.in.get()
		if !ok {
			return 0, ErrCut
		}
		if !c.l.wait(q.due, c.in.stop) {
			return 0, ErrCut
		}
		if q.err != nil {
			return 0, q.err
		}
		c.rest = q.data
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	c.l.mu.Lock()
	c.l.heard = true
	c.l.mu.Unlock()
	return n, nil
}

func (c *conn) Close() error {
	c.fail()
	c.l.mu.Lock()
	delete(c.l.open, c)
	c.l.mu.Unlock()
	err := c.under.Close()
	c.wg.Wait()
	return err
}

func (c *conn) fail() {
	c.in.close()
	c.out.close()
}

// pumpIn takes what comes from the other side.
func (c *conn) pumpIn() {
	for {
		buf := make([]byte, 64<<10)
		n, err := c.under.Read(buf)
		if n > 0 && c.l.lose() {
			return
		}
		if n > 0 && !c.in.put(piece{buf[:n], c.l.due(), nil}) {
			return
		}
		if err != nil {
			c.in.put(piece{nil, c.l.due(), err})
			return
		}
	}
}

// pumpOut brings to the other side what was written.
func (c *conn) pumpOut() {
	for {
		q, ok := c.out.get()
		if !ok || !c.l.wait(q.due, c.out.stop) {
			return
		}
		n := c.l.allow(len(q.data))
		if _, err := c.under.Write(q.data[:n]); err != nil {
			c.fail()
			return
		}
		if n < len(q.data) {
			c.l.Cut()
			return
		}
	}
}

// A piece is what was read or written at once.
type piece struct {
	data []byte
	due  time.Time
	err  error
}

// A queue holds pieces on their way.
type queue struct {
	mu     sync.Mutex
	wake   sync.Cond
	pieces []piece       // guarded by mu
	closed bool          // guarded by mu
	stop   chan struct{} // closed with the queue
}

func (q *queue) init() {
	q.wake.L = &q.mu
	q.stop = make(chan struct{})
}

func (q *queue) put(p piece) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.pieces = append(q.pieces, p)
	q.wake.Signal()
	return true
}

func (q *queue) get() (piece, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.pieces) == 0 && !q.closed {
		q.wake.Wait()
	}
	if q.closed {
		return piece{}, false
	}
	p := q.pieces[0]
	q.pieces = q.pieces[1:]
	return p, true
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.stop)
		q.wake.Broadcast()
	}
}

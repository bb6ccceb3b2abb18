package sftpfs

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// A Dialer makes a connection to the upstream.
type Dialer func(ctx context.Context) (Transport, error)

// A Transport is a connection to the upstream that carries SFTP sessions.
type Transport interface {
	// Open starts an SFTP server on a channel of its own. It may refuse
	// when it has enough of them.
	Open(ctx context.Context) (io.ReadWriteCloser, error)
	// Ping returns when the other side has shown that it is there.
	Ping(ctx context.Context) error
	// Close ends the connection, and every read and write on its channels.
	Close() error
}

// How long a connection waits before it tries again, at first and at most,
// and for how long further connections are not tried after one failed.
const (
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
	spareRetry = 30 * time.Second
)

// A pool keeps the connections and their sessions. The first connection is
// brought back whenever it breaks; the others come when they are needed.
type pool struct {
	dial    Dialer
	opt     Options
	log     *slog.Logger
	ctx     context.Context // ends when the pool is closed
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of the connections' keepers
	backoff time.Duration  // the first wait; tests shorten it
	way     shortest
	gate    gate

	mu      sync.Mutex
	conns   []*conn
	changed chan struct{} // closed when a session has come or the pool was closed; guarded by mu
	since   time.Time     // since when there is no session; zero while there is one; guarded by mu
	server  *serverInfo   // what the first session learned; guarded by mu
	closed  bool          // guarded by mu
}

// newPool makes the first connection and session. An error is that of the
// dialer or of the server; it is not tried again.
func newPool(ctx context.Context, dial Dialer, opt Options) (*pool, error) {
	p := &pool{dial: dial, opt: opt, log: opt.Logger, backoff: backoffMin, changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for range opt.Connections {
		p.conns = append(p.conns, &conn{p: p, poke: make(chan struct{}, 1), came: make(chan arrival, opt.Channels)})
	}
	c := p.conns[0]
	c.want = 1
	if err := c.connect(ctx); err != nil {
		p.cancel()
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startLocked(c)
	return p, nil
}

// startLocked starts the keeper of c. p.mu is held.
func (p *pool) startLocked(c *conn) {
	c.running = true
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		c.keep(p.ctx)
	}()
}

// close ends all sessions and waits for them.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.signalLocked()
	p.mu.Unlock()
	p.cancel()
	p.wg.Wait()
}

// signalLocked wakes those who wait for a session. p.mu is held.
func (p *pool) signalLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// session returns the session with the least to do. While there is none, it
// waits for one: as long as the operation of ctx may take, or shorter if the
// upstream has been away for long.
func (p *pool) session(ctx context.Context) (*session, error) {
	start := startOf(ctx)
	if start.IsZero() {
		start = time.Now()
	}
	for {
		p.mu.Lock()
		s := p.leastLocked(nil)
		changed, since, closed := p.changed, p.since, p.closed
		p.mu.Unlock()
		switch {
		case closed:
			return nil, errClosed
		case s != nil:
			if s.load.Load() >= busy || s.stuck() {
				p.grow()
			}
			return s, nil
		}
		timer := time.NewTimer(time.Until(p.giveUp(start, since)))
		select {
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil, ctxError(ctx)
		case <-timer.C:
			return nil, errAway
		}
	}
}

// giveUp is when a call that began at start stops to wait for a session that
// there has not been since the time since.
func (p *pool) giveUp(start, since time.Time) time.Time {
	late := start.Add(p.opt.Timeout)
	if since.IsZero() {
		return late
	}
	early := since.Add(p.opt.Timeout)
	if soon := start.Add(p.opt.Timeout / 8); early.Before(soon) {
		early = soon
	}
	if early.Before(late) {
		return early
	}
	return late
}

// leastLocked returns the session with the least in flight that has none of
// the handles use, or nil. p.mu is held.
func (p *pool) leastLocked(use []handle) *session {
	var best *session
	for _, c := range p.conns {
	next:
		for _, s := range c.sessions {
			if !s.alive() {
				continue
			}
			for _, h := range use {
				if h.s == s {
					continue next
				}
			}
			if best == nil || s.better(best) {
				best = s
			}
		}
	}
	return best
}

// better reports whether s had better get the next request than t.
func (s *session) better(t *session) bool {
	if a, b := s.stuck(), t.stuck(); a != b {
		return b
	}
	return s.load.Load() < t.load.Load()
}

// came adds a session of c.
func (p *pool) came(c *conn, s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.sessions = append(c.sessions, s)
	if p.server == nil {
		info := s.server
		p.server = &info
	}
	if !s.alive() {
		return // went tells, or has told, of it
	}
	p.since = time.Time{}
	p.signalLocked()
	p.gate.open()
}

// went is called when a session has ended.
func (p *pool) went(c *conn) {
	p.mu.Lock()
	if p.since.IsZero() && p.leastLocked(nil) == nil {
		p.since = time.Now()
	}
	p.mu.Unlock()
	c.signal()
}

// known returns what an earlier session learned of the server, or nil.
func (p *pool) known() *serverInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

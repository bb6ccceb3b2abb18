package sftpfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"
)

// openTimeout is for how long at least the start of a session may take: the
// host has to start a process for it.
const openTimeout = 10 * time.Second

// A conn is one connection of the pool, which comes and goes. Its keeper is
// the only goroutine that dials, opens and closes.
type conn struct {
	p    *pool
	poke chan struct{} // something to do for the keeper

	// The keeper's own.
	tr     Transport
	gone   []*session // ended, but maybe not finished
	coming int        // sessions that are being made, each of which tells came
	came   chan arrival

	// Guarded by p.mu.
	sessions []*session // ended ones among them until the keeper has seen it
	want     int        // how many sessions there should be
	running  bool       // has a keeper
	full     bool       // the server refused a further session
	retryAt  time.Time  // not to be tried before
}

// An arrival is the end of the making of a session. With an error the session
// has ended, or is nil.
type arrival struct {
	s   *session
	err error
}

// signal has the keeper look.
func (c *conn) signal() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// connect dials and makes the first session.
func (c *conn) connect(ctx context.Context) error {
	tr, err := c.p.dial(ctx)
	if err != nil {
		return err
	}
	c.tr = tr
	c.open(ctx)
	if err := c.arrived(<-c.came); err != nil {
		c.disconnect()
		return err
	}
	return nil
}

// open begins to make one more session.
func (c *conn) open(ctx context.Context) {
	c.coming++
	tr := c.tr
	go func() {
		s, err := c.start(ctx, tr)
		c.came <- arrival{s, err}
	}()
}

// arrived takes up a session that was made, or returns why it was not.
func (c *conn) arrived(a arrival) error {
	c.coming--
	if a.err == nil {
		c.p.came(c, a.s)
	} else if a.s != nil {
		c.gone = append(c.gone, a.s)
	}
	return a.err
}

// start makes a session of tr.
func (c *conn) start(ctx context.Context, tr Transport) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, max(c.p.opt.Timeout, openTimeout))
	defer cancel()
	ch, err := tr.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot start SFTP on the upstream: %w", err)
	}
	s, err := newSession(ctx, ch, c.p, func() { c.p.went(c) })
	if err != nil {
		return s, fmt.Errorf("cannot start SFTP on the upstream: %w", err)
	}
	return s, nil
}

// disconnect closes the connection and waits for its sessions.
func (c *conn) disconnect() {
	c.tr.Close()
	c.tr = nil
	for c.coming > 0 {
		if a := <-c.came; a.s != nil {
			c.gone = append(c.gone, a.s)
		}
		c.coming--
	}
	c.p.mu.Lock()
	c.gone = append(c.gone, c.sessions...)
	c.sessions = nil
	c.full = false
	c.p.mu.Unlock()
	for _, s := range c.gone {
		s.fail(errClosedConn)
		<-s.finished
	}
	c.gone = nil
}

var errClosedConn = errors.New("the connection was closed")

// keep keeps the connection up until ctx ends. A connection that is not the
// first gives up when it cannot be made, and comes back when one is needed.
func (c *conn) keep(ctx context.Context) {
	delay := c.p.backoff
	for ctx.Err() == nil {
		if c.tr == nil {
			err := c.redial(ctx)
			if err != nil && ctx.Err() == nil {
				c.p.log.Warn("cannot connect to the upstream", "err", err)
			}
			if err != nil && c.spare() {
				return
			}
			if err != nil {
				sleep(ctx, delay/2+rand.N(delay/2+1))
				delay = min(2*delay, backoffMax)
				continue
			}
			c.p.log.Info("connected to the upstream again")
		}
		up := time.Now()
		err := c.serve(ctx)
		c.disconnect()
		if ctx.Err() == nil {
			c.p.log.Warn("connection to the upstream lost", "err", err)
		}
		if time.Since(up) > delay {
			delay = c.p.backoff
		}
		if c.spare() {
			return
		}
	}
}

// redial connects once, within the time-out but for what the user is asked.
func (c *conn) redial(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(c.p.opt.Timeout, openTimeout))
	defer cancel()
	return c.connect(ctx)
}

// spare ends the keeper's duty if this is not the first connection.
func (c *conn) spare() bool {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if c == c.p.conns[0] || c.p.closed {
		return c.p.closed
	}
	c.running = false
	c.want = 0
	c.retryAt = time.Now().Add(spareRetry)
	return true
}

// serve opens sessions as they are wanted and sees that the connection lives,
// until it does not, and returns why.
func (c *conn) serve(ctx context.Context) error {
	tick := time.NewTicker(c.p.opt.Keepalive)
	defer tick.Stop()
	for {
		alive, want, err := c.prune()
		if err != nil && errors.Is(err, syscall.ETIMEDOUT) {
			if err := c.ping(ctx); err != nil {
				return err
			}
		}
		for alive+c.coming < want {
			c.open(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-c.came:
			err := c.arrived(a)
			if err != nil && (alive == 0 || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)) {
				return err
			}
			if err != nil {
				c.p.log.Debug("no further session", "err", err)
				c.refused(alive + c.coming)
			}
		case <-c.poke:
		case <-tick.C:
			if err := c.keepalive(ctx); err != nil {
				return err
			}
		}
	}
}

// prune takes away the sessions that have ended, and returns how many there
// are and should be, and why the last ended.
func (c *conn) prune() (alive, want int, err error) {
	c.gone = slices.DeleteFunc(c.gone, (*session).isFinished)
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.sessions = slices.DeleteFunc(c.sessions, func(s *session) bool {
		if s.alive() {
			return false
		}
		err = s.cause()
		c.gone = append(c.gone, s)
		return true
	})
	c.want = max(c.want, 1)
	return len(c.sessions), c.want, err
}

// refused notes that the server gives no further session than so many.
func (c *conn) refused(n int) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.want = n
	c.full = true
}

// keepalive asks for a sign of life if there has been none for a while.
func (c *conn) keepalive(ctx context.Context) error {
	c.p.mu.Lock()
	var heard int64
	for _, s := range c.sessions {
		heard = max(heard, s.heard.Load())
	}
	c.p.mu.Unlock()
	if time.Since(time.Unix(0, heard)) < c.p.opt.Keepalive {
		return nil
	}
	return c.ping(ctx)
}

func (c *conn) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.p.opt.Timeout/2)
	defer cancel()
	return c.tr.Ping(ctx)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

package sftpfs

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

// How much a session has in flight when another had better be used, half of
// what the window of an SSH channel holds, and when it gets no more while
// others may be coming: what is not sent yet can still go elsewhere, and
// small requests have little to wait for.
const (
	busy = 1 << 20
	full = 3 << 20
)

// small is how much may always be sent.
const small = 64 << 10

// How many bytes of a file must have moved before a further handle is worth
// it, and before it is tried again.
const (
	widenFirst = 2 << 20
	widenNext  = 8 << 20
)

// longWay is the round-trip time from which on a channel's window and not the
// machines limit what a session carries: connections and sessions are made
// several at a time, and before they are needed.
const longWay = 8 * time.Millisecond

// A shortest is the shortest time that an answer took: the round-trip time.
// There is one for all sessions of a pool.
type shortest struct{ d atomic.Int64 }

// took notes the time that an answer took.
func (w *shortest) took(d time.Duration) {
	for {
		old := w.d.Load()
		if old > 0 && int64(d) >= old || w.d.CompareAndSwap(old, max(1, int64(d))) {
			return
		}
	}
}

// long reports whether the upstream is far away.
func (w *shortest) long() bool { return w.d.Load() >= int64(longWay) }

// A gate is what those wait at who have more to send than the sessions take.
type gate struct {
	mu   sync.Mutex
	wake chan struct{} // closed when the gate opens; nil if nobody waits; guarded by mu
}

// wait returns a channel that is closed when the gate is opened next.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wake == nil {
		g.wake = make(chan struct{})
	}
	return g.wake
}

// open lets all look whether there is room now.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wake != nil {
		close(g.wake)
		g.wake = nil
	}
}

// admit returns the handles through which n bytes are to go now. Much waits
// for its turn among the reads and writes of the file, and for a session with
// room; not for long, since those in front may wait for an upstream that is
// gone. The turn ends when sent is called, which may be twice. What waits when
// unwanted is closed is not to be sent any more (ECANCELED).
func (fl *file) admit(ctx context.Context, unwanted <-chan struct{}, n int) (hs []handle, sent func(), err error) {
	if n <= small {
		hs, err = fl.live(ctx)
		return hs, func() {}, err
	}
	enough := time.NewTimer(fl.f.opt.Timeout / 8)
	defer enough.Stop()
	sent = func() {}
	select {
	case fl.turn <- struct{}{}:
		sent = sync.OnceFunc(func() { <-fl.turn })
	case <-enough.C:
		enough.Reset(0)
	case <-unwanted:
	case <-ctx.Done():
	}
	for {
		wake := fl.f.pool.gate.wait()
		if err = givenUp(ctx, unwanted); err != nil {
			break
		}
		if hs, err = fl.live(ctx); err != nil {
			break
		}
		fl.spread(n)
		n = 0
		if least(hs).s.load.Load() < full {
			return hs, sent, nil
		}
		select {
		case <-wake:
		case <-enough.C:
			return hs, sent, nil
		case <-unwanted:
		case <-ctx.Done():
		}
	}
	sent()
	return nil, nil, err
}

// givenUp returns an error if a request that was not sent yet is given up.
func givenUp(ctx context.Context, unwanted <-chan struct{}) error {
	select {
	case <-unwanted:
		return syscall.ECANCELED
	case <-ctx.Done():
		return ctxError(ctx)
	default:
		return nil
	}
}

// spread notes that n bytes are about to move. When the sessions of all
// handles have enough to do, the file is opened on further ones, beside the
// transfer.
func (fl *file) spread(n int) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.moved += int64(n)
	if fl.moved < fl.widenAt || fl.closed || len(fl.handles) == 0 || fl.flags.Has(syscall.O_APPEND) || fl.widening.Load() {
		return
	}
	if fl.flags.Writes() && !fl.f.info.posix() {
		return
	}
	for _, h := range fl.handles {
		if !h.s.alive() || h.s.load.Load() < busy {
			return
		}
	}
	ss := fl.f.pool.others(fl.handles)
	if len(ss) == 0 {
		return
	}
	fl.widenAt = fl.moved + widenNext
	first := fl.handles[0]
	fl.widening.Store(true)
	fl.wideners.Go(func() {
		fl.widen(first, ss)
		fl.widening.Store(false)
		fl.f.pool.gate.open()
	})
}

// widen opens the file on the sessions ss too, where what its name means is
// at the same time as large and as old as the file that is open.
func (fl *file) widen(first handle, ss []*session) {
	ctx, cancel := context.WithTimeout(context.Background(), fl.f.opt.Timeout)
	defer cancel()
	name, named := fl.f.names.nameOf(fl)
	if !named {
		return
	}
	var wg sync.WaitGroup
	opened := make([]handle, len(ss))
	for i, s := range ss {
		wg.Go(func() {
			if h, err := fl.openOn(ctx, s, name); err == nil {
				opened[i] = h
			}
		})
	}
	wg.Wait()
	if fl.flags.Writes() {
		fl.writing.Lock()
		defer fl.writing.Unlock()
	}
	good := fl.equal(ctx, first, opened)
	now, named := fl.f.names.nameOf(fl)
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for i, h := range opened {
		switch {
		case h.s == nil:
		case good[i] && named && now == name:
			fl.handles = append(fl.handles, h)
		default:
			h.s.send(closing(h.h))
		}
	}
}

// equal tells which of the handles show what the file is known to be: if it is
// only read, what it was when it was opened, so that its first session, which
// has much to do, need not be asked; else, or if it has changed since, what the
// handle first shows now.
func (fl *file) equal(ctx context.Context, first handle, hs []handle) []bool {
	var calls []*call
	defer func() { drop(calls) }()
	ask := func(h handle) *call {
		if h.s == nil {
			return nil
		}
		c, err := h.s.begin(fstat(h.h))
		if err != nil {
			return nil
		}
		calls = append(calls, c...)
		return c[0]
	}
	asked := make([]*call, len(hs))
	for i, h := range hs {
		asked[i] = ask(h)
	}
	like := func(want bridge.Attr) []bool {
		good := make([]bool, len(hs))
		for i, c := range asked {
			a, ok := shown(ctx, c)
			good[i] = ok && a == want
		}
		return good
	}
	if want, known := fl.Opened(); known && !fl.flags.Writes() {
		want.Atime = unknownTime
		if good := like(want); slices.Contains(good, true) {
			return good
		}
	}
	want, ok := shown(ctx, ask(first))
	if !ok {
		return make([]bool, len(hs))
	}
	return like(want)
}

// shown returns the attributes that FSTAT shows, but for the time of access.
func shown(ctx context.Context, c *call) (bridge.Attr, bool) {
	if c == nil || c.wait(ctx) != nil {
		return bridge.Attr{}, false
	}
	a, err := c.attrs()
	a.Atime = unknownTime
	return a, err == nil
}

// others returns sessions with little to do beside those in use: the best one,
// or all if the way is long. Further ones are asked for when there is none, or
// as many as there may be if the way is long; while those are coming on a
// connection that is there, others returns none.
func (p *pool) others(use []handle) []*session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.way.long() {
		if s := p.leastLocked(use); s != nil && s.load.Load() < busy {
			return []*session{s}
		}
		p.growLocked()
		return nil
	}
	p.growLocked()
	var ss []*session
	for _, c := range p.conns {
		if len(c.sessions) > 0 && c.want > len(c.sessions) {
			return nil
		}
		for _, s := range c.sessions {
			if s.alive() && s.load.Load() < busy && !slices.ContainsFunc(use, func(h handle) bool { return h.s == s }) {
				ss = append(ss, s)
			}
		}
	}
	return ss
}

// grow asks for more sessions.
func (p *pool) grow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.growLocked()
}

// growLocked asks for one more session, on the connection that has the fewest,
// unless one is on its way or there may be no more; on a long way for all that
// there may be. p.mu is held.
func (p *pool) growLocked() {
	if p.closed {
		return
	}
	long := p.way.long()
	var best *conn
	now := time.Now()
	for _, c := range p.conns {
		if !long && c.want > len(c.sessions) {
			return
		}
		if c.want >= p.opt.Channels || c.full || now.Before(c.retryAt) {
			continue
		}
		if long {
			p.wantLocked(c, p.opt.Channels)
		} else if best == nil || c.want < best.want {
			best = c
		}
	}
	if best != nil {
		p.wantLocked(best, best.want+1)
	}
}

// wantLocked asks for n sessions of c. p.mu is held.
func (p *pool) wantLocked(c *conn, n int) {
	c.want = n
	if !c.running {
		p.startLocked(c)
		return
	}
	c.signal()
}

// prepare makes the second connection at once if the way is long: to make it
// takes many round trips.
func (p *pool) prepare() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) > 1 && p.way.long() && !p.closed {
		p.wantLocked(p.conns[1], 1)
	}
}

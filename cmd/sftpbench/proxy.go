package main

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A proxy forwards TCP connections to a server that is further away than it
// really is: everything arrives half a round-trip time later, in each
// direction, however much it is. A connection takes a round-trip time to
// begin.
type proxy struct {
	addr   string // where it listens
	target string
	delay  time.Duration // one way
	clock  clock
	wire   traffic

	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool

	// guarded by mu
}

// traffic counts the bytes of all connections.
type traffic struct{ up, down atomic.Int64 }

// A clock counts the round trips that follow one upon another. It is a
// Lamport clock: what the client sends is one later than the latest answer it
// has, and what the server sends is as late as the latest request it has. So
// requests that are under way together count once, and there are never more
// round trips than fit in the time.
type clock struct {
	atServer, atClient atomic.Int64 // the latest that has arrived
}

// request is the time of what the client sends now.
func (c *clock) request() int64 { return c.atClient.Load() + 1 }

// answer is the time of what the server sends now.
func (c *clock) answer() int64 { return c.atServer.Load() }

// trips is how many round trips are complete.
func (c *clock) trips() int64 { return c.atClient.Load() }

// advance sets a to t unless it is later already.
func advance(a *atomic.Int64, t int64) {
	for {
		old := a.Load()
		if t <= old || a.CompareAndSwap(old, t) {
			return
		}
	}
}

// startProxy listens on a port of 127.0.0.1.
func startProxy(target string, rtt time.Duration) (*proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		addr:     listener.Addr().String(),
		target:   target,
		delay:    rtt / 2,
		listener: listener,
		conns:    make(map[net.Conn]bool),
	}
	p.wg.Go(p.accept)
	return p, nil
}

// close ends all connections.
func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve forwards one connection.
func (p *proxy) serve(client net.Conn) {
	if !p.add(client) {
		return
	}
	defer p.drop(client)
	time.Sleep(2 * p.delay)
	server, err := net.Dial("tcp", p.target)
	if err != nil || !p.add(server) {
		return
	}
	defer p.drop(server)
	up := link{p.delay, p.clock.request, &p.clock.atServer, &p.wire.up}
	down := link{p.delay, p.clock.answer, &p.clock.atClient, &p.wire.down}
	var wg sync.WaitGroup
	wg.Go(func() { up.forward(server, client) })
	wg.Go(func() { down.forward(client, server) })
	wg.Wait()
}

// add takes c in, to be closed with the proxy, or closes it at once.
func (p *proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

// A link is one direction.
type link struct {
	delay time.Duration
	stamp func() int64  // the time on the clock of what is sent now
	seen  *atomic.Int64 // the latest that has arrived
	bytes *atomic.Int64
}

// A parcel is under way.
type parcel struct {
	data  []byte
	due   time.Time
	stamp int64
}

const (
	proxyBuffer = 256 << 10
	maxParcels  = 1 << 14 // under way at once
)

// forward copies from src to dst until the end, or until dst is gone.
func (l link) forward(dst, src net.Conn) {
	defer closeWrite(dst)
	if l.delay == 0 {
		l.copy(src, func(p parcel) error { return l.deliver(dst, p) })
		return
	}
	queue := make(chan parcel, maxParcels)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(queue)
	wg.Go(func() {
		var err error
		for p := range queue {
			if err == nil {
				time.Sleep(time.Until(p.due))
				err = l.deliver(dst, p)
			}
			if err != nil {
				src.Close()
			}
		}
	})
	l.copy(src, func(p parcel) error {
		p.data = append([]byte(nil), p.data...)
		queue <- p
		return nil
	})
}

// copy sends what comes from src.
func (l link) copy(src net.Conn, send func(parcel) error) {
	buf := make([]byte, proxyBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			l.bytes.Add(int64(n))
			if send(parcel{buf[:n], time.Now().Add(l.delay), l.stamp()}) != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver hands over what has arrived. The clock goes first: the answer may be
// there before Write returns.
func (l link) deliver(dst net.Conn, p parcel) error {
	advance(l.seen, p.stamp)
	_, err := dst.Write(p.data)
	return err
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.CloseWrite()
	}
}

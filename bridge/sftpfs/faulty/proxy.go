package faulty

import (
	"net"
	"sync"
	"time"
)

// A Behaviour is how a Proxy treats what passes it. The zero value passes all
// on at once.
type Behaviour struct {
	Delay     time.Duration // of each piece that goes up, to the server, or down
	DelayDown time.Duration // beside that, of each piece that goes down
	Drip      int           // bytes of a piece at most; 0 is no limit
	Stall     bool          // nothing is taken from either side
	LoseUp    bool          // what goes up disappears, and neither side hears of the end of the other
	LoseDown  bool          // the same for what goes down
	Refuse    bool          // new connections are reset
}

func (b Behaviour) loses(up bool) bool { return up && b.LoseUp || !up && b.LoseDown }

// A Proxy passes TCP connections on to a server, and fails as networks do. Its
// behaviour is of all connections, those that are open too.
type Proxy struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu      sync.Mutex
	how     Behaviour
	changed chan struct{} // closed when how changes
	left    int64         // bytes until the cut, if cutting
	cutting bool
	links   map[*link]struct{}
	closed  bool
	// guarded by mu
}

// NewProxy starts a proxy to the server at target, on a port of 127.0.0.1.
func NewProxy(target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln, target: target, changed: make(chan struct{}), links: make(map[*link]struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Behave changes the behaviour. Connections of which something was lost, and
// no longer would be, are reset: nothing good can come of them.
func (p *Proxy) Behave(b Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.how = b
	close(p.changed)
	p.changed = make(chan struct{})
	for l := range p.links {
		if l.lost && !b.LoseUp && !b.LoseDown {
			l.end(true)
		}
	}
}

// Cut ends all connections. With reset neither side hears of it in an orderly
// way.
func (p *Proxy) Cut(reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutLocked(reset)
}

// CutAfter cuts when n more bytes have passed, in whichever direction; what is
// beyond is not delivered.
func (p *Proxy) CutAfter(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.cutting = n, true
}

func (p *Proxy) cutLocked(reset bool) {
	p.cutting = false
	for l := range p.links {
		l.end(reset)
	}
}

// Close ends all connections and waits for what serves them.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.cutLocked(true)
	p.mu.Unlock()
	p.ln.Close()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(c.(*net.TCPConn)) })
	}
}

// serve passes one connection on until it ends.
func (p *Proxy) serve(client *net.TCPConn) {
	l := &link{p: p, client: client, done: make(chan struct{})}
	defer client.Close()
	if how, _ := p.now(); how.Refuse {
		client.SetLinger(0)
		return
	}
	c, err := net.Dial("tcp", p.target)
	if err != nil {
		client.SetLinger(0)
		return
	}
	l.server = c.(*net.TCPConn)
	defer l.server.Close()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { l.pump(l.server, l.client, true) })
	wg.Go(func() { l.pump(l.client, l.server, false) })
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// now returns the behaviour, and what is closed when it changes.
func (p *Proxy) now() (Behaviour, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.how, p.changed
}

// allow returns how many of n bytes may pass.
func (p *Proxy) allow(n int) (ok int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cutting || int64(n) < p.left {
		p.left -= int64(n)
		return n, false
	}
	return int(p.left), true
}

// A link is one connection through a proxy.
type link struct {
	p              *Proxy
	client, server *net.TCPConn
	done           chan struct{}
	once           sync.Once
	lost           bool // some of it; guarded by p.mu
}

// end ends the link; its pumps return.
func (l *link) end(reset bool) {
	l.once.Do(func() {
		close(l.done)
		if reset {
			l.client.SetLinger(0)
			l.server.SetLinger(0)
		}
		l.client.Close()
		l.server.Close()
	})
}

// pump brings what comes from src to dst.
func (l *link) pump(dst, src *net.TCPConn, up bool) {
	defer l.end(false)
	buf := make([]byte, 32<<10)
	for {
		if _, ok := l.flowing(); !ok {
			return
		}
		n, err := src.Read(buf)
		if !l.pass(dst, buf[:n], up) {
			return
		}
		if err != nil {
			l.silence(up)
			return
		}
	}
}

// pass writes p to dst, in pieces, as the proxy behaves.
func (l *link) pass(dst *net.TCPConn, p []byte, up bool) bool {
	for len(p) > 0 {
		how, ok := l.flowing()
		if !ok {
			return false
		}
		if how.loses(up) || l.isLost() {
			l.lose()
			return true
		}
		n := len(p)
		if how.Drip > 0 {
			n = min(n, how.Drip)
		}
		delay := how.Delay
		if !up {
			delay += how.DelayDown
		}
		if delay > 0 && !l.sleep(delay) {
			return false
		}
		n, cut := l.p.allow(n)
		if _, err := dst.Write(p[:n]); err != nil {
			return false
		}
		if cut {
			l.p.Cut(false)
			return false
		}
		p = p[n:]
	}
	return true
}

// flowing waits for the end of a stall; false if the link ended.
func (l *link) flowing() (Behaviour, bool) {
	for {
		how, changed := l.p.now()
		if !how.Stall {
			return how, true
		}
		select {
		case <-changed:
		case <-l.done:
			return how, false
		}
	}
}

// silence waits as long as the end of one side is not to be heard on the other.
func (l *link) silence(up bool) {
	for {
		how, changed := l.p.now()
		if !how.Stall && !how.loses(up) {
			return
		}
		select {
		case <-changed:
		case <-l.done:
			return
		}
	}
}

func (l *link) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.done:
		return false
	}
}

func (l *link) lose() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.lost = true
}

func (l *link) isLost() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	return l.lost
}

package sftpsrv

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Penalties for failed logins, as OpenSSH's PerSourcePenalties: each failure
// adds to a time, and an address is refused while more than penaltyMin of it
// is left.
const (
	penaltyMin = 15 * time.Second
	penaltyMax = 10 * time.Minute
	maxSources = 65536 // addresses with a penalty that are remembered
)

// limits decide which connections a server takes.
type limits struct {
	all, perAddr, startups int
	penalty                time.Duration

	mu      sync.Mutex
	conns   map[netip.Addr]int // open connections by source
	total   int
	early   int                      // those that have not logged in
	blocked map[netip.Addr]time.Time // when the penalty ends

	// guarded by mu
}

func newLimits(c *Config) *limits {
	return &limits{
		all:      c.MaxConnections,
		perAddr:  c.MaxPerAddress,
		startups: c.MaxStartups,
		penalty:  c.LoginPenalty,
		conns:    make(map[netip.Addr]int),
		blocked:  make(map[netip.Addr]time.Time),
	}
}

// source is what limits count by: the address, of IPv6 the network.
func source(a net.Addr) netip.Addr {
	addr := addrOf(a)
	if addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

// addrOf is the IP address of a, or the zero Addr.
func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// admit counts a new connection from src, or says why it is refused.
func (l *limits) admit(src netip.Addr, now time.Time) (refused string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.blocked[src].Sub(now) > penaltyMin:
		return "too many failed logins"
	case l.total >= l.all:
		return "too many connections"
	case l.conns[src] >= l.perAddr:
		return "too many connections from this address"
	case l.early >= l.startups:
		return "too many connections that have not logged in"
	}
	l.total++
	l.early++
	l.conns[src]++
	return ""
}

// loggedIn takes a connection from those that have not logged in.
func (l *limits) loggedIn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.early--
}

// release takes back what admit counted.
func (l *limits) release(src netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.conns[src]--; l.conns[src] <= 0 {
		delete(l.conns, src)
	}
}

// failed adds the penalty of a failed login.
func (l *limits) failed(src netip.Addr, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.penalty <= 0 || !src.IsValid() {
		return
	}
	if len(l.blocked) >= maxSources {
		for a, until := range l.blocked {
			if until.Before(now) {
				delete(l.blocked, a)
			}
		}
		if len(l.blocked) >= maxSources {
			return
		}
	}
	until := l.blocked[src]
	if until.Before(now) {
		until = now
	}
	until = until.Add(l.penalty)
	if limit := now.Add(penaltyMax); until.After(limit) {
		until = limit
	}
	l.blocked[src] = until
}

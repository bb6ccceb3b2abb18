package sftpsrv

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// limits decide which connections a server takes.
type limits struct {
	all, perAddr         int
	startups, perStartup int

	mu         sync.Mutex
	conns      map[netip.Addr]int // open connections by source
	total      int
	early      map[netip.Addr]int // those that have not logged in
	totalEarly int
	penalties  *penalties

	// guarded by mu
}

func newLimits(c *Config) *limits {
	return &limits{
		all:        c.MaxConnections,
		perAddr:    c.MaxPerAddress,
		startups:   c.MaxStartups,
		perStartup: c.MaxStartupsPerAddress,
		conns:      make(map[netip.Addr]int),
		early:      make(map[netip.Addr]int),
		penalties:  newPenalties(c.LoginPenalty),
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
	case l.penalties.blocked(src, now):
		return "it failed too often"
	case l.total >= l.all:
		return "too many connections"
	case l.conns[src] >= l.perAddr:
		return "too many connections from this address"
	case l.totalEarly >= l.startups:
		return "too many connections that have not logged in"
	case l.early[src] >= l.perStartup:
		return "too many connections from this address that have not logged in"
	}
	l.total++
	l.totalEarly++
	l.conns[src]++
	l.early[src]++
	return ""
}

// loggedIn takes a connection from those that have not logged in, also if it
// is about to end without.
func (l *limits) loggedIn(src netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totalEarly--
	decrement(l.early, src)
}

// release takes back what admit counted.
func (l *limits) release(src netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	decrement(l.conns, src)
}

func decrement(counts map[netip.Addr]int, src netip.Addr) {
	if counts[src]--; counts[src] <= 0 {
		delete(counts, src)
	}
}

// blame adds the penalty of a fault of src.
func (l *limits) blame(src netip.Addr, f fault, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.penalties.blame(src, f, now)
}

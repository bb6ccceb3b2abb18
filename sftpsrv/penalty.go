package sftpsrv

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// A fault is what a connection that did not come to a login is blamed for.
type fault int

const (
	faultNothing  fault = iota // came and went without trying
	faultLogin                 // tried to log in, in vain
	faultGrace                 // did not log in within the grace time
	faultProtocol              // sent what a client does not send
)

// faultOf tells what a connection is blamed for whose handshake ended with err.
// To have no algorithm in common is nobody's fault.
func faultOf(err error) fault {
	var auth *ssh.ServerAuthError
	var algorithms *ssh.AlgorithmNegotiationError
	switch {
	case errors.As(err, &auth):
		if len(auth.Errors) > 1 { // the first is "none"
			return faultLogin
		}
		return faultNothing
	case errors.Is(err, os.ErrDeadlineExceeded):
		return faultGrace
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.As(err, &algorithms):
		return faultNothing
	}
	return faultProtocol
}

const (
	penaltyMin  = 15 * time.Second // what is left of a penalty has to be more than that
	penaltyMax  = 10 * time.Minute
	penaltyMemo = time.Hour // after that without a fault, the first one counts as the first again
	maxSources  = 65536     // hosts, and as many networks, that are remembered
)

// penalties are times for which connections are refused, as with OpenSSH's
// PerSourcePenalties. Each fault adds to the time of its host, twice as much
// as the one before, and a quarter of the base to that of the host's network,
// so that a network is refused only if several of its hosts fail. Up to
// penaltyMin of a time is forgiven: a user may mistype. A host is an IPv4
// address or, since a single machine has all of it, an IPv6 network of 64
// bits; networks are of 24 and 48 bits.
//
// The tables are bounded: if one is full, the entry of a few whose time is up
// first makes room. Who has so many addresses is not held by penalties anyway.
type penalties struct {
	base     time.Duration // of the first failed login; none are given if it is not positive
	hosts    map[netip.Prefix]penalty
	networks map[netip.Prefix]penalty
}

type penalty struct {
	until  time.Time // when it is over
	last   time.Time // the last fault
	faults int       // that make the next one grow
}

func newPenalties(base time.Duration) *penalties {
	return &penalties{base, make(map[netip.Prefix]penalty), make(map[netip.Prefix]penalty)}
}

// blocked reports whether connections from src are refused.
func (p *penalties) blocked(src netip.Addr, now time.Time) bool {
	host, network := blocks(src)
	return p.hosts[host].left(now) > penaltyMin || p.networks[network].left(now) > penaltyMin
}

// blame adds the penalty of a fault of src. What was under way when src was
// blocked already is not held against its network.
func (p *penalties) blame(src netip.Addr, f fault, now time.Time) {
	if p.base <= 0 || !src.IsValid() {
		return
	}
	host, network := blocks(src)
	e := p.hosts[host]
	blocked := e.left(now) > penaltyMin
	if now.Sub(e.last) > penaltyMemo {
		e.faults = 0
	}
	set(p.hosts, host, e.add(p.cost(f, e.faults), now, f != faultNothing), now)
	if !blocked && f != faultNothing {
		set(p.networks, network, p.networks[network].add(p.base/4, now, false), now)
	}
}

// cost is the penalty of a fault after others.
func (p *penalties) cost(f fault, before int) time.Duration {
	cost := p.base
	switch f {
	case faultNothing: // also what watches whether the server lives
		return p.base / 5
	case faultGrace, faultProtocol:
		cost *= 2
	}
	for range before {
		if cost *= 2; cost >= penaltyMax {
			return penaltyMax
		}
	}
	return cost
}

func (e penalty) left(now time.Time) time.Duration { return e.until.Sub(now) }

// add returns e with a further penalty.
func (e penalty) add(cost time.Duration, now time.Time, grows bool) penalty {
	if e.until.Before(now) {
		e.until = now
	}
	e.until = e.until.Add(cost)
	if limit := now.Add(penaltyMax); e.until.After(limit) {
		e.until = limit
	}
	e.last = now
	if grows {
		e.faults++
	}
	return e
}

// set puts an entry into a table, for which an old one may have to go.
func set(table map[netip.Prefix]penalty, key netip.Prefix, e penalty, now time.Time) {
	if _, ok := table[key]; !ok && len(table) >= maxSources {
		makeRoom(table, now)
	}
	table[key] = e
}

// makeRoom removes one of a few entries that the map happens to yield: the
// first that is forgotten anyway, or else the one that is over first.
func makeRoom(table map[netip.Prefix]penalty, now time.Time) {
	var victim netip.Prefix
	var until time.Time
	looked := 0
	for key, e := range table {
		if now.Sub(e.last) > penaltyMemo {
			victim = key
			break
		}
		if looked == 0 || e.until.Before(until) {
			victim, until = key, e.until
		}
		if looked++; looked == 16 {
			break
		}
	}
	delete(table, victim)
}

// blocks returns what src is counted as: a host, and a network.
func blocks(src netip.Addr) (host, network netip.Prefix) {
	src = src.Unmap().WithZone("")
	hostBits, networkBits := 32, 24
	if src.Is6() {
		hostBits, networkBits = 64, 48
	}
	// There is no error: the zero Addr has the zero Prefix.
	host, _ = src.Prefix(hostBits)
	network, _ = src.Prefix(networkBits)
	return host, network
}

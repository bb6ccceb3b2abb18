package sftpsrv

import (
	"net/netip"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

// TestPenaltiesGrow: who keeps failing is refused for longer each time.
func TestPenaltiesGrow(t *testing.T) {
	p := newPenalties(5 * time.Second)
	src := netip.MustParseAddr("192.0.2.1")
	now := epoch
	var times []time.Duration
	for range 12 {
		p.blame(src, faultLogin, now)
		host, _ := blocks(src)
		times = append(times, p.hosts[host].left(now))
		now = p.hosts[host].until // comes back as soon as it may
	}
	for i := range times[1:] {
		if times[i+1] < min(2*times[i], penaltyMax) {
			t.Errorf("penalties of %v: do not grow", times)
			break
		}
	}
	if last := times[len(times)-1]; last != penaltyMax {
		t.Errorf("the last penalty is %v, want %v", last, penaltyMax)
	}
	now = now.Add(penaltyMemo + time.Second)
	p.blame(src, faultLogin, now)
	host, _ := blocks(src)
	if got := p.hosts[host].left(now); got != 5*time.Second {
		t.Errorf("long after, the penalty is %v, want %v", got, 5*time.Second)
	}
}

func TestPenaltiesForgiveAndExpire(t *testing.T) {
	p := newPenalties(5 * time.Second)
	src := netip.MustParseAddr("192.0.2.1")
	for range 2 {
		p.blame(src, faultLogin, epoch)
	}
	if p.blocked(src, epoch) {
		t.Error("refused after two failed logins")
	}
	p.blame(src, faultLogin, epoch)
	if !p.blocked(src, epoch) {
		t.Error("not refused after three failed logins")
	}
	if p.blocked(netip.MustParseAddr("192.0.2.2"), epoch) {
		t.Error("a neighbour is refused")
	}
	if p.blocked(src, epoch.Add(time.Minute)) {
		t.Error("still refused after a minute")
	}
}

// TestPenaltiesOfHealthChecks: connecting every other second does no harm.
func TestPenaltiesOfHealthChecks(t *testing.T) {
	p := newPenalties(5 * time.Second)
	src := netip.MustParseAddr("192.0.2.1")
	now := epoch
	for range 1000 {
		p.blame(src, faultNothing, now)
		now = now.Add(2 * time.Second)
	}
	if p.blocked(src, now) {
		t.Error("refused")
	}
	for range 100 {
		p.blame(src, faultNothing, now)
	}
	if !p.blocked(src, now) {
		t.Error("a hundred at once are not refused")
	}
}

// TestPenaltiesOfNetworks: one bad host does not shut out its neighbours, many
// do.
func TestPenaltiesOfNetworks(t *testing.T) {
	for _, c := range []struct{ prefix, bad, neighbour, stranger string }{
		{"192.0.2.", "192.0.2.1", "192.0.2.99", "192.0.3.1"},
		{"2001:db8:1:", "2001:db8:1:1::1", "2001:db8:1:9999::1", "2001:db8:2::1"},
	} {
		p := newPenalties(5 * time.Second)
		bad := netip.MustParseAddr(c.bad)
		for range 1000 {
			p.blame(bad, faultLogin, epoch)
		}
		neighbour := netip.MustParseAddr(c.neighbour)
		if p.blocked(neighbour, epoch) {
			t.Errorf("%s is refused for what %s did", neighbour, bad)
		}
		for i := range byte(20) {
			src := bad.AsSlice()
			if bad.Is4() {
				src[3] = 10 + i
			} else {
				src[7] = 10 + i
			}
			addr, _ := netip.AddrFromSlice(src)
			p.blame(addr, faultLogin, epoch)
		}
		if !p.blocked(neighbour, epoch) {
			t.Errorf("%s is taken after 20 of its network failed", neighbour)
		}
		if p.blocked(netip.MustParseAddr(c.stranger), epoch) {
			t.Errorf("%s is refused", c.stranger)
		}
	}
	p := newPenalties(5 * time.Second)
	for range 3 {
		p.blame(netip.MustParseAddr("2001:db8::1"), faultLogin, epoch)
	}
	if !p.blocked(netip.MustParseAddr("2001:db8::2"), epoch) {
		t.Error("another address of the same 64 bits is taken")
	}
}

// TestPenaltiesAreBounded: the tables do not grow, and those whose time is long
// are not the first to be forgotten.
func TestPenaltiesAreBounded(t *testing.T) {
	p := newPenalties(5 * time.Second)
	bad := netip.MustParseAddr("10.255.255.255")
	for range 20 {
		p.blame(bad, faultLogin, epoch)
	}
	for i := range uint32(maxSources + 5000) {
		src := netip.AddrFrom4([4]byte{byte(1 + i>>24), byte(i >> 16), byte(i >> 8), byte(i)})
		p.blame(src, faultLogin, epoch)
		net6 := [16]byte{0x20, 1, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		p.blame(netip.AddrFrom16(net6), faultLogin, epoch)
	}
	if len(p.hosts) > maxSources || len(p.networks) > maxSources {
		t.Errorf("%d hosts and %d networks, want %d at most", len(p.hosts), len(p.networks), maxSources)
	}
	if !p.blocked(bad, epoch) {
		t.Error("the worst host is forgotten")
	}
}

func TestNoPenalties(t *testing.T) {
	p := newPenalties(-1)
	src := netip.MustParseAddr("192.0.2.1")
	for range 100 {
		p.blame(src, faultProtocol, epoch)
		p.blame(netip.Addr{}, faultProtocol, epoch)
	}
	if len(p.hosts) > 0 || p.blocked(src, epoch) || newPenalties(time.Second).blocked(netip.Addr{}, epoch) {
		t.Error("penalties though there are none")
	}
}

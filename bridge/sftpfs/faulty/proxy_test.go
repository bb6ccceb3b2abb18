package faulty

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// proxied returns a proxy to a server that sends all back, and what connects
// to it.
func proxied(t *testing.T) (*Proxy, func() net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { io.Copy(c, c); c.Close() })
		}
	})
	p, err := NewProxy(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); ln.Close(); wg.Wait() })
	return p, func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
}

func TestProxy(t *testing.T) {
	p, dial := proxied(t)
	for _, b := range []Behaviour{{}, {Delay: 5 * time.Millisecond}, {DelayDown: 5 * time.Millisecond}, {Drip: 1}} {
		p.Behave(b)
		if err := roundTrip(dial(), "hello"); err != nil {
			t.Errorf("%+v: %v", b, err)
		}
	}
}

// TestProxyCut has connections end, and others come.
func TestProxyCut(t *testing.T) {
	p, dial := proxied(t)
	for _, reset := range []bool{false, true} {
		c := dial()
		if err := roundTrip(c, "hello"); err != nil {
			t.Fatal(err)
		}
		p.Cut(reset)
		if err := roundTrip(c, "hello"); err == nil {
			t.Error("a connection that was cut goes on")
		}
	}
	p.CutAfter(7)
	c := dial()
	c.Write([]byte("hello"))
	if got, _ := io.ReadAll(c); string(got) != "he" {
		t.Errorf("%q came before the cut, want two bytes", got)
	}
	p.Behave(Behaviour{Refuse: true})
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // it may be gone before that returns
		if err := roundTrip(c, "hello"); err == nil {
			t.Error("a connection that was refused goes on")
		}
		c.Close()
	}
	p.Behave(Behaviour{})
	if err := roundTrip(dial(), "hello"); err != nil {
		t.Error(err)
	}
}

// TestProxySilence has nothing come through while a line stalls, all after it,
// and never what was lost.
func TestProxySilence(t *testing.T) {
	for _, b := range []Behaviour{{Stall: true}, {LoseUp: true}, {LoseDown: true}} {
		p, dial := proxied(t)
		c := dial()
		if err := roundTrip(c, "hello"); err != nil {
			t.Fatal(err)
		}
		p.Behave(b)
		c.SetDeadline(time.Now().Add(100 * time.Millisecond))
		if err := roundTrip(c, "hello"); err == nil {
			t.Errorf("%+v: something came through", b)
		}
		p.Behave(Behaviour{})
		c.SetDeadline(time.Now().Add(patience))
		got := make([]byte, 5)
		_, err := io.ReadFull(c, got)
		if ok := err == nil && string(got) == "hello"; ok != b.Stall {
			t.Errorf("%+v: %q, %v afterwards", b, got, err)
		}
	}
}

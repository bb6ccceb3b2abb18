package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// echo starts a server that sends back what it receives.
func echo(t *testing.T) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func dialProxy(t *testing.T, rtt time.Duration) (*proxy, *net.TCPConn) {
	t.Helper()
	p, err := startProxy(echo(t), rtt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return p, conn.(*net.TCPConn)
}

func TestProxyCountsAndDelays(t *testing.T) {
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond} {
		p, conn := dialProxy(t, rtt)
		const n = 5
		began := time.Now()
		for range n {
			if _, err := conn.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
		// One more to connect.
		if took := time.Since(began); took < (n+1)*rtt {
			t.Errorf("rtt %v: %d round trips took %v", rtt, n, took)
		}
		if trips := p.clock.trips(); trips != n {
			t.Errorf("rtt %v: counted %d round trips instead of %d", rtt, trips, n)
		}
		if up, down := p.wire.up.Load(), p.wire.down.Load(); up != 4*n || down != 4*n {
			t.Errorf("rtt %v: counted %d and %d bytes instead of %d", rtt, up, down, 4*n)
		}
	}
}

func TestProxyKeepsContent(t *testing.T) {
	for _, rtt := range []time.Duration{0, 10 * time.Millisecond} {
		_, conn := dialProxy(t, rtt)
		want := make([]byte, 3<<20+17)
		newRandom(9).Read(want)
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(want)
			conn.CloseWrite()
			sent <- err
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("rtt %v: got %d bytes instead of %d (%v)", rtt, len(got), len(want), err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

func TestProxyClose(t *testing.T) {
	p, conn := dialProxy(t, 10*time.Millisecond)
	p.close()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the proxy")
	}
	if c, err := net.Dial("tcp", p.addr); err == nil {
		c.Close()
		t.Error("the proxy still listens")
	}
}

func TestClock(t *testing.T) {
	var c clock
	// A greeting of the server is no answer.
	advance(&c.atClient, c.answer())
	if got := c.trips(); got != 0 {
		t.Fatalf("%d round trips after the greeting", got)
	}
	// Three requests under way at once count once.
	a, b, d := c.request(), c.request(), c.request()
	for _, r := range []int64{a, b, d} {
		advance(&c.atServer, r)
	}
	answer := c.answer()
	advance(&c.atClient, answer)
	if got := c.trips(); got != 1 {
		t.Fatalf("%d round trips after requests at once", got)
	}
	// A request after the answer is one later; an old answer changes nothing.
	advance(&c.atServer, c.request())
	advance(&c.atClient, answer)
	if got := c.trips(); got != 1 {
		t.Fatalf("%d round trips after an old answer", got)
	}
	advance(&c.atClient, c.answer())
	if got := c.trips(); got != 2 {
		t.Fatalf("%d round trips after a second request", got)
	}
}

package faulty

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo returns a connection, over l, to a server that sends all back.
func echo(t *testing.T, l *Line) io.ReadWriteCloser {
	t.Helper()
	a, b := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(b, b); b.Close() })
	c := l.Wrap(a)
	t.Cleanup(func() { c.Close(); wg.Wait() })
	return c
}

func roundTrip(c io.ReadWriter, s string) error {
	if _, err := c.Write([]byte(s)); err != nil {
		return err
	}
	got := make([]byte, len(s))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, []byte(s)) {
		return errors.New("other bytes came back")
	}
	return nil
}

func TestLine(t *testing.T) {
	var l Line
	c := echo(t, &l)
	for _, d := range []time.Duration{0, 20 * time.Millisecond} {
		l.Delay(d)
		start := time.Now()
		if err := roundTrip(c, "hello"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 2*d {
			t.Errorf("a round trip took %v with a delay of %v", took, d)
		}
	}
	if n := l.Bursts(); n != 2 {
		t.Errorf("%d bursts, want 2", n)
	}
}

func TestStall(t *testing.T) {
	var l Line
	c := echo(t, &l)
	resume := l.Stall()
	done := make(chan error, 1)
	go func() { done <- roundTrip(c, "hello") }()
	select {
	case err := <-done:
		t.Errorf("came through a stalled line: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCut(t *testing.T) {
	var l Line
	c := echo(t, &l)
	l.CutAfter(8)
	if err := roundTrip(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := roundTrip(c, "hello"); !errors.Is(err, ErrCut) {
		t.Errorf("after the cut: %v", err)
	}
	if err := roundTrip(echo(t, &l), "hello"); err != nil {
		t.Errorf("a new connection: %v", err)
	}
	l.LoseAnswer()
	if err := roundTrip(echo(t, &l), "hello"); !errors.Is(err, ErrCut) {
		t.Errorf("an answer that was lost: %v", err)
	}
	l.Cut()
}

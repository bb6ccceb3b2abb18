package sftpfs

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"
)

// fullFile is a file on one session that has as much to do as it may have.
func fullFile(timeout time.Duration) (*file, *session) {
	p := &pool{opt: Options{Timeout: timeout, Connections: 1, Channels: 1}, changed: make(chan struct{})}
	s := &session{dead: make(chan struct{}), gate: &p.gate, way: &p.way}
	s.load.Store(full)
	c := &conn{p: p, poke: make(chan struct{}, 1), want: 1, running: true, sessions: []*session{s}}
	p.conns = []*conn{c}
	fl := &file{f: &FS{pool: p, opt: p.opt}, handles: []handle{{s: s}}, turn: make(chan struct{}, 1), widenAt: widenFirst}
	return fl, s
}

// TestAdmit has what is much wait for its turn and for room, and what is small
// for nothing.
func TestAdmit(t *testing.T) {
	fl, s := fullFile(time.Hour)
	ctx := context.Background()
	type result struct {
		sent func()
		err  error
	}
	admitted := make(chan result)
	for range 2 {
		go func() {
			_, sent, err := fl.admit(ctx, nil, 1<<20)
			admitted <- result{sent, err}
		}()
	}
	if _, sent, err := fl.admit(ctx, nil, small); err != nil {
		t.Error(err)
	} else {
		sent()
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := fl.admit(gone, nil, 1<<20); !errors.Is(err, syscall.EINTR) {
		t.Errorf("admit without room, and the context has ended: %v", err)
	}
	select {
	case <-admitted:
		t.Error("much is sent to a session without room")
	default:
	}
	s.load.Store(full - 1)
	s.gate.open()
	first := <-admitted
	select {
	case <-admitted:
		t.Error("the second is sent before the first")
	default:
	}
	first.sent()
	second := <-admitted
	second.sent()
	if first.err != nil || second.err != nil {
		t.Error(first.err, second.err)
	}
}

// TestAdmitWhatIsWanted gives up what waits for its turn, and what waits for room:
// those behind have the turn then.
func TestAdmitWhatIsWanted(t *testing.T) {
	fl, s := fullFile(time.Hour)
	ctx := context.Background()
	unwanted := make(chan struct{})
	given := make(chan error)
	for range 3 {
		go func() {
			_, _, err := fl.admit(ctx, unwanted, 1<<20)
			given <- err
		}()
	}
	close(unwanted)
	for range 3 {
		if err := <-given; !errors.Is(err, syscall.ECANCELED) {
			t.Errorf("admit of what nobody wants: %v", err)
		}
	}
	s.load.Store(full - 1)
	if _, _, err := fl.admit(ctx, unwanted, 1<<20); !errors.Is(err, syscall.ECANCELED) {
		t.Errorf("admit of what nobody wants, with room: %v", err)
	}
	if _, sent, err := fl.admit(ctx, nil, 1<<20); err != nil {
		t.Error(err)
	} else {
		sent()
	}
}

// TestAdmitInTime has a session that never has room: the wait comes to an end,
// and the requests, which have a deadline, go out.
func TestAdmitInTime(t *testing.T) {
	fl, _ := fullFile(100 * time.Millisecond)
	for range 2 { // without giving the turn back
		if hs, _, err := fl.admit(context.Background(), nil, 1<<20); err != nil || len(hs) != 1 {
			t.Errorf("admit: %v, %v", hs, err)
		}
	}
}

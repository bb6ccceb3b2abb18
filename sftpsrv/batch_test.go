package sftpsrv

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// A batchServer notes what is asked of it in which order.
type batchServer struct {
	*dirServer

	mu  sync.Mutex
	did []string // guarded by mu
}

func (s *batchServer) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, what)
}

func (s *batchServer) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	did := strings.Join(s.did, " ")
	s.did = nil
	return did
}

func (s *batchServer) AttrBatch() bridge.AttrBatch {
	s.note("begin")
	return &noteBatch{s}
}

func (s *batchServer) GetAttrs(_ context.Context, path string, _ bool) (bridge.Attr, error) {
	s.note("alone:" + path)
	return bridge.Attr{}, nil
}

func (s *batchServer) RemoveFile(_ context.Context, path string) error {
	s.note("remove:" + path)
	return nil
}

type noteBatch struct{ s *batchServer }

func (b *noteBatch) GetAttrs(_ context.Context, path string, _ bool) (bridge.Attr, error) {
	b.s.note(path)
	return bridge.Attr{}, nil
}

func (b *noteBatch) Close() { b.s.note("end") }

// TestBatch: requests for attributes that have come together are a batch, which
// ends before anything else is done, and before anything else is waited for.
func TestBatch(t *testing.T) {
	s := &batchServer{dirServer: &dirServer{home: t.TempDir()}}
	r := begun(t, s, SessionOptions{})
	lstat := func(path string) []byte { return packet(sshfx.PacketTypeLStat, uint32(1), path) }
	remove := func(path string) []byte { return packet(sshfx.PacketTypeRemove, uint32(1), path) }
	for _, c := range []struct {
		requests [][]byte
		want     string
	}{
		{[][]byte{lstat("a")}, "alone:a"},
		{[][]byte{lstat("a"), lstat("b"), lstat("c")}, "begin a b c end"},
		{[][]byte{lstat("a"), packet(sshfx.PacketTypeStat, uint32(1), "b")}, "begin a b end"},
		{[][]byte{lstat("a"), remove("b"), lstat("c"), lstat("d")}, "begin a end remove:b begin c d end"},
		{[][]byte{remove("a"), lstat("b")}, "remove:a alone:b"},
	} {
		go r.send(slices.Concat(c.requests...)) // a pipe holds nothing: one write is one read
		for range c.requests {
			r.recv()
		}
		r.send(packet(sshfx.PacketTypeRealPath, uint32(1), ".")) // whose answer comes when what was before has ended
		r.recv()
		if got := s.take(); got != c.want {
			t.Errorf("%q; want %q", got, c.want)
		}
	}
	// Half a request is none.
	both := slices.Concat(lstat("a"), lstat("b"))
	go r.send(both[:len(both)-1])
	r.recv()
	r.send(both[len(both)-1:])
	r.recv()
	if got := s.take(); got != "alone:a alone:b" {
		t.Errorf("a request that came in two pieces: %q", got)
	}
}

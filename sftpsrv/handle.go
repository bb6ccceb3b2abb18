package sftpsrv

import (
	"context"
	"encoding/binary"
	"sync"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// A handle is an open file or a listing under way.
type handle struct {
	path    string // as the client gave it
	writes  bool
	appends bool
	file    bridge.ServerFile // nil for a listing
	dir     *listing          // nil for a file
}

// A listing is a directory of which READDIR takes one part after the other.
type listing struct {
	dir bridge.ServerDir
	err error // why there is no more to come; io.EOF at the end
}

func (h *handle) close(ctx context.Context) error {
	if h.dir != nil {
		return h.dir.dir.Close()
	}
	return h.file.Close(ctx)
}

// handles are what one session has open.
type handles struct {
	max int

	mu       sync.Mutex
	open     map[uint32]*handle
	reserved int    // opens that have not ended yet
	last     uint32 // the id handed out last

	// guarded by mu
}

// reserve makes room for one handle, or returns EMFILE.
func (t *handles) reserve() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.open)+t.reserved >= t.max {
		return syscall.EMFILE
	}
	t.reserved++
	return nil
}

// unreserve gives the room back.
func (t *handles) unreserve() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved--
}

// add puts h where reserve made room.
func (t *handles) add(h *handle) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reserved--
	for {
		t.last++
		if _, used := t.open[t.last]; !used {
			break
		}
	}
	t.open[t.last] = h
	return t.last
}

func (t *handles) lookup(id uint32) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[id]
}

// take removes a handle, to be closed.
func (t *handles) take(id uint32) *handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.open[id]
	delete(t.open, id)
	return h
}

// takeAll removes all handles.
func (t *handles) takeAll() map[uint32]*handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.open
	t.open = make(map[uint32]*handle)
	return all
}

// consumeHandle takes a handle out of a packet: nil for one that is not open.
func (s *session) consumeHandle(b *sshfx.Buffer) *handle {
	id, ok := consumeHandleID(b)
	if !ok {
		return nil
	}
	return s.handles.lookup(id)
}

func consumeHandleID(b *sshfx.Buffer) (uint32, bool) {
	id := b.ConsumeBytes()
	if len(id) != 4 || b.Err != nil {
		return 0, false
	}
	return binary.BigEndian.Uint32(id), true
}

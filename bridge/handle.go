package bridge

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"

	"sftpbridge/bridge/blockcache"
)

// A Handle is an open file. Access was decided when it was opened; reading and
// writing take no lock of the tree.
type Handle struct {
	tree    *Tree
	node    *Node
	file    File
	content *blockcache.File // nil unless the backend is slow
	flags   OpenFlags
	cred    Cred // of who opened it: who is not root clears set-id bits by writing
	door    Door
	made    bool  // the file was made as it was opened, and was not flushed yet; guarded by tree.mu
	failed  error // guarded by tree.mu; a write that failed and is not told yet

	useMu sync.RWMutex // shared by who uses the file for another's sake
}

var _ File = (*Handle)(nil)

// Node returns the node that is open. It lives as long as the handle.
func (h *Handle) Node() *Node { return h.node }

// Flags returns the flags with which the handle was opened.
func (h *Handle) Flags() OpenFlags { return h.flags }

// ReadAt reads as File does; EBADF if the handle is not open for reading.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if !h.flags.Reads() {
		return 0, h.fail("read", syscall.EBADF)
	}
	if off < 0 {
		return 0, h.fail("read", syscall.EINVAL)
	}
	var n int
	var err error
	if h.content == nil {
		n, err = h.file.ReadAt(ctx, p, off)
	} else {
		size, err1 := h.size(ctx)
		if err1 != nil {
			return 0, h.fail("read", err1)
		}
		n, err = h.content.ReadAt(ctx, h.file, p, off, size)
	}
	if err != nil && err != io.EOF {
		err = h.fail("read", err)
	}
	return n, err
}

// WriteAt writes as File does, at the end of the file if the handle was opened
// with O_APPEND. EBADF if it is not open for writing. To a slow backend the
// data may be on its way yet: Flush tells. The error may be that of an earlier
// write, which Flush tells again; the next write is tried all the same.
func (h *Handle) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if !h.flags.Writes() {
		return 0, h.fail("write", syscall.EBADF)
	}
	if off < 0 {
		return 0, h.fail("write", syscall.EINVAL)
	}
	h.dropPrivileges(ctx, h.willChange())
	var n int
	var err error
	switch {
	case h.content == nil:
		n, err = h.file.WriteAt(ctx, p, off)
	case h.flags.Has(syscall.O_APPEND):
		n, err = h.append(ctx, p)
	default:
		n, err = h.writeBehind(ctx, p, off)
	}
	if n > 0 {
		h.tree.publish(h.door, Event{Node: h.node, Kind: ContentChanged})
	}
	return n, h.fail("write", err)
}

// append writes p behind the end of the file, before and after which no other
// handle of the tree appends or truncates.
func (h *Handle) append(ctx context.Context, p []byte) (int, error) {
	h.node.opMu.Lock()
	defer h.node.opMu.Unlock()
	size, err := h.size(ctx)
	if err != nil {
		return 0, err
	}
	return h.writeBehind(ctx, p, size)
}

// writeBehind has the cache write p, and notes what that changes.
func (h *Handle) writeBehind(ctx context.Context, p []byte, off int64) (int, error) {
	t, n := h.tree, h.node
	t.mu.Lock()
	if !n.modified {
		n.modified = true
		t.changedLocked(n)
	}
	t.unlock()
	written, err := h.content.WriteAt(ctx, h.file, p, off)
	if written > 0 {
		t.mu.Lock()
		n.deferred = n.deferred.Without(SetMtime | SetMtimeNow)
		n.modified = true // another handle's flush may have ended before this write began
		t.clock++
		n.gen = t.clock
		n.attr.Size = max(n.attr.Size, off+int64(written))
		n.attr.Blocks = -1
		n.attr.Mtime = t.kept(time.Now())
		t.unlock()
	}
	if err != nil {
		// This write has told it; the next one, which may come without a
		// flush between, is to be tried.
		t.mu.Lock()
		n.tellLocked(h.content.Failed())
		t.unlock()
	}
	return written, err
}

// size returns what the size of the open file is believed to be.
func (h *Handle) size(ctx context.Context) (int64, error) {
	a, err := h.attr(ctx)
	return a.Size, err
}

// willChange notes that the content is about to be changed, and returns the
// attributes that the file had last.
func (h *Handle) willChange() Attr {
	t, n := h.tree, h.node
	t.mu.Lock()
	defer t.unlock()
	t.clock++
	n.gen = t.clock
	n.unsettled = true
	return n.attr
}

// dropPrivileges clears the set-id bits of the file, which has the attributes
// a, if who opened the handle must not leave them.
func (h *Handle) dropPrivileges(ctx context.Context, a Attr) {
	mode, clear := WriteClears(&h.cred, a)
	if !clear {
		return
	}
	set := SetAttr{Valid: SetMode, Mode: mode}
	t := h.tree
	if err := h.file.SetAttr(ctx, set); err != nil {
		t.log.Warn("set-id bits stay after a write", "path", h.node.path(""), "err", err)
		return
	}
	t.mu.Lock()
	t.changedLocked(h.node)
	h.node.attr.Mode = h.node.attr.Mode&^0o7777 | mode&0o7777
	t.unlock()
	t.publish(h.door, Event{Node: h.node, Kind: AttrChanged})
}

// Attr returns the attributes of the open file, also when its name is gone.
func (h *Handle) Attr(ctx context.Context) (Attr, error) {
	a, err := h.attr(ctx)
	return a, h.fail("getattr", err)
}

func (h *Handle) attr(ctx context.Context) (Attr, error) {
	t, n := h.tree, h.node
	t.mu.Lock()
	if t.believedLocked(n, time.Now()) {
		a := t.shownLocked(n)
		t.unlock()
		return a, nil
	}
	t.unlock()
	stamp, until := t.now()
	a, err := h.file.Attr(ctx)
	if err != nil {
		return Attr{}, err
	}
	t.mu.Lock()
	defer t.unlock()
	t.storeLocked(n, a, stamp, until)
	return t.shownLocked(n), nil
}

// SetAttr changes attributes of the open file, whoever asks: it is the tree's
// own use of a handle. Doors use SetAttrAs.
func (h *Handle) SetAttr(ctx context.Context, set SetAttr) error {
	t, n := h.tree, h.node
	n.opMu.Lock()
	defer n.opMu.Unlock()
	a, err := h.attr(ctx)
	if err == nil {
		_, err = t.change(ctx, h.door, n, h, a, set)
	}
	return h.fail("setattr", err)
}

// SetAttrAs is Tree.SetAttr for the open file. The size of one that is open
// for writing needs no permission of the file: ftruncate(2).
func (h *Handle) SetAttrAs(ctx context.Context, c Caller, set SetAttr) (Attr, error) {
	ctx = h.tree.as(ctx, c)
	if set.Any(SetSize) && !h.flags.Writes() {
		return Attr{}, h.fail("setattr", syscall.EINVAL)
	}
	t := h.tree
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	a, err := t.setAttr(ctx, c, h.node, h, set)
	return a, h.fail("setattr", err)
}

// Flush waits for what was written and returns the first error of a write that
// Sync has not told yet: what close(2) of one of its descriptors does. The
// next Flush tells it again, since a process that was forked flushes, without
// anybody hearing of it, when it executes another program.
func (h *Handle) Flush(ctx context.Context) error {
	if !h.flags.Writes() {
		return nil
	}
	h.tree.mu.Lock()
	h.made = false // changes are not deferred any more: nobody might be told of a failure
	h.tree.unlock()
	err := h.tree.flush(ctx, h.node)
	if err == nil {
		h.tree.mu.Lock()
		err = h.failed
		h.tree.unlock()
	}
	return h.fail("flush", err)
}

func (h *Handle) takeFailed() error {
	h.tree.mu.Lock()
	defer h.tree.unlock()
	err := h.failed
	h.failed = nil
	return err
}

// Sync returns when the backend has what was written on stable storage.
func (h *Handle) Sync(ctx context.Context) error {
	if err := h.tree.flush(ctx, h.node); err != nil {
		return h.fail("fsync", err)
	}
	err := h.file.Sync(ctx)
	if failed := h.takeFailed(); failed != nil {
		err = failed
	}
	return h.fail("fsync", err)
}

// Close ends the use of the handle, whatever ctx says, and returns the first
// error of a write that was not told yet.
func (h *Handle) Close(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	t, n := h.tree, h.node
	held, err := h.leave(ctx)
	if !held {
		h.useMu.Lock()
	}
	defer h.useMu.Unlock()
	if t.watch != nil && h.flags.Writes() {
		t.watch.wrote(ctx, h)
	}
	if h.content != nil {
		h.content.Release(h.file)
	}
	if err1 := h.file.Close(ctx); err == nil {
		err = h.fail("close", err1)
	}
	t.Forget(n, 1)
	return err
}

// leave is Flush before h is closed, after which it is no handle of the node any
// more: no change is deferred to go through it. If nobody else uses h or
// has the file open, the close is sent behind the data; then useMu is held, which
// has others leave h alone.
func (h *Handle) leave(ctx context.Context) (held bool, err error) {
	t, n := h.tree, h.node
	if h.flags.Writes() && t.traits.Slow {
		n.opMu.Lock()
		defer n.opMu.Unlock()
		t.mu.Lock()
		held = len(n.handles) == 1 && h.useMu.TryLock()
		t.unlock()
		if held {
			t.flushBefore(ctx, n, h)
		}
	}
	err = h.Flush(ctx) // which tells
	t.mu.Lock()
	delete(n.handles, h)
	t.unlock()
	return held, err
}

func (h *Handle) fail(op string, err error) error {
	return h.tree.fail(op, h.node, "", err)
}

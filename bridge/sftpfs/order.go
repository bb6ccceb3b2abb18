package sftpfs

import (
	"context"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// An order is what a file knows of the requests that change it, so that some can
// be sent behind others before those are answered: the server carries out what
// comes on one session in the order in which it was sent, and what comes on
// several in any. It is guarded by file.mu.
type order struct {
	on      handle // through which the writes that were started go
	started int    // of them, how many are not answered
	loose   int    // calls of WriteAt under way
	closing *call  // the CLOSE that was sent behind the writes
}

var _ bridge.OrderedFile = (*file)(nil)

// inOrderLocked returns the only handle of the file, if what is sent on it now
// comes after all writes under way. fl.mu is held.
func (fl *file) inOrderLocked() (handle, bool) {
	if !fl.f.info.posix() || fl.closed || fl.order.closing != nil || fl.order.loose > 0 {
		return handle{}, false
	}
	if len(fl.handles) != 1 || !fl.handles[0].s.alive() {
		return handle{}, false
	}
	h := fl.handles[0]
	return h, fl.order.started == 0 || fl.order.on == h
}

// loosely counts a WriteAt, behind which nothing can be started until done.
func (fl *file) loosely() (done func()) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.order.loose++
	return func() {
		fl.mu.Lock()
		defer fl.mu.Unlock()
		fl.order.loose--
	}
}

// StartWrite implements bridge.OrderedFile for what fits into one request and a
// session that has not much to do: what is more had better be spread. When the
// connection breaks, the outcome is that of writing it again.
func (fl *file) StartWrite(p []byte, off int64) func(ctx context.Context) error {
	if !fl.flags.Writes() || fl.flags.Has(syscall.O_APPEND) || off < 0 || len(p) == 0 || !fl.writing.TryRLock() {
		return nil
	}
	h, c := fl.beginWrite(p, off)
	if c == nil {
		fl.writing.RUnlock()
		return nil
	}
	return func(ctx context.Context) error {
		err := c.wait(ctx)
		if err == nil {
			err = c.status()
		}
		fl.writing.RUnlock()
		switch {
		case err == nil:
			fl.written(off + int64(len(p)))
		case isLost(err):
			_, err = fl.WriteAt(ctx, p, off)
		default:
			err = fl.why(ctx, h, err)
		}
		fl.mu.Lock()
		defer fl.mu.Unlock()
		fl.order.started--
		return err
	}
}

// beginWrite sends the write in order through a handle, or returns no call.
func (fl *file) beginWrite(p []byte, off int64) (handle, *call) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	h, ok := fl.inOrderLocked()
	if !ok || len(p) > h.s.server.maxWrite || h.s.load.Load() >= busy {
		return handle{}, nil
	}
	calls, err := h.s.begin(write(h, p, off))
	if err != nil {
		return handle{}, nil
	}
	fl.order.on = h
	fl.order.started++
	fl.moved += int64(len(p))
	fl.wrote, fl.mtime = true, unknownTime
	return h, calls[0]
}

// StartSetAttr implements bridge.OrderedFile for mode and times. When the
// connection breaks, the outcome is that of doing it again.
func (fl *file) StartSetAttr(set bridge.SetAttr) func(ctx context.Context) error {
	if checkSet(set) != nil || set.Any(bridge.SetSize|bridge.SetUID|bridge.SetGID) || halfPair(set) {
		return nil
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	h, ok := fl.inOrderLocked()
	if !ok {
		return nil
	}
	calls, err := h.s.begin(fsetstat(h.h, set))
	if err != nil {
		return nil
	}
	fl.mtime = unknownTime
	return func(ctx context.Context) error {
		err := calls[0].wait(ctx)
		if err == nil {
			err = setAttrError(calls[0].status(), set)
		}
		if isLost(err) {
			return fl.SetAttr(ctx, set)
		}
		return fl.why(ctx, h, err)
	}
}

// StartAttr implements bridge.OrderedFile.
func (fl *file) StartAttr() func(ctx context.Context) (bridge.Attr, error) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	h, ok := fl.inOrderLocked()
	if !ok {
		return nil
	}
	calls, err := h.s.begin(fstat(h.h))
	if err != nil {
		return nil
	}
	return func(ctx context.Context) (bridge.Attr, error) {
		if err := calls[0].wait(ctx); err != nil {
			return bridge.Attr{}, err
		}
		return calls[0].attrs()
	}
}

// fsetstat sets mode and times, both of them, of an open file.
func fsetstat(h string, set bridge.SetAttr) request {
	return request{packet: &sshfx.FSetStatPacket{Handle: h, Attrs: toAttributes(set, bridge.Attr{}, time.Now())}}
}

// StartClose implements bridge.OrderedFile.
func (fl *file) StartClose() bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	h, ok := fl.inOrderLocked()
	if !ok || !fl.wrote {
		return false
	}
	calls, err := h.s.begin(closing(h.h))
	if err != nil {
		return false
	}
	fl.order.closing = calls[0]
	fl.handles = nil // a write that is lost opens the file again
	return true
}

package sftpfs

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
	"github.com/pkg/sftp/v2/encoding/ssh/filexfer/openssh"

	"sftpbridge/bridge"
)

// A handle is a file that a session has open.
type handle struct {
	s *session
	h string
}

// unknownTime is an mtime that was changed by a write.
var unknownTime time.Time

// A file is an open file: one handle or several, on as many sessions.
type file struct {
	f      *FS
	flags  bridge.OpenFlags
	opened bridge.Attr // when it was opened; without a type if that is not known

	// Guarded by f.names.mu.
	name string
	gone bool // the name was removed or taken by another file

	// writing is shared by writes, which may run at the same time, and held
	// alone while handles are compared: the file stands still then.
	writing sync.RWMutex

	appending sync.Mutex // held during each write of a file opened with O_APPEND

	mu      sync.Mutex
	handles []handle      // some may be of sessions that have ended; guarded by mu
	opening chan struct{} // closed when the one who opens the file again is done; guarded by mu
	size    int64         // at least; as last seen or written; guarded by mu
	mtime   time.Time     // as last seen, or unknownTime; guarded by mu
	wrote   bool          // guarded by mu
	closed  bool          // guarded by mu
	order   order         // guarded by mu
	moved   int64         // bytes read and written; guarded by mu
	widenAt int64         // moved when one may try to open further handles; guarded by mu

	turn     chan struct{} // holds a token while one waits to send much
	widening atomic.Bool
	wideners sync.WaitGroup
}

var (
	_ bridge.File       = (*file)(nil)
	_ bridge.CopyFile   = (*file)(nil)
	_ bridge.AheadFile  = (*file)(nil)
	_ bridge.OpenedFile = (*file)(nil)
)

// newFile returns the file that OPEN gave the handle h for, with what is known
// of its attributes.
func newFile(o *opening, s *session, h string, a bridge.Attr) *file {
	fl := &file{
		f: o.f, flags: o.flags, name: o.name,
		handles: []handle{{s, h}},
		size:    a.Size, mtime: a.Mtime,
		widenAt: widenFirst,
		opened:  a,
		turn:    make(chan struct{}, 1),
	}
	o.f.names.add(fl)
	return fl
}

// Opened implements bridge.OpenedFile: what the LSTAT told that was sent with
// OPEN.
func (fl *file) Opened() (bridge.Attr, bool) { return fl.opened, fl.opened.Mode != 0 }

// dress gives a new file, which has the attributes now, what it lacks of attr:
// what the umask of the upstream has cut of its mode, its owner, its times.
func (fl *file) dress(ctx context.Context, attr bridge.SetAttr, now bridge.Attr) error {
	set := lacking(attr.Without(bridge.SetSize), now)
	if set.Valid == 0 {
		return nil
	}
	if err := fl.SetAttr(ctx, set); err != nil {
		return err
	}
	fl.opened = applied(set, now)
	return nil
}

// applied is what has the attributes now, if they are known, after the change
// set.
func applied(set bridge.SetAttr, now bridge.Attr) bridge.Attr {
	if now.Mode == 0 {
		return now
	}
	a := set.Apply(now, now.Mtime)
	a.Ctime = now.Ctime
	return a
}

// lacking returns what of set what was just made, and has the attributes now,
// does not have. Without a type, now is not known.
func lacking(set bridge.SetAttr, now bridge.Attr) bridge.SetAttr {
	if now.Mode == 0 {
		return set
	}
	if set.UID == now.UID && (set.GID == now.GID || !set.Has(bridge.SetGID)) {
		set = set.Without(bridge.SetUID)
	}
	if set.GID == now.GID && !set.Has(bridge.SetUID) {
		set = set.Without(bridge.SetGID)
	}
	if set.Mode&0o7777 == now.Perm() && !set.Any(bridge.SetUID|bridge.SetGID) {
		set = set.Without(bridge.SetMode)
	}
	return set
}

// Attr returns the attributes of the open file.
func (fl *file) Attr(ctx context.Context) (bridge.Attr, error) {
	var a bridge.Attr
	err := fl.do(ctx, func(ctx context.Context, h handle) error {
		calls, err := h.s.exchange(ctx, fstat(h.h))
		if err != nil {
			return err
		}
		if a, err = calls[0].attrs(); err == nil {
			fl.saw(a)
		}
		return err
	})
	return a, err
}

// saw notes what the server says of the file.
func (fl *file) saw(a bridge.Attr) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.size, fl.mtime = a.Size, a.Mtime
}

// resized notes a size that was set.
func (fl *file) resized(size int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.size, fl.mtime = size, unknownTime
}

// mayShrink notes that the size is being set: the file may have it from now
// on, whatever is heard of that.
func (fl *file) mayShrink(size int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.size, fl.mtime = min(fl.size, size), unknownTime
}

// SetAttr changes attributes of the open file.
func (fl *file) SetAttr(ctx context.Context, set bridge.SetAttr) error {
	if err := checkSet(set); err != nil {
		return err
	}
	if set.Has(bridge.SetSize) {
		fl.mayShrink(set.Size)
	}
	err := fl.do(ctx, func(ctx context.Context, h handle) error {
		var now bridge.Attr
		if halfPair(set) {
			calls, err := h.s.exchange(ctx, fstat(h.h))
			if err != nil {
				return err
			}
			if now, err = calls[0].attrs(); err != nil {
				return err
			}
		}
		err := fl.f.sendAttrs(ctx, h.s, set, now, func(a sshfx.Attributes) request {
			return request{packet: &sshfx.FSetStatPacket{Handle: h.h, Attrs: a}}
		})
		return tooLarge(fl.why(ctx, h, err), set)
	})
	if err != nil {
		return err
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if set.Has(bridge.SetSize) {
		fl.size = set.Size
	}
	fl.mtime = unknownTime
	return nil
}

// Sync is EOPNOTSUPP if the upstream has no fsync.
func (fl *file) Sync(ctx context.Context) error {
	if !fl.f.info.has(extFSync, "1") {
		return syscall.EOPNOTSUPP
	}
	return fl.do(ctx, func(ctx context.Context, h handle) error {
		calls, err := h.s.exchange(ctx, request{packet: &openssh.FSyncExtendedPacket{Handle: h.h}, slow: true})
		if err != nil {
			return err
		}
		return fl.why(ctx, h, calls[0].status())
	})
}

// StatFS tells of the file system that has the file.
func (fl *file) statFS(ctx context.Context, h handle) (bridge.StatFS, error) {
	return fl.f.statFS(ctx, h.s, extFStatVFS, &openssh.FStatVFSExtendedPacket{Handle: h.h})
}

// why looks for the reason of a failure for which the server gave none.
func (fl *file) why(ctx context.Context, h handle, err error) error {
	if !isVague(err) {
		return err
	}
	st, serr := fl.statFS(ctx, h)
	if serr != nil {
		return err
	}
	return because(err, st)
}

// Close closes the file. What its CLOSE says is waited for only if something
// was written. If the connection broke after the last write, the file must
// still be as large as it was written.
func (fl *file) Close(ctx context.Context) error {
	fl.mu.Lock()
	if fl.closed {
		fl.mu.Unlock()
		return syscall.EBADF
	}
	fl.closed = true
	fl.mu.Unlock()
	fl.wideners.Wait()
	fl.f.names.remove(fl)
	fl.mu.Lock()
	handles, wrote, sent := fl.handles, fl.wrote, fl.order.closing
	fl.handles = nil
	fl.mu.Unlock()
	lost := len(handles) == 0 && sent == nil
	if !wrote {
		for _, h := range handles {
			h.s.send(closing(h.h))
		}
		return nil
	}
	err := closeAll(ctx, handles, sent)
	if isLost(err) || err == nil && lost {
		return fl.stillThere(ctx)
	}
	return err
}

// closeAll closes all handles at once, and waits, also for a CLOSE that was sent
// before, if there is one. It returns the first error,
// rather one that a server gave than that a session was lost.
func closeAll(ctx context.Context, handles []handle, sent *call) error {
	var err error
	calls := []*call{sent}
	for _, h := range handles {
		c, cerr := h.s.begin(closing(h.h))
		if cerr != nil {
			err = cerr
			continue
		}
		calls = append(calls, c[0])
	}
	for _, c := range calls {
		if c == nil {
			continue
		}
		cerr := c.wait(ctx)
		if cerr == nil {
			cerr = c.status()
		}
		if cerr != nil && (err == nil || isLost(err)) {
			err = cerr
		}
	}
	return err
}

// stillThere looks, after the connection broke, whether the upstream has what
// it said it has written.
func (fl *file) stillThere(ctx context.Context) error {
	name, named := fl.f.names.nameOf(fl)
	if !named {
		return nil
	}
	a, err := fl.f.Lstat(ctx, name)
	if errors.Is(err, syscall.ENOENT) {
		return nil // somebody removed it
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	if err == nil && a.Size < fl.size {
		return syscall.EIO
	}
	return err
}

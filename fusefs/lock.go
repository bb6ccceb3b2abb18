package fusefs

import (
	"context"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

// A lockOwner is whose locks they are: those of fcntl(2), of a process, or of
// flock(2), of an open file.
type lockOwner struct {
	id    uint64
	flock bool
}

func lockOf(in *fuse.LkIn) (lockOwner, bridge.Lock) {
	flock := in.LkFlags&fuse.LK_FLOCK != 0
	return lockOwner{in.Owner, flock}, bridge.Lock{
		Start: in.Lk.Start,
		End:   in.Lk.End,
		Type:  int16(in.Lk.Typ),
		PID:   in.Lk.Pid,
		Flock: flock,
	}
}

// GetLk tells which lock is in the way.
func (d *door) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	owner, l := lockOf(in)
	l = f.node.TestLock(owner.id, l)
	out.Lk = fuse.FileLock{Start: l.Start, End: l.End, Typ: uint32(uint16(l.Type)), Pid: l.PID}
	return fuse.OK
}

// SetLk takes a lock or gives it back, or says EAGAIN.
func (d *door) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return d.setLock(d.ctx, in, false)
}

// SetLkw waits for a lock. It is the one request that an interrupt ends: the
// others are to be done, and Go's programs interrupt theirs all the time.
func (d *door) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return d.setLock(interruptible{d.ctx, cancel}, in, true)
}

func (d *door) setLock(ctx context.Context, in *fuse.LkIn, wait bool) fuse.Status {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	owner, l := lockOf(in)
	if err := f.node.SetLock(ctx, owner.id, l, wait); err != nil {
		return status(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks == nil {
		f.locks = make(map[lockOwner]struct{})
	}
	f.locks[owner] = struct{}{}
	return fuse.OK
}

// unlock takes away all locks of the owner on the file.
func (f *file) unlock(o lockOwner) {
	f.mu.Lock()
	delete(f.locks, o)
	f.mu.Unlock()
	f.node.Unlock(o.id, o.flock)
}

// unlockAll takes away what locks are left when a file ends. A lock of
// fcntl(2) may have been taken through another descriptor of the process: it
// has ended then, as the kernel has flushed this one.
func (f *file) unlockAll() {
	f.mu.Lock()
	owners := f.locks
	f.locks = nil
	f.mu.Unlock()
	for o := range owners {
		f.node.Unlock(o.id, o.flock)
	}
}

// interruptible is a context that ends with an interrupt.
type interruptible struct {
	context.Context
	interrupt <-chan struct{}
}

func (c interruptible) Done() <-chan struct{} { return c.interrupt }

func (c interruptible) Err() error {
	select {
	case <-c.interrupt:
		return context.Canceled
	default:
		return nil
	}
}

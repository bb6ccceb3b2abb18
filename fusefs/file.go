package fusefs

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

const (
	// fmodeExec is in the flags of an open on behalf of execve(2).
	fmodeExec = 0x20
	// spliceSize is the size from which on reads are spliced from the
	// backend's file: below it a copy is cheaper.
	spliceSize = 64 << 10
	// releaseFlock is in the flags of a RELEASE that ends a flock(2).
	releaseFlock = 1 << 1
	// settleAge is how old a file's last change is to be before its time
	// tells it from one that comes later.
	settleAge = 3 * time.Second
	// maxCopy bounds what one COPY_FILE_RANGE copies, so that it ends in time.
	maxCopy     = 1 << 30
	maxCopySlow = 16 << 20
)

// A file is an open file of the kernel's.
type file struct {
	h      *bridge.Handle
	node   *bridge.Node
	id     uint64 // what the kernel calls node
	caller bridge.Caller
	fd     int         // what reads are spliced from, or -1
	setID  atomic.Bool // the file may have set-id bits
	direct bool        // the kernel reads and writes by itself

	mu    sync.Mutex
	locks map[lockOwner]struct{} // guarded by mu; who took a lock through the file
	mtime time.Time              // guarded by mu; what other doors know of a direct file
	size  int64                  // guarded by mu; the same
}

// A contentVersion tells one content of a file from another.
type contentVersion struct {
	version uint64
	mtime   time.Time
	size    int64
}

// openFlags are those of open(2) that the tree knows.
func openFlags(flags, mask uint32) bridge.OpenFlags {
	return bridge.OpenFlags(flags & (syscall.O_ACCMODE | mask))
}

// Open opens a regular file.
func (d *door) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c, n, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	as := c
	if in.Flags&(fmodeExec|syscall.O_ACCMODE) == fmodeExec {
		if err := d.tree.Access(d.ctx, c, n, bridge.MayExec); err != nil {
			return d.nodeStatus(&in.InHeader, err)
		}
		as = executor(c)
	}
	h, err := d.tree.Open(d.ctx, as, n, openFlags(in.Flags, syscall.O_TRUNC|syscall.O_APPEND))
	if code := d.nodeStatus(&in.InHeader, err); !code.Ok() {
		return code
	}
	a, err := h.Attr(d.ctx)
	d.opened(h, in.NodeId, c, a, err, out)
	if h.Flags().Has(syscall.O_TRUNC) {
		return d.done(nil)
	}
	return fuse.OK
}

// Create makes a file, or opens the one that is there, and opens it.
func (d *door) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	since := d.notices.count.Load()
	c, dir, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	flags := openFlags(in.Flags, syscall.O_CREAT|syscall.O_EXCL|syscall.O_TRUNC|syscall.O_APPEND)
	n, h, a, made, err := d.tree.Create(d.ctx, c, dir, name, flags|syscall.O_CREAT, withMode(in.Mode))
	if err != nil {
		return status(err)
	}
	d.entry(&out.EntryOut, n, a, 1, since)
	if !made { // it may have changed since it was looked up
		a, err = h.Attr(d.ctx)
	}
	d.opened(h, out.NodeId, c, a, err, &out.OpenOut)
	if made || flags.Has(syscall.O_TRUNC) {
		return d.done(nil)
	}
	return fuse.OK
}

// opened answers with the open file h, which has the attributes a unless there
// was an error.
func (d *door) opened(h *bridge.Handle, id uint64, c bridge.Caller, a bridge.Attr, err error, out *fuse.OpenOut) {
	f := &file{h: h, node: h.Node(), id: id, caller: c, fd: -1}
	if fd, ok := h.FD(); ok && h.Flags().Reads() {
		f.fd = fd
	}
	f.setID.Store(err != nil || a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0)
	out.Fh = d.nodes.addFile(f)
	if !d.pass.open(f, a, out) && err == nil && d.unchanged(f, a) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
}

// unchanged reports whether the content of f is what it was at the last open,
// so that the kernel may keep its pages.
func (d *door) unchanged(f *file, a bridge.Attr) bool {
	now := contentVersion{f.node.Version(), a.Mtime, a.Size}
	d.nodes.mu.Lock()
	defer d.nodes.mu.Unlock()
	e := d.nodes.nodes[f.id]
	if e == nil {
		return false
	}
	same := e.cached && e.version.version == now.version && e.version.size == now.size && e.version.mtime.Equal(now.mtime)
	e.version = now
	// A change right after this one might have the same time.
	e.cached = time.Since(a.Mtime) > settleAge
	return same
}

// Read reads, or says what to splice.
func (d *door) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return nil, fuse.EBADF
	}
	if f.fd >= 0 && len(buf) >= spliceSize {
		return fuse.ReadResultFd(uintptr(f.fd), int64(in.Offset), len(buf)), fuse.OK
	}
	n, err := f.h.ReadAt(d.ctx, buf, int64(in.Offset))
	if err != nil && err != io.EOF {
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

// Write writes, at the end of the file if it was opened to append.
func (d *door) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return 0, fuse.EBADF
	}
	n, err := f.h.WriteAt(d.ctx, data, int64(in.Offset))
	if n > 0 {
		d.killSetID(f, in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0)
	}
	if n > 0 || err == nil {
		return uint32(n), d.done(nil)
	}
	return 0, status(err)
}

// killSetID has the kernel see that a write took set-id bits away. The tree
// takes them away unless the file was opened by root; whoever got it from
// root and is not root itself must not keep them either.
func (d *door) killSetID(f *file, kill bool) {
	if !f.setID.Load() {
		return
	}
	if kill && f.caller.Cred.IsRoot() {
		a, err := f.h.Attr(d.ctx)
		if mode := withoutSetID(a.Mode); err == nil && mode != a.Mode {
			f.h.SetAttrAs(d.ctx, f.caller, withMode(mode))
		}
	}
	if kill || !f.caller.Cred.IsRoot() {
		f.setID.Store(false)
		d.notices.add(notice{kind: noticeAttr, id: f.id, known: true})
	}
}

// withoutSetID is a mode of a file that was written to: set-gid without
// execute permission of the group means something else, and stays.
func withoutSetID(mode uint32) uint32 {
	mode &^= syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 {
		mode &^= syscall.S_ISGID
	}
	return mode
}

// Flush is close(2) of one descriptor: it ends the locks of its owner and
// tells of writes that failed.
func (d *door) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	err := f.h.Flush(d.ctx)
	f.unlock(lockOwner{in.LockOwner, false})
	d.published(f)
	return status(err)
}

// Fsync brings what was written to stable storage.
func (d *door) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	return status(f.h.Sync(d.ctx))
}

// Release ends an open file.
func (d *door) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	f := d.nodes.removeFile(in.Fh)
	if f == nil {
		return
	}
	if in.ReleaseFlags&releaseFlock != 0 {
		f.unlock(lockOwner{in.LockOwner, true})
	}
	d.closeFile(d.ctx, f)
}

// closeFile closes f. Nobody is there to be told of an error any more.
func (d *door) closeFile(ctx context.Context, f *file) {
	f.unlockAll()
	d.published(f)
	d.pass.release(f)
	if err := f.h.Close(ctx); err != nil {
		d.opt.Logger.Warn("closing a file", "err", err)
	}
}

// Fallocate is fallocate(2).
func (d *door) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	err := f.h.Allocate(d.ctx, in.Mode, int64(in.Offset), int64(in.Length))
	if err == nil {
		d.killSetID(f, in.Uid != 0)
	}
	return d.done(err)
}

// Lseek finds data and holes.
func (d *door) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	f := d.nodes.file(in.Fh)
	if f == nil {
		return fuse.EBADF
	}
	off, err := f.h.Seek(d.ctx, int64(in.Offset), int(in.Whence))
	if err != nil {
		return status(err)
	}
	out.Offset = uint64(off)
	return fuse.OK
}

// CopyFileRange is copy_file_range(2), up to a bound: the caller asks again.
func (d *door) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, dst := d.nodes.file(in.FhIn), d.nodes.file(in.FhOut)
	if src == nil || dst == nil {
		return 0, fuse.EBADF
	}
	bound := uint64(maxCopy)
	if d.tree.Traits().Slow {
		bound = maxCopySlow
	}
	n, err := src.h.CopyTo(d.ctx, int64(in.OffIn), dst.h, int64(in.OffOut), int64(min(in.Len, bound)))
	if n > 0 {
		d.killSetID(dst, in.Uid != 0)
	}
	if n > 0 || err == nil || err == io.EOF {
		return uint32(n), d.done(nil)
	}
	return 0, status(err)
}

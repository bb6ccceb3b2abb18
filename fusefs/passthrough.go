package fusefs

import (
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

// A backer registers files that the kernel is to read and write itself;
// *fuse.Server is one.
type backer interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(id int32) syscall.Errno
}

// passthrough has the kernel read and write local files without asking (FUSE
// passthrough), where it can and the process may: it takes root. What was
// permitted at open is then all that is checked, as on any file system. The
// kernel wants all open files of an inode to be of the same kind.
type passthrough struct {
	mu     sync.Mutex // held while a file is registered, for which the kernel asks nothing of us
	kernel backer     // guarded by mu; nil if it cannot be done
	modes  map[uint64]*ioMode
}

// An ioMode says how the kernel does the I/O of an inode that is open.
type ioMode struct {
	direct  bool  // by itself, on the file registered as backing
	backing int32 // if direct
	opens   int
}

// Init learns from the server whether the kernel can.
func (d *door) Init(s *fuse.Server) {
	if s.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 || d.tree.Traits().Slow {
		return
	}
	d.pass.mu.Lock()
	defer d.pass.mu.Unlock()
	d.pass.kernel = s
}

// open decides how the kernel does the I/O of f, which has the attributes a,
// and reports whether it does it by itself. Each call is matched by one of
// release.
func (p *passthrough) open(f *file, a bridge.Attr, out *fuse.OpenOut) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.modes[f.id]
	if m == nil {
		m = &ioMode{}
		if p.modes == nil {
			p.modes = make(map[uint64]*ioMode)
		}
		p.modes[f.id] = m
		m.backing, m.direct = p.register(f, a)
	}
	m.opens++
	if m.direct {
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
		out.BackingID = m.backing
		f.direct, f.mtime, f.size = true, a.Mtime, a.Size
	}
	return m.direct
}

// register registers the local file of f, if it has one. Not one with set-id
// bits: it would keep them when it is written to.
func (p *passthrough) register(f *file, a bridge.Attr) (int32, bool) {
	fd, ok := f.h.FD()
	if !ok || p.kernel == nil || a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0 {
		return 0, false
	}
	id, errno := p.kernel.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno != 0 {
		p.kernel = nil // not root, or a file system that is stacked already
		return 0, false
	}
	return id, true
}

// release ends what open began.
func (p *passthrough) release(f *file) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.modes[f.id]
	if m == nil {
		return
	}
	if m.opens--; m.opens > 0 {
		return
	}
	delete(p.modes, f.id)
	if m.direct && p.kernel != nil {
		p.kernel.UnregisterBackingFd(m.backing)
	}
}

// published tells the other doors of what the kernel has written to f by
// itself, and the kernel of the times that the file has now.
func (d *door) published(f *file) {
	if !f.direct || !f.h.Flags().Writes() {
		return
	}
	a, err := f.h.AttrWritten(d.ctx)
	if err != nil || !f.written(a.Mtime, a.Size) {
		return
	}
	f.h.Touched()
	d.notices.add(notice{kind: noticeAttr, id: f.id, known: true})
}

// written reports whether the time or the size of the file have changed since
// the last call.
func (f *file) written(mtime time.Time, size int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := !f.mtime.Equal(mtime) || f.size != size
	f.mtime, f.size = mtime, size
	return changed
}

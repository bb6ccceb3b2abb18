package memfs

import (
	"context"
	"io"
	"sync/atomic"
	"syscall"

	"sftpbridge/bridge"
)

// A file is an open regular file. After Close its methods are EBADF.
type file struct {
	fs     *FS
	n      *inode
	flags  bridge.OpenFlags
	closed atomic.Bool
}

var _ interface {
	bridge.File
	bridge.CopyFile
	bridge.AllocateFile
	bridge.SeekFile
} = (*file)(nil)

// check returns the error of an operation on a file that is closed, or that
// was not opened for it, or of a context that has ended.
func (f *file) check(ctx context.Context, allowed bool) error {
	if f.closed.Load() || !allowed {
		return syscall.EBADF
	}
	return alive(ctx)
}

// ReadAt reads as bridge.File says. EBADF if f is not open for reading.
func (f *file) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.check(ctx, f.flags.Reads()); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, syscall.EINVAL
	}
	if len(p) == 0 {
		return 0, nil
	}
	f.n.mu.RLock()
	defer f.n.mu.RUnlock()
	left := f.n.attr.Size - off
	if left <= 0 {
		return 0, io.EOF
	}
	if left < int64(len(p)) {
		f.n.data.readAt(p[:left], off)
		return int(left), io.EOF
	}
	f.n.data.readAt(p, off)
	return len(p), nil
}

// WriteAt writes as bridge.File says. EBADF if f is not open for writing;
// ENOSPC with the number of bytes for which there was space.
func (f *file) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.check(ctx, f.flags.Writes()); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, syscall.EINVAL
	}
	if len(p) == 0 {
		return 0, nil
	}
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	if f.flags.Has(syscall.O_APPEND) {
		off = f.n.attr.Size
	}
	if off > maxSize-int64(len(p)) {
		return 0, syscall.EFBIG
	}
	n, err := f.n.data.writeAt(&f.fs.space, p, off)
	if n > 0 {
		f.n.modifiedLocked(off + int64(n))
	}
	return n, err
}

// modifiedLocked notes that the content has changed, and that the file reaches
// to end at least. n.mu is held.
func (n *inode) modifiedLocked(end int64) {
	n.attr.Size = max(n.attr.Size, end)
	n.attr.Mtime = now()
	n.attr.Ctime = n.attr.Mtime
}

func (f *file) Attr(ctx context.Context) (bridge.Attr, error) {
	if err := f.check(ctx, true); err != nil {
		return bridge.Attr{}, err
	}
	return f.n.stat(), nil
}

// SetAttr changes attributes, all that are asked for or none. EINVAL for the
// size if f is not open for writing.
func (f *file) SetAttr(ctx context.Context, attr bridge.SetAttr) error {
	if err := f.check(ctx, true); err != nil {
		return err
	}
	if attr.Has(bridge.SetSize) && !f.flags.Writes() {
		return syscall.EINVAL
	}
	return f.n.setAttr(&f.fs.space, attr)
}

// Sync has nothing to do.
func (f *file) Sync(ctx context.Context) error { return f.check(ctx, true) }

// Close closes f also when ctx has ended.
func (f *file) Close(ctx context.Context) error {
	if f.closed.Swap(true) {
		return syscall.EBADF
	}
	f.fs.close(f.n)
	return nil
}

// Seek finds data and holes in pages of 4 KiB.
func (f *file) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	if err := f.check(ctx, true); err != nil {
		return 0, err
	}
	f.n.mu.RLock()
	defer f.n.mu.RUnlock()
	size := f.n.attr.Size
	if off < 0 || off >= size {
		return 0, syscall.ENXIO
	}
	switch whence {
	case seekData:
		at, ok := f.n.data.seekData(off)
		if !ok || at >= size {
			return 0, syscall.ENXIO
		}
		return at, nil
	case seekHole:
		return min(f.n.data.seekHole(off), size), nil
	}
	return 0, syscall.EINVAL
}

// The values of whence for Seek.
const (
	seekData = 3
	seekHole = 4
)

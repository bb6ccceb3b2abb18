package bridge

import (
	"context"
	"io"
	"syscall"
)

// FD returns the descriptor of a file on this machine, from which a door may
// read and to which it may write in place of ReadAt and WriteAt.
func (h *Handle) FD() (int, bool) {
	if f, ok := h.file.(FDFile); ok && h.content == nil {
		return f.FD(), true
	}
	return 0, false
}

// Allocate is fallocate(2): EOPNOTSUPP where the backend has nothing like it.
func (h *Handle) Allocate(ctx context.Context, mode uint32, off, n int64) error {
	if !h.flags.Writes() {
		return h.fail("fallocate", syscall.EBADF)
	}
	f, ok := h.file.(AllocateFile)
	if !ok {
		return h.fail("fallocate", syscall.EOPNOTSUPP)
	}
	t := h.tree
	h.node.opMu.Lock()
	defer h.node.opMu.Unlock()
	h.dropPrivileges(ctx, h.willChange())
	if err := f.Allocate(ctx, mode, off, n); err != nil {
		return h.fail("fallocate", err)
	}
	t.mu.Lock()
	t.changedLocked(h.node)
	t.unlock()
	t.publish(h.door, Event{Node: h.node, Kind: ContentChanged})
	return nil
}

// The whence values of Seek, as of lseek(2).
const (
	seekData = 3
	seekHole = 4
)

// Seek finds data (SEEK_DATA, 3) or a hole (SEEK_HOLE, 4) at or after off. A
// file of a backend that cannot tell is all data, with a hole at its end.
func (h *Handle) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	if whence != seekData && whence != seekHole {
		return 0, h.fail("lseek", syscall.EINVAL)
	}
	if f, ok := h.file.(SeekFile); ok && h.content == nil {
		at, err := f.Seek(ctx, off, whence)
		return at, h.fail("lseek", err)
	}
	size, err := h.size(ctx)
	switch {
	case err != nil:
		return 0, h.fail("lseek", err)
	case off < 0 || off >= size:
		return 0, h.fail("lseek", syscall.ENXIO)
	case whence == seekHole:
		return size, nil
	}
	return off, nil
}

// copyChunk is how much CopyTo reads at a time, in bytes.
const copyChunk = 1 << 20

// smallCopy is up to how many bytes are sent to a slow backend, if they are
// known, rather than that it is asked to copy and waited for.
const smallCopy = 64 << 10

// CopyTo copies n bytes at off to the offset dstOff of dst, on the backend's
// side where it can and it is worth it, and returns how many it copied: fewer at
// the end of the file. EINVAL if the ranges overlap in one file:
// copy_file_range(2).
func (h *Handle) CopyTo(ctx context.Context, off int64, dst *Handle, dstOff, n int64) (int64, error) {
	switch {
	case !h.flags.Reads() || !dst.flags.Writes():
		return 0, h.fail("copy", syscall.EBADF)
	case off < 0 || dstOff < 0 || n < 0:
		return 0, h.fail("copy", syscall.EINVAL)
	case h.node == dst.node && off < dstOff+n && dstOff < off+n:
		return 0, h.fail("copy", syscall.EINVAL)
	}
	if h.knows(ctx, off, n) {
		copied, err := h.copyHere(ctx, off, dst, dstOff, n)
		return copied, h.fail("copy", err)
	}
	copied, err := h.copyThere(ctx, off, dst, dstOff, n)
	if errno := Errno(err); errno == syscall.EOPNOTSUPP || errno == syscall.EXDEV || errno == syscall.ENOSYS {
		copied, err = h.copyHere(ctx, off, dst, dstOff, n)
	}
	return copied, h.fail("copy", err)
}

// knows reports whether n bytes at off, or as many as there are, are few and in
// memory.
func (h *Handle) knows(ctx context.Context, off, n int64) bool {
	if h.content == nil {
		return false
	}
	size, err := h.size(ctx)
	n = min(n, size-off)
	return err == nil && n <= smallCopy && h.content.Holds(off, off+n)
}

// copyThere has the backend copy.
func (h *Handle) copyThere(ctx context.Context, off int64, dst *Handle, dstOff, n int64) (int64, error) {
	f, ok := h.file.(CopyFile)
	if !ok || dst.tree != h.tree || dst.flags.Has(syscall.O_APPEND) {
		return 0, syscall.EOPNOTSUPP
	}
	t := h.tree
	if err := t.flush(ctx, h.node); err != nil {
		return 0, err
	}
	dst.node.opMu.Lock()
	defer dst.node.opMu.Unlock()
	if err := t.flush(ctx, dst.node); err != nil {
		return 0, err
	}
	dst.dropPrivileges(ctx, dst.willChange())
	copied, err := f.CopyRange(ctx, off, dst.file, dstOff, n)
	if copied == 0 && err != nil {
		return 0, err
	}
	t.mu.Lock()
	t.changedLocked(dst.node)
	if t.traits.Slow {
		dst.node.attr.Size = max(dst.node.attr.Size, dstOff+copied)
	}
	t.unlock()
	if dst.content != nil {
		dst.content.Invalidate()
	}
	t.publish(dst.door, Event{Node: dst.node, Kind: ContentChanged})
	return copied, err
}

// copyHere reads and writes.
func (h *Handle) copyHere(ctx context.Context, off int64, dst *Handle, dstOff, n int64) (int64, error) {
	buf := make([]byte, min(n, copyChunk))
	var copied int64
	for copied < n {
		got, err := h.ReadAt(ctx, buf[:min(n-copied, copyChunk)], off+copied)
		if got > 0 {
			wrote, err := dst.WriteAt(ctx, buf[:got], dstOff+copied)
			copied += int64(wrote)
			if err != nil {
				return copied, err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return copied, err
		}
	}
	return copied, nil
}

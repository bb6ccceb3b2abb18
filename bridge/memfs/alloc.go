package memfs

import (
	"context"
	"io"
	"syscall"

	"sftpbridge/bridge"
)

// The modes of fallocate(2).
const (
	keepSize  = 0x01
	punchHole = 0x02
	zeroRange = 0x10
)

// Allocate is fallocate(2) with its modes of allocating, punching a hole and
// zeroing, the first and last with and without KEEP_SIZE; EOPNOTSUPP for the
// others. ENOSPC leaves everything as it was.
func (f *file) Allocate(ctx context.Context, mode uint32, off, n int64) error {
	if err := f.check(ctx, f.flags.Writes()); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return syscall.EINVAL
	}
	if off > maxSize-n {
		return syscall.EFBIG
	}
	end := off + n
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	switch mode {
	case 0, keepSize, zeroRange, zeroRange | keepSize:
		if !f.n.data.reserve(&f.fs.space, off, end) {
			return syscall.ENOSPC
		}
		if mode&zeroRange != 0 {
			f.n.data.zero(off, end)
		}
	case punchHole | keepSize:
		f.n.data.punch(&f.fs.space, off, end)
	default:
		return syscall.EOPNOTSUPP
	}
	if mode&keepSize != 0 {
		end = 0
	}
	f.n.modifiedLocked(end)
	return nil
}

// CopyRange copies n bytes to dst. Holes are not kept. EXDEV if dst is of
// another FS, EBADF if it appends, EINVAL if the ranges are of one file and
// overlap. When ctx ends or there is no more space, it returns what it had
// copied until then, if that was anything.
func (f *file) CopyRange(ctx context.Context, off int64, dst bridge.File, dstOff, n int64) (int64, error) {
	to, ok := dst.(*file)
	if !ok || to.fs != f.fs {
		return 0, syscall.EXDEV
	}
	if to.flags.Has(syscall.O_APPEND) {
		return 0, syscall.EBADF
	}
	if off < 0 || dstOff < 0 || n < 0 {
		return 0, syscall.EINVAL
	}
	if off > maxSize-n || dstOff > maxSize-n {
		return 0, syscall.EFBIG
	}
	if f.n == to.n && off < dstOff+n && dstOff < off+n {
		return 0, syscall.EINVAL
	}
	buf := make([]byte, min(n, 4*chunkSize))
	var done int64
	for done < n {
		piece := buf[:min(n-done, int64(len(buf)))]
		got, rerr := f.ReadAt(ctx, piece, off+done)
		put, werr := to.WriteAt(ctx, piece[:got], dstOff+done)
		done += int64(put)
		switch {
		case werr != nil && done == 0:
			return 0, werr
		case werr != nil:
			return done, nil
		case rerr != nil && done == 0 && rerr == io.EOF:
			return 0, nil
		case rerr != nil && done == 0:
			return 0, rerr
		case rerr != nil:
			return done, nil
		}
	}
	return done, nil
}

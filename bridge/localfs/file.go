package localfs

import (
	"context"
	"io"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// A File is an open regular file.
type File struct {
	fd     int
	append bool
	closed atomic.Bool
}

var _ interface {
	bridge.File
	bridge.FDFile
	bridge.CopyFile
	bridge.AllocateFile
	bridge.SeekFile
} = (*File)(nil)

// FD returns the descriptor, which is valid until Close.
func (f *File) FD() int { return f.fd }

// ReadAt fills p from the offset off.
func (f *File) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		if err := ctxErr(ctx); err != nil {
			return done, err
		}
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

// WriteAt writes all of p at the offset off, or at the end of a file that was
// opened with O_APPEND, where Linux has pwrite(2) ignore the offset.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		if err := ctxErr(ctx); err != nil {
			return done, err
		}
		n, err := unix.Pwrite(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, syscall.EIO
		}
		done += n
	}
	return done, nil
}

// Attr returns the attributes of the open file.
func (f *File) Attr(ctx context.Context) (bridge.Attr, error) {
	if err := ctxErr(ctx); err != nil {
		return bridge.Attr{}, err
	}
	return fstat(f.fd)
}

// SetAttr changes attributes. EINVAL for the size of a file that is not open
// for writing.
func (f *File) SetAttr(ctx context.Context, attr bridge.SetAttr) error {
	if err := ctxErr(ctx); err != nil {
		return err
	}
	return setAttr(f.fd, attr)
}

// Sync is fsync(2).
func (f *File) Sync(ctx context.Context) error {
	if err := ctxErr(ctx); err != nil {
		return err
	}
	return retry(func() error { return unix.Fsync(f.fd) })
}

// Close closes the descriptor, whatever it returns.
func (f *File) Close(ctx context.Context) error {
	if f.closed.Swap(true) {
		return syscall.EBADF
	}
	// Linux has closed the descriptor when it returns EINTR.
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR {
		return err
	}
	return nil
}

// copyChunk is how much is copied in one system call, which cannot be
// cancelled, in bytes.
const copyChunk = 64 << 20

// CopyRange is copy_file_range(2). EXDEV if dst is not a file of this package,
// EBADF if it appends.
func (f *File) CopyRange(ctx context.Context, off int64, dst bridge.File, dstOff, n int64) (int64, error) {
	d, ok := dst.(*File)
	switch {
	case !ok:
		return 0, syscall.EXDEV
	case d.append:
		return 0, syscall.EBADF
	case n < 0:
		return 0, syscall.EINVAL
	}
	var done int64
	for done < n {
		if err := ctxErr(ctx); err != nil {
			return done, err
		}
		// The kernel moves both offsets on.
		c, err := unix.CopyFileRange(f.fd, &off, d.fd, &dstOff, int(min(n-done, copyChunk)), 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOSYS:
			return done, syscall.EOPNOTSUPP
		case err != nil:
			return done, err
		case c == 0:
			return done, nil
		}
		done += int64(c)
	}
	return done, nil
}

// Allocate is fallocate(2).
func (f *File) Allocate(ctx context.Context, mode uint32, off, n int64) error {
	return retry(func() error {
		if err := ctxErr(ctx); err != nil {
			return err
		}
		return unix.Fallocate(f.fd, mode, off, n)
	})
}

// Seek returns the next offset in data or in a hole.
func (f *File) Seek(ctx context.Context, off int64, whence int) (int64, error) {
	if err := ctxErr(ctx); err != nil {
		return 0, err
	}
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	return unix.Seek(f.fd, off, whence)
}

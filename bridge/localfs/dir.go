package localfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"iter"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// dirBuf is the size of one batch of a listing, in bytes.
const dirBuf = 32 << 10

// A Dir is a directory that is held open.
type Dir struct{ fd int }

// OpenDir returns the directory name. A symbolic link is ENOTDIR.
func (fs *FS) OpenDir(ctx context.Context, name string) (bridge.Dir, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	fd, err := fs.openDir(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	return &Dir{fd}, nil
}

// Attr returns the attributes of the directory.
func (d *Dir) Attr(ctx context.Context) (bridge.Attr, error) {
	if err := ctxErr(ctx); err != nil {
		return bridge.Attr{}, err
	}
	return fstat(d.fd)
}

// Lstat returns the attributes of the entry name. EINVAL for what cannot be the
// name of one, such as a path or "..".
func (d *Dir) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	if err := check(ctx, name); err != nil {
		return bridge.Attr{}, err
	}
	if name == "." || strings.IndexByte(name, '/') >= 0 {
		return bridge.Attr{}, syscall.EINVAL
	}
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return bridge.Attr{}, err
	}
	return attrOf(&st), nil
}

// Close closes the directory.
func (d *Dir) Close() error { return unix.Close(d.fd) }

// ReadDir yields the entries of the directory with their types, if the host's
// file system tells them, and no other attributes.
func (fs *FS) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		if err := fs.readDir(ctx, name, yield); err != nil {
			yield(bridge.DirEntry{}, err)
		}
	}
}

// readDir yields the entries until there are no more or yield has enough.
func (fs *FS) readDir(ctx context.Context, name string, yield func(bridge.DirEntry, error) bool) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	fd, err := fs.openDir(name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := fs.bufs.Get().(*[dirBuf]byte)
	defer fs.bufs.Put(buf)
	for {
		var n int
		err := retry(func() (err error) { n, err = unix.ReadDirent(fd, buf[:]); return })
		if err != nil || n == 0 {
			return err
		}
		for name, typ := range direntsOf(buf[:n]) {
			if !yield(bridge.DirEntry{Name: name, Attr: bridge.Attr{Mode: typ}}, nil) {
				return nil
			}
		}
		if err := ctxErr(ctx); err != nil {
			return err
		}
	}
}

// Where the fields of struct linux_dirent64 are (getdents64(2)).
const (
	direntReclen = 16
	direntType   = 18
	direntName   = 19
)

// direntsOf yields the names in what getdents64(2) returned, without "." and
// "..", and their file types (S_IFMT), 0 where they are not told.
func direntsOf(buf []byte) iter.Seq2[string, uint32] {
	return func(yield func(string, uint32) bool) {
		for len(buf) > direntName {
			n := int(binary.NativeEndian.Uint16(buf[direntReclen:]))
			if n <= direntName || n > len(buf) {
				return
			}
			name, _, _ := bytes.Cut(buf[direntName:n], []byte{0})
			typ := uint32(buf[direntType]) << 12 // DT_x is S_IFx >> 12
			buf = buf[n:]
			if s := string(name); s != "." && s != ".." && !yield(s, typ) {
				return
			}
		}
	}
}

// Package localfs is a backend that keeps its files in a local directory.
//
// # Confinement
//
// The directory is opened once, by New. From then on every name is resolved
// by the kernel beneath that descriptor (openat2(2) with RESOLVE_BENEATH,
// RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS), and an operation then works
// on a descriptor, or on one last element of a name in a directory that is
// held open. No path of the host is ever put together, so that somebody who
// swaps directories and symbolic links while operations go on cannot take them
// out of the directory, and deep trees do not run into the limit on the length
// of absolute paths. Mount points beneath the directory are part of the tree.
//
// If the directory is renamed or removed on the host, the FS stays with it.
// The one thing that takes an operation outside is somebody with the right to
// do so moving a directory out while an operation in it is under way.
//
// # Modes and owners
//
// What is made begins with permissions for its owner alone, and then gets the
// owner and the mode that were asked for: the umask of the process, the set-gid
// bit of the directory and default ACLs change nothing, and there is no moment
// at which a file with a set-id bit belongs to the wrong user. If the owner cannot
// be had, because the process is not root, nothing is made (EPERM).
//
// # Special files
//
// Open is for regular files and opens without blocking: a fifo without
// somebody at its other end does not hold it up.
package localfs

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// An FS is a local directory as a backend.
type FS struct {
	root  atomic.Int64 // an O_PATH descriptor, or -1 when closed
	watch watcher
	bufs  sync.Pool // of *[dirBuf]byte, for listings
}

var _ interface {
	bridge.Backend
	bridge.SymlinkBackend
	bridge.LinkBackend
	bridge.MknodBackend
	bridge.StatFSBackend
	bridge.XattrBackend
	bridge.WatchBackend
	bridge.DirBackend
} = (*FS)(nil)

// New returns the directory dir of the host as a backend. It is an error if
// dir is not a directory, or if the kernel cannot resolve names beneath a
// directory (Linux before 5.6).
func New(dir string) (*FS, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open directory", Path: dir, Err: err}
	}
	fs := &FS{}
	fs.root.Store(int64(fd))
	fs.bufs.New = func() any { return new([dirBuf]byte) }
	probe, err := fs.open(".", unix.O_PATH, 0)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("resolve names beneath %s with openat2(2): %w", dir, err)
	}
	unix.Close(probe)
	return fs, nil
}

// Traits says that inodes have identities and times are exact.
func (fs *FS) Traits() bridge.Traits {
	return bridge.Traits{FileIDs: true, Subsecond: true}
}

// Close closes the directory, and ends Watch with EBADF. No other method may
// be under way. Open files stay open.
func (fs *FS) Close() error {
	fd := int(fs.root.Swap(-1))
	if fd < 0 {
		return syscall.EBADF
	}
	fs.watch.close()
	return unix.Close(fd)
}

// Lstat returns the attributes of name.
func (fs *FS) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	if name == "." {
		if err := ctxErr(ctx); err != nil {
			return bridge.Attr{}, err
		}
		return fstat(int(fs.root.Load()))
	}
	d, err := fs.parent(ctx, name)
	if err != nil {
		return bridge.Attr{}, err
	}
	defer d.close()
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return bridge.Attr{}, err
	}
	return attrOf(&st), nil
}

// Remove removes a name that is not a directory (EISDIR).
func (fs *FS) Remove(ctx context.Context, name string) error {
	d, err := fs.parent(ctx, name)
	if err != nil {
		return err
	}
	defer d.close()
	return unix.Unlinkat(d.fd, d.name, 0)
}

// Rmdir removes the empty directory name (ENOTEMPTY, ENOTDIR; EBUSY for the
// root and for mount points).
func (fs *FS) Rmdir(ctx context.Context, name string) error {
	if name == "." {
		return syscall.EBUSY
	}
	d, err := fs.parent(ctx, name)
	if err != nil {
		return err
	}
	defer d.close()
	return unix.Unlinkat(d.fd, d.name, unix.AT_REMOVEDIR)
}

// Rename is renameat2(2). EXDEV between mount points; EINVAL for flags that
// the host's file system lacks.
func (fs *FS) Rename(ctx context.Context, from, to string, flags bridge.RenameFlags) error {
	if flags&^(bridge.RenameNoReplace|bridge.RenameExchange) != 0 {
		return syscall.EINVAL
	}
	old, new, err := fs.parents(ctx, from, to)
	if err != nil {
		return err
	}
	defer old.close()
	defer new.close()
	return unix.Renameat2(old.fd, old.name, new.fd, new.name, uint(flags))
}

// Link gives the file old the further name new. EPERM if old is a directory.
func (fs *FS) Link(ctx context.Context, old, new string) error {
	o, n, err := fs.parents(ctx, old, new)
	if err != nil {
		return err
	}
	defer o.close()
	defer n.close()
	return unix.Linkat(o.fd, o.name, n.fd, n.name, 0)
}

// Readlink returns the target of the symbolic link name (EINVAL).
func (fs *FS) Readlink(ctx context.Context, name string) (string, error) {
	d, err := fs.parent(ctx, name)
	if err != nil {
		return "", err
	}
	defer d.close()
	var buf [bridge.PathMax + 1]byte
	n, err := unix.Readlinkat(d.fd, d.name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// StatFS tells of the file system that name is on.
func (fs *FS) StatFS(ctx context.Context, name string) (bridge.StatFS, error) {
	n, err := fs.inode(ctx, name)
	if err != nil {
		return bridge.StatFS{}, err
	}
	defer n.close()
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(n.fd, &st) }); err != nil {
		return bridge.StatFS{}, err
	}
	return statFSOf(&st), nil
}

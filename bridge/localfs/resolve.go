package localfs

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// beneath is how every name is resolved.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// maxAgain bounds how often a resolution is tried again that a rename got in
// the way of.
const maxAgain = 128

// open opens the name, which was checked, beneath the root. It returns the
// errno as openat2(2) gives it: a symbolic link anywhere is ELOOP.
func (fs *FS) open(name string, flags uint64, mode uint32) (int, error) {
	root := int(fs.root.Load())
	if len(name) > bridge.PathMax {
		return openDeep(root, name, flags, mode)
	}
	return openBeneath(root, name, flags, mode)
}

// openDeep opens a name that is longer than a path can be, step by step.
func openDeep(dir int, name string, flags uint64, mode uint32) (int, error) {
	last := strings.LastIndexByte(name[:bridge.PathMax+1], '/')
	if last < 0 {
		return -1, syscall.ENAMETOOLONG
	}
	next, err := openBeneath(dir, name[:last], unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(next)
	if name = name[last+1:]; len(name) > bridge.PathMax {
		return openDeep(next, name, flags, mode)
	}
	return openBeneath(next, name, flags, mode)
}

// openBeneath opens a name beneath the directory dir.
func openBeneath(dir int, name string, flags uint64, mode uint32) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Mode:    uint64(mode),
		Resolve: beneath,
	}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_LARGEFILE
	}
	for again := 0; ; again++ {
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case err == nil:
			return fd, nil
		case err == unix.EINTR:
		case err == unix.EAGAIN && again < maxAgain:
		default:
			return -1, err
		}
	}
}

// openDir opens the directory name. A symbolic link, at the end too, is
// ENOTDIR.
func (fs *FS) openDir(name string, flags uint64) (int, error) {
	fd, err := fs.open(name, flags|unix.O_DIRECTORY, 0)
	return fd, noLink(err)
}

// noLink gives the errno for a symbolic link in the middle of a name.
func noLink(err error) error {
	if err == unix.ELOOP || err == unix.EXDEV {
		return syscall.ENOTDIR
	}
	return err
}

// A place is a directory that is held open and a name in it. The name is "."
// for the root itself, and else neither that nor "..".
type place struct {
	fd    int
	name  string
	owned bool // fd is closed with the place
}

func (p place) close() {
	if p.owned {
		unix.Close(p.fd)
	}
}

// parent returns the directory that name is in, and its last element.
func (fs *FS) parent(ctx context.Context, name string) (place, error) {
	if err := check(ctx, name); err != nil {
		return place{}, err
	}
	i := strings.LastIndexByte(name, '/')
	if i < 0 {
		return place{fd: int(fs.root.Load()), name: name}, nil
	}
	fd, err := fs.openDir(name[:i], unix.O_PATH)
	if err != nil {
		return place{}, err
	}
	return place{fd, name[i+1:], true}, nil
}

// parents is parent for two names, which share one descriptor if they are in
// one directory.
func (fs *FS) parents(ctx context.Context, a, b string) (pa, pb place, err error) {
	if err := check(ctx, b); err != nil {
		return place{}, place{}, err
	}
	pa, err = fs.parent(ctx, a)
	if err != nil {
		return place{}, place{}, err
	}
	i := strings.LastIndexByte(b, '/')
	if j := strings.LastIndexByte(a, '/'); i == j && a[:i+1] == b[:i+1] {
		return pa, place{fd: pa.fd, name: b[i+1:]}, nil
	}
	pb, err = fs.parent(ctx, b)
	if err != nil {
		pa.close()
		return place{}, place{}, err
	}
	return pa, pb, nil
}

// An inode is an O_PATH descriptor of a file of any type.
type inode struct {
	fd    int
	owned bool // fd is closed with the inode
}

func (n inode) close() {
	if n.owned {
		unix.Close(n.fd)
	}
}

// path is a name of the inode for the system calls that take no O_PATH
// descriptor. It leads to that inode and nowhere else, also if it is a
// symbolic link.
func (n inode) path() string { return fmt.Sprintf("/proc/self/fd/%d", n.fd) }

// inode returns the inode of name, which may be a symbolic link.
func (fs *FS) inode(ctx context.Context, name string) (inode, error) {
	if err := check(ctx, name); err != nil {
		return inode{}, err
	}
	if name == "." {
		return inode{fd: int(fs.root.Load())}, nil
	}
	fd, err := fs.open(name, unix.O_PATH, 0)
	if err != nil {
		return inode{}, noLink(err)
	}
	return inode{fd, true}, nil
}

// check returns an error if ctx has ended or name is not one of the form that
// io/fs.ValidPath accepts, but for bytes that are not UTF-8, which the names of
// a host may well have.
func check(ctx context.Context, name string) error {
	if err := ctxErr(ctx); err != nil {
		return err
	}
	return checkName(name)
}

// ctxErr returns an error that wraps an errno if ctx has ended.
func ctxErr(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bridge.Errno(err), err)
	}
	return nil
}

// checkName returns EINVAL for a name that is not valid, and ENAMETOOLONG for
// one that is too long as a whole; the kernel sees to the length of elements.
func checkName(name string) error {
	switch {
	case name == ".":
		return nil
	case len(name) > bridge.DepthMax:
		return syscall.ENAMETOOLONG
	case strings.IndexByte(name, 0) >= 0:
		return syscall.EINVAL
	}
	for {
		elem, rest, more := strings.Cut(name, "/")
		if elem == "" || elem == "." || elem == ".." {
			return syscall.EINVAL
		}
		if !more {
			return nil
		}
		name = rest
	}
}

// retry calls f until a signal does not interrupt it.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

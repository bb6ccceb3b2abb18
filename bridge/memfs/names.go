package memfs

import (
	"context"
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

// walkLocked returns the inode of name. FS.mu is held.
func (fs *FS) walkLocked(name string) (*inode, error) {
	if name == "." {
		return fs.root, nil
	}
	dir, base, err := fs.parentLocked(name)
	if err != nil {
		return nil, err
	}
	n, ok := dir.entries[base]
	if !ok {
		return nil, syscall.ENOENT
	}
	return n, nil
}

// parentLocked returns the directory that name is in, and its last element.
// FS.mu is held.
func (fs *FS) parentLocked(name string) (*inode, string, error) {
	if len(name) > bridge.DepthMax {
		return nil, "", syscall.ENAMETOOLONG
	}
	dir := fs.root
	for {
		elem, rest, more := strings.Cut(name, "/")
		if err := checkElem(elem); err != nil {
			return nil, "", err
		}
		if !more {
			return dir, elem, nil
		}
		next, ok := dir.entries[elem]
		if !ok {
			return nil, "", syscall.ENOENT
		}
		if !next.isDir() {
			return nil, "", syscall.ENOTDIR
		}
		dir, name = next, rest
	}
}

// checkElem returns the errno for what is not a name in a directory.
func checkElem(elem string) error {
	switch {
	case elem == "" || elem == "." || elem == ".." || strings.IndexByte(elem, 0) >= 0:
		return syscall.EINVAL
	case len(elem) > bridge.NameMax:
		return syscall.ENAMETOOLONG
	}
	return nil
}

// makeLocked gives a new inode its name, EEXIST if that is taken. FS.mu is held.
func (fs *FS) makeLocked(name string, build func() *inode) (*inode, error) {
	if name == "." {
		return nil, syscall.EEXIST
	}
	dir, base, err := fs.parentLocked(name)
	if err != nil {
		return nil, err
	}
	if _, ok := dir.entries[base]; ok {
		return nil, syscall.EEXIST
	}
	n := build()
	n.attr.Nlink = 1
	if n.isDir() {
		n.attr.Nlink = 2
		n.parent = dir
	}
	dir.entries[base] = n
	dir.changed(n.subdirs())
	return n, nil
}

// make is makeLocked with the lock, for those that need nothing else.
func (fs *FS) make(ctx context.Context, name string, build func() *inode) error {
	if err := alive(ctx); err != nil {
		return err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	_, err := fs.makeLocked(name, build)
	return err
}

// Open opens or makes a regular file as bridge.Backend says. ENXIO for special
// files. O_TRUNC truncates also a file that is opened for reading.
func (fs *FS) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	if flags&syscall.O_ACCMODE == syscall.O_ACCMODE {
		return nil, syscall.EINVAL
	}
	n, err := fs.openInode(name, flags, attr)
	if err != nil {
		return nil, err
	}
	return &file{fs: fs, n: n, flags: flags}, nil
}

// openInode returns the inode of a file to open, counted as open.
func (fs *FS) openInode(name string, flags bridge.OpenFlags, attr bridge.SetAttr) (*inode, error) {
	if flags.Has(syscall.O_CREAT) {
		fs.mu.Lock()
		defer fs.mu.Unlock()
	} else {
		fs.mu.RLock()
		defer fs.mu.RUnlock()
	}
	n, err := fs.walkLocked(name)
	switch {
	case err == syscall.ENOENT && flags.Has(syscall.O_CREAT):
		n, err = fs.makeLocked(name, func() *inode {
			return fs.newInode(syscall.S_IFREG, 0o644, attr)
		})
		if err != nil {
			return nil, err
		}
		n.open()
		return n, nil
	case err != nil:
		return nil, err
	case flags.Has(syscall.O_CREAT | syscall.O_EXCL):
		return nil, syscall.EEXIST
	}
	if err := n.openable(); err != nil {
		return nil, err
	}
	if flags.Has(syscall.O_TRUNC) {
		if err := n.setAttr(&fs.space, bridge.SetAttr{Valid: bridge.SetSize}); err != nil {
			return nil, err
		}
	}
	n.open()
	return n, nil
}

// openable returns the errno for opening what is not a regular file.
func (n *inode) openable() error {
	switch n.typ {
	case syscall.S_IFREG:
		return nil
	case syscall.S_IFDIR:
		return syscall.EISDIR
	case syscall.S_IFLNK:
		return syscall.ELOOP
	}
	return syscall.ENXIO
}

// Mkdir makes a directory, with the mode 0755 if attr has none.
func (fs *FS) Mkdir(ctx context.Context, name string, attr bridge.SetAttr) error {
	return fs.make(ctx, name, func() *inode {
		return fs.newInode(syscall.S_IFDIR, 0o755, attr)
	})
}

// Mknod makes a special file or a regular one. EPERM for a directory and
// EINVAL for what is no type of file.
func (fs *FS) Mknod(ctx context.Context, name string, mode, rdev uint32, attr bridge.SetAttr) error {
	typ := mode & syscall.S_IFMT
	switch typ {
	case syscall.S_IFBLK, syscall.S_IFCHR:
	case syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK:
		rdev = 0
	case 0:
		typ, rdev = syscall.S_IFREG, 0
	case syscall.S_IFDIR:
		return syscall.EPERM
	default:
		return syscall.EINVAL
	}
	return fs.make(ctx, name, func() *inode {
		n := fs.newInode(typ, mode, attr.Without(bridge.SetMode))
		n.attr.Rdev = rdev
		return n
	})
}

// Symlink makes a symbolic link. As on Linux, ENOENT for an empty target and
// ENAMETOOLONG for one that is no path any more.
func (fs *FS) Symlink(ctx context.Context, target, name string, attr bridge.SetAttr) error {
	switch {
	case target == "":
		return syscall.ENOENT
	case len(target) > bridge.PathMax:
		return syscall.ENAMETOOLONG
	case strings.IndexByte(target, 0) >= 0:
		return syscall.EINVAL
	}
	return fs.make(ctx, name, func() *inode {
		n := fs.newInode(syscall.S_IFLNK, 0o777, attr.Without(bridge.SetMode))
		n.target = target
		n.attr.Size = int64(len(target))
		return n
	})
}

// Readlink returns the target of a symbolic link, EINVAL for another file.
func (fs *FS) Readlink(ctx context.Context, name string) (string, error) {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return "", err
	}
	if n.typ != syscall.S_IFLNK {
		return "", syscall.EINVAL
	}
	return n.target, nil
}

// Link gives a file a further name. EPERM for a directory.
func (fs *FS) Link(ctx context.Context, old, new string) error {
	if err := alive(ctx); err != nil {
		return err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.walkLocked(old)
	if err != nil {
		return err
	}
	if new == "." {
		return syscall.EEXIST
	}
	dir, base, err := fs.parentLocked(new)
	if err != nil {
		return err
	}
	if _, ok := dir.entries[base]; ok {
		return syscall.EEXIST
	}
	if n.isDir() {
		return syscall.EPERM
	}
	dir.entries[base] = n
	n.link()
	dir.changed(0)
	return nil
}

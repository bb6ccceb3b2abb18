package memfs

import (
	"context"
	"syscall"

	"sftpbridge/bridge"
)

// Remove removes a name that is not a directory.
func (fs *FS) Remove(ctx context.Context, name string) error {
	return fs.remove(ctx, name, func(n *inode) error {
		if n.isDir() {
			return syscall.EISDIR
		}
		return nil
	})
}

// Rmdir removes an empty directory. EBUSY for the root.
func (fs *FS) Rmdir(ctx context.Context, name string) error {
	return fs.remove(ctx, name, func(n *inode) error {
		switch {
		case !n.isDir():
			return syscall.ENOTDIR
		case n == fs.root:
			return syscall.EBUSY
		case len(n.entries) > 0:
			return syscall.ENOTEMPTY
		}
		return nil
	})
}

// remove removes name if may, called with FS.mu held, has no errno for it.
func (fs *FS) remove(ctx context.Context, name string, may func(*inode) error) error {
	if err := alive(ctx); err != nil {
		return err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	n, err := fs.walkLocked(name)
	if err != nil {
		return err
	}
	if err := may(n); err != nil {
		return err
	}
	dir, base, err := fs.parentLocked(name)
	if err != nil {
		return err
	}
	delete(dir.entries, base)
	dir.changed(-n.subdirs())
	fs.dropLocked(n)
	return nil
}

// dropLocked takes away the link of n that was removed from a directory.
// FS.mu is held.
func (fs *FS) dropLocked(n *inode) {
	n.parent = nil
	fs.unlink(n)
}

// subdirs returns how many links n adds to the directory that it is in.
func (n *inode) subdirs() int {
	if n.isDir() {
		return 1
	}
	return 0
}

// A place is a name in a directory and what it means, or nil.
type place struct {
	dir  *inode
	base string
	n    *inode
}

// Rename renames as renameat2(2) does, with RenameNoReplace and
// RenameExchange. EBUSY for the root.
func (fs *FS) Rename(ctx context.Context, from, to string, flags bridge.RenameFlags) error {
	if err := alive(ctx); err != nil {
		return err
	}
	const known = bridge.RenameNoReplace | bridge.RenameExchange
	if flags&^known != 0 || flags == known {
		return syscall.EINVAL
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	old, err := fs.placeLocked(from)
	if err != nil {
		return err
	}
	new, err := fs.placeLocked(to)
	if err != nil {
		return err
	}
	if err := old.mayBecome(new, flags); err != nil {
		return err
	}
	if old.n == new.n {
		return nil // two names of one file: both stay
	}
	if flags == bridge.RenameExchange {
		exchange(old, new)
		return nil
	}
	fs.replaceLocked(old, new)
	return nil
}

// placeLocked returns the place of name. FS.mu is held.
func (fs *FS) placeLocked(name string) (place, error) {
	if name == "." {
		return place{}, syscall.EBUSY
	}
	dir, base, err := fs.parentLocked(name)
	if err != nil {
		return place{}, err
	}
	return place{dir, base, dir.entries[base]}, nil
}

// mayBecome returns the errno for a rename that cannot be. FS.mu is held.
func (p place) mayBecome(to place, flags bridge.RenameFlags) error {
	exchange := flags == bridge.RenameExchange
	switch {
	case p.n == nil:
		return syscall.ENOENT
	case flags == bridge.RenameNoReplace && to.n != nil:
		return syscall.EEXIST
	case exchange && to.n == nil:
		return syscall.ENOENT
	case p.n.contains(to.dir):
		return syscall.EINVAL
	case exchange && to.n.contains(p.dir):
		return syscall.EINVAL
	case exchange || to.n == nil || to.n == p.n:
		return nil
	case to.n.contains(p.dir):
		return syscall.ENOTEMPTY
	case p.n.isDir() && !to.n.isDir():
		return syscall.ENOTDIR
	case !p.n.isDir() && to.n.isDir():
		return syscall.EISDIR
	case to.n.isDir() && len(to.n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	return nil
}

// contains reports whether dir is n or below it. FS.mu is held.
func (n *inode) contains(dir *inode) bool {
	for ; dir != nil; dir = dir.parent {
		if dir == n {
			return true
		}
	}
	return false
}

// replaceLocked moves old to new, and drops what was there. FS.mu is held.
func (fs *FS) replaceLocked(old, new place) {
	delete(old.dir.entries, old.base)
	new.dir.entries[new.base] = old.n
	old.dir.changed(-old.n.subdirs())
	gained := old.n.subdirs()
	if new.n != nil {
		gained -= new.n.subdirs()
		fs.dropLocked(new.n)
	}
	new.dir.changed(gained)
	old.n.movedTo(new.dir)
}

// exchange has the two places swap what they mean. FS.mu is held.
func exchange(a, b place) {
	a.dir.entries[a.base], b.dir.entries[b.base] = b.n, a.n
	a.dir.changed(b.n.subdirs() - a.n.subdirs())
	b.dir.changed(a.n.subdirs() - b.n.subdirs())
	a.n.movedTo(b.dir)
	b.n.movedTo(a.dir)
}

// movedTo notes that n is in dir now. FS.mu is held.
func (n *inode) movedTo(dir *inode) {
	if n.isDir() {
		n.parent = dir
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attr.Ctime = now()
}

package bridge

import (
	"context"
	"errors"
	"syscall"
	"time"
)

// Mkdir makes the directory name in dir with the permissions of attr (set-id
// bits are left out, as by mkdir(2)), from
// which the door has taken the umask. EEXIST, EACCES, EROFS.
func (t *Tree) Mkdir(ctx context.Context, c Caller, dir *Node, name string, attr SetAttr) (*Node, Attr, error) {
	ctx = t.as(ctx, c)
	n, a, err := t.makeEntry(ctx, c, dir, name, syscall.S_IFDIR|attr.Mode&0o1777, OpCreate,
		func(path string, attr SetAttr) (Attr, error) {
			if b, ok := t.backend.(MkdirAttrBackend); ok {
				return b.MkdirAttr(ctx, path, attr)
			}
			return Attr{}, t.backend.Mkdir(ctx, path, attr)
		})
	if err == nil && t.traits.Slow {
		t.knowEmpty(n)
	}
	return n, a, t.fail("mkdir", dir, name, err)
}

// knowEmpty notes that nothing is in a directory that we just made.
func (t *Tree) knowEmpty(n *Node) {
	stamp, until := t.now()
	t.mu.Lock()
	if len(n.children) == 0 && n.changes == 0 {
		n.listing = newListing(nil, stamp, until)
	}
	t.unlock()
}

// Mknod makes a file of the type and with the permissions of mode. Devices can
// be made by root only (EPERM).
func (t *Tree) Mknod(ctx context.Context, c Caller, dir *Node, name string, mode, rdev uint32) (*Node, Attr, error) {
	ctx = t.as(ctx, c)
	mk := func(path string, attr SetAttr) (Attr, error) {
		if b, ok := t.backend.(MknodBackend); ok {
			return Attr{}, b.Mknod(ctx, path, mode&syscall.S_IFMT|attr.Mode&0o7777, rdev, attr)
		}
		if mode&syscall.S_IFMT != syscall.S_IFREG {
			return Attr{}, syscall.EPERM
		}
		f, err := t.backend.Open(ctx, path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, attr)
		if err != nil {
			return Attr{}, err
		}
		return Attr{}, f.Close(ctx)
	}
	switch mode & syscall.S_IFMT {
	case 0:
		mode |= syscall.S_IFREG
	case syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK:
	case syscall.S_IFBLK, syscall.S_IFCHR:
		if !c.Cred.IsRoot() {
			return nil, Attr{}, t.fail("mknod", dir, name, syscall.EPERM)
		}
	case syscall.S_IFDIR:
		return nil, Attr{}, t.fail("mknod", dir, name, syscall.EPERM)
	default:
		return nil, Attr{}, t.fail("mknod", dir, name, syscall.EINVAL)
	}
	n, a, err := t.makeEntry(ctx, c, dir, name, mode, OpCreate, mk)
	return n, a, t.fail("mknod", dir, name, err)
}

// Symlink makes the symbolic link name, which holds target as it is.
func (t *Tree) Symlink(ctx context.Context, c Caller, dir *Node, name, target string) (*Node, Attr, error) {
	ctx = t.as(ctx, c)
	switch {
	case target == "":
		return nil, Attr{}, t.fail("symlink", dir, name, syscall.ENOENT)
	case len(target) > PathMax:
		return nil, Attr{}, t.fail("symlink", dir, name, syscall.ENAMETOOLONG)
	}
	n, a, err := t.makeEntry(ctx, c, dir, name, syscall.S_IFLNK|0o777, OpCreate,
		func(path string, attr SetAttr) (Attr, error) {
			if t.symlinks == nil {
				return Attr{}, syscall.EPERM
			}
			return Attr{}, t.symlinks.Symlink(ctx, target, path, attr.Without(SetMode))
		})
	return n, a, t.fail("symlink", dir, name, err)
}

// makeEntry makes the entry name of dir by mk, which gets its name for the backend
// and its attributes and may tell what it has become, and returns the new node
// with a reference.
func (t *Tree) makeEntry(ctx context.Context, c Caller, dir *Node, name string, mode uint32, op Ops, mk func(path string, attr SetAttr) (Attr, error)) (*Node, Attr, error) {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	mu := t.entryLock(dir, name)
	mu.Lock()
	defer mu.Unlock()
	if err := t.checkFree(ctx, c, dir, name); err != nil {
		return nil, Attr{}, err
	}
	dirAttr, err := t.mayCreate(ctx, c, dir, name, op)
	if err != nil {
		return nil, Attr{}, err
	}
	path, err := t.pathOf(dir)
	if err != nil {
		return nil, Attr{}, err
	}
	stamp, until := t.now()
	a, err := mk(child(path, name), NewAttr(&c.Cred, dirAttr, mode))
	if err != nil {
		t.doubt(dir, name)
		return nil, Attr{}, err
	}
	if a.Type() == 0 {
		return t.made(ctx, c, dir, path, name)
	}
	t.mu.Lock()
	n, a := t.entryMadeLocked(dir, name, a, stamp, until)
	t.unlock()
	t.publish(c.Door, Event{Node: dir, Kind: EntryChanged, Name: name}, Event{Node: dir, Kind: AttrChanged})
	return n, a, nil
}

// checkFree returns EEXIST if dir has an entry name. The entry's lock is held.
func (t *Tree) checkFree(ctx context.Context, c Caller, dir *Node, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := t.reach(ctx, c, dir, name); err != nil {
		return err
	}
	if name == "." || name == ".." {
		return syscall.EEXIST
	}
	n, _, err := t.findLocked(ctx, dir, name, false)
	if err == nil {
		t.Forget(n, 1)
		return syscall.EEXIST
	}
	if Errno(err) != syscall.ENOENT {
		return err
	}
	return nil
}

// mayCreate returns an error unless the caller may put an entry name into dir.
func (t *Tree) mayCreate(ctx context.Context, c Caller, dir *Node, name string, op Ops) (Attr, error) {
	if err := t.mutable(c); err != nil {
		return Attr{}, err
	}
	a, err := t.permAttr(ctx, dir)
	if err != nil {
		return Attr{}, err
	}
	if err := CheckAccess(&c.Cred, a, MayWrite|MayExec); err != nil {
		return Attr{}, err
	}
	return a, t.allow(c, op, dir, name)
}

// entryMadeLocked takes up an entry that was just made and of which the backend
// told a, and returns its node with a reference.
func (t *Tree) entryMadeLocked(dir *Node, name string, a Attr, stamp uint64, until time.Time) (*Node, Attr) {
	n, _ := t.enterLocked(dir, name, a, stamp, until)
	t.refLocked(n)
	t.entryChangedLocked(dir, name, n)
	return n, t.shownLocked(n)
}

// made takes up an entry that was just made. path is that of dir.
func (t *Tree) made(ctx context.Context, c Caller, dir *Node, path, name string) (*Node, Attr, error) {
	t.mu.Lock()
	delete(dir.absent, name)
	t.unlock()
	n, a, err := t.ask(ctx, dir, path, name)
	if err != nil {
		t.doubt(dir, name)
		return nil, Attr{}, err
	}
	t.mu.Lock()
	t.entryChangedLocked(dir, name, n)
	t.unlock()
	t.publish(c.Door, Event{Node: dir, Kind: EntryChanged, Name: name}, Event{Node: dir, Kind: AttrChanged})
	return n, a, nil
}

// doubt forgets what was believed of an entry: a change of it went wrong, and
// may have been made or not.
func (t *Tree) doubt(dir *Node, name string) {
	t.mu.Lock()
	t.clock++
	dir.changes++
	dir.listing, dir.touched = nil, nil
	delete(dir.absent, name)
	if n := dir.children[name]; n != nil {
		n.gen = t.clock
		n.attrUntil, n.permUntil = time.Time{}, time.Time{}
	}
	t.unlock()
}

// Link gives n, which must not be a directory (EPERM), the further name name
// in dir, and returns its attributes.
func (t *Tree) Link(ctx context.Context, c Caller, n, dir *Node, name string) (Attr, error) {
	ctx = t.as(ctx, c)
	a, err := t.link(ctx, c, n, dir, name)
	return a, t.fail("link", dir, name, err)
}

func (t *Tree) link(ctx context.Context, c Caller, n, dir *Node, name string) (Attr, error) {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	mu := t.entryLock(dir, name)
	mu.Lock()
	defer mu.Unlock()
	if err := t.checkFree(ctx, c, dir, name); err != nil {
		return Attr{}, err
	}
	if err := t.mutable(c); err != nil {
		return Attr{}, err
	}
	a, err := t.attr(ctx, n)
	if err != nil {
		return Attr{}, err
	}
	if err := t.opt.Protected.CheckLink(&c.Cred, a); err != nil {
		return Attr{}, err
	}
	if _, err := t.mayCreate(ctx, c, dir, name, OpLink); err != nil {
		return Attr{}, err
	}
	if err := t.allow(c, OpLink, n, ""); err != nil {
		return Attr{}, err
	}
	if a.IsDir() || t.links == nil {
		return Attr{}, syscall.EPERM
	}
	old, err1 := t.pathOf(n)
	path, err2 := t.pathOf(dir)
	if err := errors.Join(err1, err2); err != nil {
		return Attr{}, syscall.ENOENT
	}
	if err := t.links.Link(ctx, old, child(path, name)); err != nil {
		t.doubt(dir, name)
		return Attr{}, err
	}
	t.mu.Lock()
	t.hangLocked(n, entry{dir, name})
	t.changedLocked(n)
	t.entryChangedLocked(dir, name, n)
	t.unlock()
	made, a, err := t.ask(ctx, dir, path, name)
	if err != nil {
		return Attr{}, err
	}
	t.Forget(made, 1)
	t.publish(c.Door, Event{Node: dir, Kind: EntryChanged, Name: name}, Event{Node: dir, Kind: AttrChanged}, Event{Node: n, Kind: AttrChanged})
	return a, nil
}

package bridge

import (
	"context"
	"syscall"
)

// Unlink removes the entry name of dir, which must not be a directory
// (EISDIR). The file lives on while it is open.
func (t *Tree) Unlink(ctx context.Context, c Caller, dir *Node, name string) error {
	ctx = t.as(ctx, c)
	if name == "." || name == ".." {
		return t.fail("unlink", dir, name, syscall.EISDIR)
	}
	return t.fail("unlink", dir, name, t.remove(ctx, c, dir, name, false))
}

// Rmdir removes the empty directory name of dir (ENOTEMPTY, ENOTDIR).
func (t *Tree) Rmdir(ctx context.Context, c Caller, dir *Node, name string) error {
	ctx = t.as(ctx, c)
	switch name {
	case ".":
		return t.fail("rmdir", dir, name, syscall.EINVAL)
	case "..":
		return t.fail("rmdir", dir, name, syscall.ENOTEMPTY)
	}
	return t.fail("rmdir", dir, name, t.remove(ctx, c, dir, name, true))
}

func (t *Tree) remove(ctx context.Context, c Caller, dir *Node, name string, isDir bool) error {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	mu := t.entryLock(dir, name)
	mu.Lock()
	defer mu.Unlock()
	if err := CheckName(name); err != nil {
		return err
	}
	if err := t.reach(ctx, c, dir, name); err != nil {
		return err
	}
	if err := t.mutable(c); err != nil {
		return err
	}
	n, a, ok := t.recallPerm(dir, name)
	if !ok {
		var err error
		if n, a, err = t.findLocked(ctx, dir, name, true); err != nil {
			return err
		}
	}
	defer t.Forget(n, 1)
	if err := t.mayRemove(ctx, c, dir, name, a); err != nil {
		return err
	}
	if err := checkKind(a, isDir); err != nil {
		return err
	}
	path, err := t.pathOf(dir)
	if err != nil {
		return err
	}
	t.openNow(ctx, n)
	t.mu.Lock()
	if isDir || a.Nlink <= 1 {
		t.forgetIDLocked(n)
	}
	t.unlock()
	if isDir {
		err = t.backend.Rmdir(ctx, child(path, name))
	} else {
		err = t.backend.Remove(ctx, child(path, name))
	}
	if err != nil {
		t.mu.Lock()
		t.rememberIDLocked(n)
		t.unlock()
		t.doubt(dir, name)
		return err
	}
	t.mu.Lock()
	t.changedLocked(n)
	t.unhangLocked(n, entry{dir, name})
	t.entryChangedLocked(dir, name, nil)
	t.unlock()
	t.publish(c.Door, Event{Node: dir, Kind: EntryGone, Name: name, Child: n},
		Event{Node: dir, Kind: AttrChanged}, Event{Node: n, Kind: AttrChanged})
	return nil
}

// checkKind returns an error unless a is a directory just when it should be.
func checkKind(a Attr, isDir bool) error {
	switch {
	case isDir && !a.IsDir():
		return syscall.ENOTDIR
	case !isDir && a.IsDir():
		return syscall.EISDIR
	}
	return nil
}

// mayRemove returns an error unless the caller may take the entry name, which
// has the attributes victim, out of dir.
func (t *Tree) mayRemove(ctx context.Context, c Caller, dir *Node, name string, victim Attr) error {
	if err := t.mayTake(ctx, c, dir, victim); err != nil {
		return err
	}
	return t.allow(c, OpDelete, dir, name)
}

func (t *Tree) mayTake(ctx context.Context, c Caller, dir *Node, victim Attr) error {
	a, err := t.permAttr(ctx, dir)
	if err != nil {
		return err
	}
	return CheckDelete(&c.Cred, a, victim)
}

package bridge

import (
	"context"
	"syscall"
)

// A renaming is one side of a rename: an entry and what it is now.
type renaming struct {
	entry
	node *Node // with a reference; nil if there is nothing
	attr Attr
}

// Rename gives the entry name of dir the name newName in newDir, as
// renameat2(2): what is there is replaced; with RenameNoReplace that is
// EEXIST; with RenameExchange both change places.
func (t *Tree) Rename(ctx context.Context, c Caller, dir *Node, name string, newDir *Node, newName string, flags RenameFlags) error {
	ctx = t.as(ctx, c)
	t.renameMu.Lock()
	defer t.renameMu.Unlock()
	err := t.rename(ctx, c, entry{dir, name}, entry{newDir, newName}, flags)
	if err == nil && t.watch != nil {
		t.watch.renamed(newDir, newName)
		if flags&RenameExchange != 0 {
			t.watch.renamed(dir, name)
		}
	}
	return t.fail("rename", dir, name, err)
}

// rename is Rename with renameMu held.
func (t *Tree) rename(ctx context.Context, c Caller, from, to entry, flags RenameFlags) error {
	if flags&^(RenameNoReplace|RenameExchange) != 0 || flags == RenameNoReplace|RenameExchange {
		return syscall.EINVAL
	}
	for _, e := range []entry{from, to} {
		if err := t.reach(ctx, c, e.dir, e.name); err != nil {
			return err
		}
	}
	if err := CheckName(from.name); err != nil {
		return err
	}
	if isDots(from.name) || isDots(to.name) {
		if flags&RenameNoReplace != 0 && isDots(to.name) {
			return syscall.EEXIST
		}
		return syscall.EBUSY
	}
	if err := t.mutable(c); err != nil {
		return err
	}
	src, dst, err := t.renamings(ctx, from, to, flags)
	if err != nil {
		return err
	}
	defer t.Forget(src.node, 1)
	if dst.node != nil {
		defer t.Forget(dst.node, 1)
	}
	if src.node == dst.node {
		return nil // rename(2): two names of one file
	}
	if err := t.mayRename(ctx, c, src, dst, flags); err != nil {
		return err
	}
	oldDir, err := t.pathOf(from.dir)
	if err != nil {
		return err
	}
	newDir, err := t.pathOf(to.dir)
	if err != nil {
		return err
	}
	if dst.node != nil {
		t.openNow(ctx, dst.node)
	}
	t.lateMu.Lock()
	defer t.lateMu.Unlock()
	if err := t.backend.Rename(ctx, child(oldDir, from.name), child(newDir, to.name), flags); err != nil {
		t.doubt(from.dir, from.name)
		t.doubt(to.dir, to.name)
		return err
	}
	t.moved(c.Door, src, dst, flags)
	return nil
}

func isDots(name string) bool { return name == "." || name == ".." }

// renamings finds what a rename is about, and whether it can be at all.
func (t *Tree) renamings(ctx context.Context, from, to entry, flags RenameFlags) (src, dst renaming, err error) {
	src.entry, dst.entry = from, to
	if src.node, src.attr, err = t.findPerm(ctx, from.dir, from.name); err != nil {
		return src, dst, err
	}
	defer func() {
		if err != nil {
			t.Forget(src.node, 1)
			if dst.node != nil {
				t.Forget(dst.node, 1)
			}
		}
	}()
	if err = CheckName(to.name); err != nil {
		return src, dst, err
	}
	dst.node, dst.attr, err = t.findPerm(ctx, to.dir, to.name)
	switch {
	case Errno(err) == syscall.ENOENT && flags&RenameExchange == 0:
		dst.node = nil
	case err != nil:
		dst.node = nil
		return src, dst, err
	case flags&RenameNoReplace != 0:
		return src, dst, syscall.EEXIST
	}
	if t.within(to.dir, src.node) {
		return src, dst, syscall.EINVAL
	}
	if dst.node != nil && t.within(from.dir, dst.node) {
		if flags&RenameExchange != 0 {
			return src, dst, syscall.EINVAL
		}
		return src, dst, syscall.ENOTEMPTY
	}
	return src, dst, nil
}

// within reports whether n is dir or somewhere below it.
func (t *Tree) within(n, dir *Node) bool {
	t.mu.Lock()
	defer t.unlock()
	for n != dir {
		if n.id == rootID || len(n.names) == 0 {
			return false
		}
		n = n.names[0].dir
	}
	return true
}

// mayRename checks what vfs_rename of Linux checks, in its order.
func (t *Tree) mayRename(ctx context.Context, c Caller, src, dst renaming, flags RenameFlags) error {
	if err := t.mayTake(ctx, c, src.dir, src.attr); err != nil {
		return err
	}
	exchange := flags&RenameExchange != 0
	switch {
	case dst.node == nil:
		if _, err := t.mayCreate(ctx, c, dst.dir, dst.name, OpRename); err != nil {
			return err
		}
	default:
		if err := t.mayTake(ctx, c, dst.dir, dst.attr); err != nil {
			return err
		}
		if !exchange {
			if err := checkKind(dst.attr, src.attr.IsDir()); err != nil {
				return err
			}
		}
	}
	if src.dir != dst.dir {
		// A directory that gets another parent has its ".." changed.
		if src.attr.IsDir() {
			if err := CheckAccess(&c.Cred, src.attr, MayWrite); err != nil {
				return err
			}
		}
		if exchange && dst.attr.IsDir() {
			if err := CheckAccess(&c.Cred, dst.attr, MayWrite); err != nil {
				return err
			}
		}
	}
	if err := t.allow(c, OpRename, src.dir, src.name); err != nil {
		return err
	}
	if dst.node != nil && !exchange {
		if err := t.allow(c, OpOverwrite, dst.dir, dst.name); err != nil {
			return err
		}
	}
	return t.allow(c, OpRename, dst.dir, dst.name)
}

// moved makes the names what they are after a rename, and tells of it.
func (t *Tree) moved(d Door, src, dst renaming, flags RenameFlags) {
	t.mu.Lock()
	t.changedLocked(src.node)
	t.unhangLocked(src.node, src.entry)
	if dst.node != nil {
		t.changedLocked(dst.node)
		t.unhangLocked(dst.node, dst.entry)
	}
	t.hangLocked(src.node, dst.entry)
	t.entryChangedLocked(src.dir, src.name, nil)
	if flags&RenameExchange != 0 {
		t.hangLocked(dst.node, src.entry)
		t.entryChangedLocked(src.dir, src.name, dst.node)
	}
	t.entryChangedLocked(dst.dir, dst.name, src.node)
	t.unlock()
	events := []Event{
		{Node: src.dir, Kind: EntryChanged, Name: src.name},
		{Node: dst.dir, Kind: EntryChanged, Name: dst.name},
		{Node: src.dir, Kind: AttrChanged},
		{Node: dst.dir, Kind: AttrChanged},
		{Node: src.node, Kind: AttrChanged},
	}
	if dst.node != nil {
		events = append(events, Event{Node: dst.node, Kind: AttrChanged})
	}
	t.publish(d, events...)
}

package bridge

import (
	"context"
	"syscall"
)

// look returns the directory dir of the backend, for attributes of several of
// its entries, or nil if these have to be asked for one by one. That the caller
// may search it was found out of the directory that is returned itself.
//
// What it tells of gets no node: on a backend that is not slow there is nothing
// to remember of it. It is used for one answer, or for requests that had all
// come before, and is closed then.
func (t *Tree) look(ctx context.Context, c Caller, dir *Node) (Dir, error) {
	if t.dirs == nil || len(c.Rules) > 0 {
		return nil, nil
	}
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	path, err := t.pathOf(dir)
	if err != nil {
		return nil, err
	}
	d, err := t.dirs.OpenDir(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := maySearch(ctx, c, dir, d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// maySearch returns an error unless d is the directory of the node n and the
// caller may search it.
func maySearch(ctx context.Context, c Caller, n *Node, d Dir) error {
	a, err := d.Attr(ctx)
	if err != nil {
		return err
	}
	if a.Type() != n.typ || a.ID != n.fileID {
		return syscall.ENOENT
	}
	if c.Cred.IsRoot() {
		return nil
	}
	return CheckAccess(&c.Cred, a, MayExec)
}

// A DirLook looks up entries of a listing for one answer.
type DirLook struct {
	d      *DirHandle
	caller Caller
	dir    Dir // nil if entries are looked up one by one
}

// Look begins to look up entries. It is to be closed.
func (d *DirHandle) Look(ctx context.Context, c Caller) *DirLook {
	dir, err := d.tree.look(ctx, c, d.node)
	if err != nil {
		dir = nil // it is found out for each entry what there is to tell
	}
	return &DirLook{d, c, dir}
}

// Lookup is that of the DirHandle.
func (l *DirLook) Lookup(ctx context.Context, e DirEntry) (*Node, Attr, error) {
	if l.dir == nil || isDots(e.Name) {
		return l.d.Lookup(ctx, l.caller, e)
	}
	t, dir := l.d.tree, l.d.node
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	mu := t.entryLock(dir, e.Name)
	mu.Lock()
	defer mu.Unlock()
	stamp, until := t.now()
	a, err := l.dir.Lstat(ctx, e.Name)
	n, a, err := t.answer(dir, e.Name, a, err, stamp, until)
	return n, a, t.fail("lookup", dir, e.Name, err)
}

// Attr is Lookup without the node, of which nothing is remembered.
func (l *DirLook) Attr(ctx context.Context, e DirEntry) (Attr, error) {
	if l.dir != nil {
		a, err := l.dir.Lstat(ctx, e.Name)
		return a, l.d.tree.fail("lookup", l.d.node, e.Name, err)
	}
	n, a, err := l.d.Lookup(ctx, l.caller, e)
	if err == nil {
		l.d.tree.Forget(n, 1)
	}
	return a, err
}

// Close ends it.
func (l *DirLook) Close() {
	if l.dir != nil {
		l.dir.Close()
	}
}

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

package bridge

import (
	"context"
	"strings"
)

// A viewBatch resolves the directory that several paths have in common once.
type viewBatch struct {
	v      *View
	prefix string // what the paths begin with, up to their last slash
	dir    Dir    // where that leads; nil if it is not known
}

var _ AttrBatch = (*viewBatch)(nil)

// AttrBatch implements AttrBatcher.
func (v *View) AttrBatch() AttrBatch { return &viewBatch{v: v} }

// GetAttrs implements AttrBatch. Whatever is not simply an entry of the directory
// is left to GetAttrs of the view.
func (b *viewBatch) GetAttrs(ctx context.Context, path string, followLinks bool) (Attr, error) {
	prefix, name := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	if isDots(name) || name == "" || len(path) > PathMax || !b.enter(ctx, prefix) {
		return b.v.GetAttrs(ctx, path, followLinks)
	}
	a, err := b.dir.Lstat(ctx, name)
	if err != nil || followLinks && a.IsSymlink() {
		return b.v.GetAttrs(ctx, path, followLinks)
	}
	return a, nil
}

// enter goes to the directory that a prefix leads to, and reports whether it is
// there and the avatar may search it.
func (b *viewBatch) enter(ctx context.Context, prefix string) bool {
	if b.v.tree.dirs == nil || b.dir != nil && b.prefix == prefix {
		return b.dir != nil
	}
	b.Close()
	w, _, err := b.v.walk(ctx, prefix+".", followLast) // a link at the end of the prefix is on the way
	if err != nil {
		return false
	}
	defer w.close()
	dir, err := b.v.tree.look(ctx, b.v.caller, w.top().node)
	if err != nil || dir == nil {
		return false
	}
	b.prefix, b.dir = prefix, dir
	return true
}

// Close implements AttrBatch.
func (b *viewBatch) Close() {
	if b.dir != nil {
		b.dir.Close()
		b.dir = nil
	}
}

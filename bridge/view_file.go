package bridge

import (
	"context"
	"syscall"
)

// A viewFile is a file that a view opened.
type viewFile struct {
	v *View
	h *Handle
}

var _ interface {
	ServerFile
	SyncFile
	StatFSFile
	CopyToFile
} = (*viewFile)(nil)

func (f *viewFile) ReadChunk(ctx context.Context, p []byte, off int64) (int, error) {
	return f.h.ReadAt(ctx, p, off)
}

func (f *viewFile) WriteChunk(ctx context.Context, p []byte, off int64) error {
	_, err := f.h.WriteAt(ctx, p, off)
	f.v.settle(ctx)
	return err
}

func (f *viewFile) GetAttrs(ctx context.Context) (Attr, error) { return f.h.Attr(ctx) }

func (f *viewFile) SetAttrs(ctx context.Context, attr SetAttr) error {
	_, err := f.h.SetAttrAs(ctx, f.v.caller, attr)
	f.v.settle(ctx)
	return err
}

func (f *viewFile) Close(ctx context.Context) error { return f.h.Close(ctx) }

func (f *viewFile) Sync(ctx context.Context) error { return f.h.Sync(ctx) }

func (f *viewFile) StatFS(ctx context.Context) (StatFS, error) {
	return f.v.tree.StatFS(ctx, f.v.caller, f.h.Node())
}

// maxCopy is what one call of Handle.CopyTo is asked for, so that a copy can be
// cancelled.
const maxCopy = 64 << 20

// CopyTo copies to another file of the same tree; EINVAL for any other.
func (f *viewFile) CopyTo(ctx context.Context, off, n int64, dst ServerFile, dstOff int64) error {
	to, ok := dst.(*viewFile)
	if !ok || to.v.tree != f.v.tree || to.h.Node() == f.h.Node() || off < 0 || n < 0 || dstOff < 0 {
		return &Error{Op: "copy", Errno: syscall.EINVAL}
	}
	defer f.v.settle(ctx)
	for toEnd := n == 0; toEnd || n > 0; {
		part := int64(maxCopy)
		if !toEnd {
			part = min(part, n)
		}
		copied, err := f.h.CopyTo(ctx, off, to.h, dstOff, part)
		if err != nil || copied == 0 {
			return err
		}
		off, dstOff, n = off+copied, dstOff+copied, n-copied
	}
	return nil
}

package bridge

import (
	"context"
	"iter"
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

// A viewDir is a listing under way.
type viewDir struct {
	v      *View
	d      *DirHandle
	dotdot Attr
}

var _ ServerDir = (*viewDir)(nil)

// OpenDirectory implements Server. The names are those of one moment, as far as
// the backend gives one, the attributes those of when they are yielded; what is
// gone by then is left out. Without search permission on the directory there is no more to tell of an
// entry than its type.
func (v *View) OpenDirectory(ctx context.Context, path string) (ServerDir, error) {
	w, _, err := v.walk(ctx, path, followLast)
	if err != nil {
		return nil, err
	}
	defer w.close()
	d := &viewDir{v: v}
	a, err := w.attr(ctx)
	if err != nil {
		return nil, err
	}
	if !a.IsDir() {
		return nil, v.fail("opendir", path, syscall.ENOTDIR)
	}
	// The directory above the avatar's root is not the avatar's to see.
	if d.dotdot, err = w.attrAt(ctx, max(0, len(w.steps)-2)); err != nil {
		return nil, err
	}
	if d.d, err = v.tree.OpenDir(ctx, v.caller, w.top().node); err != nil {
		return nil, err
	}
	return d, nil
}

// listBatch is how many entries are taken from the tree's listing at a time, so
// that nothing is held while they are on their way to a client.
const listBatch = 128

// maxGone is how many entries in a row are left out because they are gone. Who
// lists more names that are not there gets them shown, lest a request for
// some entries takes for ever.
const maxGone = 500

func (d *viewDir) Entries(ctx context.Context) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		gone := 0 // in a row
		for off := uint64(0); ; {
			batch, err := d.batch(ctx, off)
			off += uint64(len(batch))
			d.d.Passed(off)
			for _, e := range batch {
				whole, ok, err := d.complete(ctx, e)
				switch {
				case ok:
					gone = 0
				case e.Name != "" && gone < maxGone:
					gone++
				case e.Name != "":
					whole, ok = DirEntry{Name: e.Name, Attr: Attr{Mode: e.Attr.Type()}}, true
				}
				if (ok || err != nil) && (!yield(whole, err) || err != nil) {
					return
				}
			}
			if err != nil {
				yield(DirEntry{}, err)
				return
			}
			if len(batch) < listBatch {
				return
			}
		}
	}
}

// batch returns some entries from the place off on; fewer than listBatch are
// the last.
func (d *viewDir) batch(ctx context.Context, off uint64) (batch []DirEntry, err error) {
	for e, err := range d.d.Entries(ctx, off) {
		if err != nil {
			return batch, err
		}
		if batch = append(batch, e); len(batch) == listBatch {
			break
		}
	}
	return batch, nil
}

// complete returns the entry e with all attributes that the avatar may see;
// not ok if it is none, or gone.
func (d *viewDir) complete(ctx context.Context, e DirEntry) (entry DirEntry, ok bool, err error) {
	switch e.Name {
	case "": // hidden by rules
		return e, false, nil
	case ".":
		return e, true, nil
	case "..":
		return DirEntry{Name: "..", Attr: d.dotdot, Full: true}, true, nil
	}
	n, a, err := d.d.Lookup(ctx, d.v.caller, e)
	switch Errno(err) {
	case 0:
		d.v.tree.Forget(n, 1)
		return DirEntry{Name: e.Name, Attr: a, Full: true}, true, nil
	case syscall.ENOENT:
		return DirEntry{}, false, nil
	case syscall.EACCES:
		return DirEntry{Name: e.Name, Attr: Attr{Mode: e.Attr.Type()}}, true, nil
	}
	return DirEntry{}, false, err
}

func (d *viewDir) Close() error { return d.d.Close() }

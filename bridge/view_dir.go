package bridge

import (
	"context"
	"iter"
	"syscall"
)

// A viewDir is a listing under way.
type viewDir struct {
	v      *View
	d      *DirHandle
	dotdot Attr
	off    uint64 // the place in the listing of the tree that comes next
	gone   int    // entries in a row that were left out
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
// that nothing is held while they are on their way to a client: as many as the
// SFTP door puts into an answer.
const listBatch = 100

// maxGone is how many entries in a row are left out because they are gone. Who
// lists more names that are not there gets them shown, lest a request for
// some entries takes for ever.
const maxGone = 500

// Entries implements ServerDir.
func (d *viewDir) Entries(ctx context.Context) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		look := d.d.Look(ctx, d.v.caller)
		defer look.Close()
		for more := true; more; {
			batch, err := d.batch(ctx)
			if !d.yield(ctx, look, batch, yield) {
				return
			}
			if err != nil {
				yield(DirEntry{}, err)
				return
			}
			more = len(batch) == listBatch
		}
	}
}

// yield yields the entries of a batch, and reports whether to go on.
func (d *viewDir) yield(ctx context.Context, look *DirLook, batch []DirEntry, yield func(DirEntry, error) bool) bool {
	defer func() { d.d.Passed(d.off) }()
	for _, e := range batch {
		d.off++
		whole, ok, err := d.complete(ctx, look, e)
		switch {
		case ok:
			d.gone = 0
		case e.Name != "" && d.gone < maxGone:
			d.gone++
		case e.Name != "":
			whole, ok = DirEntry{Name: e.Name, Attr: Attr{Mode: e.Attr.Type()}}, true
		}
		if (ok || err != nil) && (!yield(whole, err) || err != nil) {
			return false
		}
	}
	return true
}

// batch returns the next entries; fewer than listBatch are the last.
func (d *viewDir) batch(ctx context.Context) (batch []DirEntry, err error) {
	batch = make([]DirEntry, 0, listBatch)
	for e, err := range d.d.Entries(ctx, d.off) {
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
func (d *viewDir) complete(ctx context.Context, look *DirLook, e DirEntry) (entry DirEntry, ok bool, err error) {
	switch e.Name {
	case "": // hidden by rules
		return e, false, nil
	case ".":
		return e, true, nil
	case "..":
		return DirEntry{Name: "..", Attr: d.dotdot, Full: true}, true, nil
	}
	a, err := look.Attr(ctx, e)
	switch Errno(err) {
	case 0:
		return DirEntry{Name: e.Name, Attr: a, Full: true}, true, nil
	case syscall.ENOENT:
		return DirEntry{}, false, nil
	case syscall.EACCES:
		return DirEntry{Name: e.Name, Attr: Attr{Mode: e.Attr.Type()}}, true, nil
	}
	return DirEntry{}, false, err
}

func (d *viewDir) Close() error { return d.d.Close() }

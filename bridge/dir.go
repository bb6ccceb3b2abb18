package bridge

import (
	"context"
	"iter"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A DirHandle is a listing under way: of one moment, as far as the backend
// gives one, until Rewind begins another.
type DirHandle struct {
	tree   *Tree
	node   *Node
	caller Caller

	mu      sync.Mutex // held while the backend lists: one listing at a time
	entries []DirEntry // guarded by mu; those that were listed, "." and ".." first, but for the
	dropped uint64     // first of them, which nobody asks for again. guarded by mu
	next    func() (DirEntry, error, bool)
	stop    func()
	cancel  context.CancelFunc
	started bool
	done    bool  // guarded by mu; entries are all
	failed  error // guarded by mu; why there are no more
	stamp   uint64
	changes uint64
	until   time.Time
}

// OpenDir begins a listing of dir. The caller needs read permission on it
// (EACCES, ENOTDIR).
func (t *Tree) OpenDir(ctx context.Context, c Caller, dir *Node) (*DirHandle, error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	d, err := t.openDir(ctx, c, dir)
	return d, t.fail("opendir", dir, "", err)
}

func (t *Tree) openDir(ctx context.Context, c Caller, dir *Node) (*DirHandle, error) {
	if dir.typ != syscall.S_IFDIR {
		return nil, syscall.ENOTDIR
	}
	a, err := t.permAttr(ctx, dir)
	if err != nil {
		return nil, err
	}
	if err := CheckAccess(&c.Cred, a, MayRead); err != nil {
		return nil, err
	}
	if err := t.allow(c, OpList, dir, ""); err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.refLocked(dir)
	t.unlock()
	return &DirHandle{tree: t, node: dir, caller: c}, nil
}

// Node returns the directory, which lives as long as the handle.
func (d *DirHandle) Node() *Node { return d.node }

// Entries yields the entries from the place off on: 0 is ".", 1 is "..", and
// the entry after that at off is at off+1. The attributes of an entry may be
// no more than its type (Full is false). What the caller's rules hide has an
// empty name, and is to be passed over.
func (d *DirHandle) Entries(ctx context.Context, off uint64) iter.Seq2[DirEntry, error] {
	return func(yield func(DirEntry, error) bool) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if off < d.dropped {
			d.rewind()
		}
		if err := d.start(ctx); err != nil {
			yield(DirEntry{}, d.tree.fail("readdir", d.node, "", err))
			return
		}
		for i := off; ; i++ {
			more, err := d.fill(ctx, i)
			if err != nil {
				yield(DirEntry{}, d.tree.fail("readdir", d.node, "", err))
				return
			}
			if !more || !yield(d.entries[i-d.dropped], nil) {
				return
			}
		}
	}
}

// Passed says that the entries before the place off are hardly asked for again,
// so that a listing without end needs no memory without end. Who asks for them
// all the same has the directory listed again.
func (d *DirHandle) Passed(off uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case off <= d.dropped || off-d.dropped > uint64(len(d.entries)):
		return
	case !d.done && d.tree.traits.Slow && off <= maxListing: // keep may want them
		return
	}
	// What is dropped is freed when the rest needs more room, or is all.
	if d.entries = d.entries[off-d.dropped:]; len(d.entries) == 0 && d.done {
		d.entries = nil
	}
	d.dropped = off
}

// start begins the listing if it has not begun. mu is held.
func (d *DirHandle) start(ctx context.Context) error {
	if d.started {
		return nil
	}
	t := d.tree
	if t.traits.Slow {
		t.ahead.wait(ctx, d.node)
		t.walkAhead(d.node)
	}
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	path, err := t.pathOf(d.node)
	if Errno(err) == syscall.ENOENT {
		d.started, d.done = true, true // a removed directory is empty
		return nil
	}
	if t.watch != nil {
		t.watch.begin(d.node, path)
	}
	self, up := d.dots(ctx)
	d.entries, d.dropped = append(make([]DirEntry, 0, 64), self, up), 0
	d.started = true
	d.stamp, d.until = t.now()
	t.mu.Lock()
	l := t.listingLocked(d.node, time.Now())
	d.changes = d.node.changes
	t.unlock()
	if l != nil {
		d.fromListing(l)
		return nil
	}
	ctx, d.cancel = context.WithCancel(context.WithoutCancel(t.as(ctx, d.caller)))
	d.next, d.stop = iter.Pull2(t.backend.ReadDir(ctx, path))
	return nil
}

// dots returns the entries "." and "..". renameMu is held.
func (d *DirHandle) dots(ctx context.Context) (self, up DirEntry) {
	entry := func(name string, n *Node) DirEntry {
		a, err := d.tree.attr(ctx, n)
		if err != nil {
			a = Attr{Mode: syscall.S_IFDIR}
		}
		return DirEntry{Name: name, Attr: a, Full: err == nil}
	}
	d.tree.mu.Lock()
	parent := d.node
	if len(d.node.names) > 0 {
		parent = d.node.names[0].dir
	}
	d.tree.refLocked(parent)
	d.tree.unlock()
	defer d.tree.Forget(parent, 1)
	return entry(".", d.node), entry("..", parent)
}

// fromListing takes the entries from what is remembered.
func (d *DirHandle) fromListing(l *listing) {
	d.tree.mu.Lock()
	entries := l.entries
	l.shared = true
	d.tree.unlock()
	d.entries = slices.Grow(d.entries, len(entries))
	for _, e := range entries {
		if e.Name != "" {
			d.add(e)
		}
	}
	d.done = true
}

// add puts an entry at the end, unless the caller's rules hide it.
func (d *DirHandle) add(e DirEntry) {
	if d.tree.allow(d.caller, OpList, d.node, e.Name) != nil {
		e = DirEntry{}
	}
	d.entries = append(d.entries, e)
}

// fill lists until there is an entry at i, and reports whether there is one.
// A listing that failed goes on failing: what another one brings does not fit.
func (d *DirHandle) fill(ctx context.Context, i uint64) (bool, error) {
	for d.dropped+uint64(len(d.entries)) <= i && !d.done {
		e, err, ok := d.next()
		switch {
		case !ok:
			d.end()
			d.keep()
		case err != nil:
			d.end()
			d.failed = err
		default:
			d.add(e)
		}
	}
	if d.dropped+uint64(len(d.entries)) > i {
		return true, nil
	}
	return false, d.failed
}

// end ends the backend's listing. mu is held.
func (d *DirHandle) end() {
	d.done = true
	if d.stop != nil {
		d.stop()
		d.cancel()
		d.next, d.stop, d.cancel = nil, nil, nil
	}
}

// keep has the directory remember what a slow backend listed, unless we have
// changed the directory meanwhile.
func (d *DirHandle) keep() {
	t := d.tree
	if !t.traits.Slow || d.dropped > 0 || len(d.entries) > maxListing || len(d.caller.Rules) > 0 || t.opt.AttrTimeout == 0 {
		return
	}
	t.mu.Lock()
	defer t.unlock()
	if d.node.changes != d.changes {
		return
	}
	d.node.listing = newListing(slices.Clip(d.entries[2:]), d.stamp, d.until)
	d.node.listing.shared = true
	d.node.absent = nil
	for _, e := range d.entries[2:] {
		if n := d.node.children[e.Name]; n != nil && e.Full && n.sameLocked(e.Attr) {
			t.storeLocked(n, e.Attr, d.stamp, d.believed(e))
		}
	}
}

// Lookup is Tree.Lookup of an entry that Entries gave, with the attributes
// that came with it where they are still true.
func (d *DirHandle) Lookup(ctx context.Context, c Caller, e DirEntry) (*Node, Attr, error) {
	t := d.tree
	if !t.traits.Slow || !e.Full || isDots(e.Name) || len(c.Rules) > 0 {
		return t.Lookup(ctx, c, d.node, e.Name)
	}
	if err := t.search(ctx, c, d.node); err != nil {
		return nil, Attr{}, t.fail("lookup", d.node, e.Name, err)
	}
	t.mu.Lock()
	if until := d.believed(e); d.node.changes == d.changes && time.Now().Before(until) {
		n, _ := t.enterLocked(d.node, e.Name, e.Attr, d.stamp, until)
		t.refLocked(n)
		a := t.shownLocked(n)
		t.unlock()
		return n, a, nil
	}
	t.unlock()
	return t.Lookup(ctx, c, d.node, e.Name)
}

// believed returns up to when what came with the entry e is believed.
func (d *DirHandle) believed(e DirEntry) time.Time {
	if e.Asked.IsZero() {
		return d.until
	}
	return e.Asked.Add(d.tree.opt.AttrTimeout)
}

// Rewind has the next Entries see the directory as it is then.
func (d *DirHandle) Rewind() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rewind()
}

// rewind is Rewind with mu held.
func (d *DirHandle) rewind() {
	d.end()
	d.entries, d.dropped, d.started, d.done, d.failed = nil, 0, false, false, nil
}

// Close ends the listing.
func (d *DirHandle) Close() error {
	d.mu.Lock()
	d.end()
	d.mu.Unlock()
	d.tree.Forget(d.node, 1)
	return nil
}

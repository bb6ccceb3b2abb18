package bridge

import (
	"context"
	"io"
	"syscall"
	"time"
)

const (
	// sweepSize is the size up to which files are read ahead whole, in
	// bytes: that of one request.
	sweepSize = 128 << 10
	// sweepWindow is how many files are read ahead at most.
	sweepWindow = 64
	// sweepDirs is in how many directories, beside the one that is being
	// gone through, files are read ahead at most.
	sweepDirs = 4
)

// sweep takes up that n was opened for reading, and reads ahead the next files
// of its directory if files are being read one after the other, and of the
// directories that come next if it is not the first one.
func (t *Tree) sweep(n *Node) {
	t.mu.Lock()
	defer t.unlock()
	if len(n.names) == 0 {
		return
	}
	e := n.names[0]
	l := e.dir.listing // however old: reading a file tells its attributes
	if l == nil {
		return
	}
	r := &e.dir.files
	t.walkAheadLocked(e.dir, walkedNext)
	t.carryOnLocked(e, l)
	ahead := r.follow(l, e.name, sweepWindow)
	if r.window == 0 {
		return
	}
	if !t.sweepLocked(e.dir, l, ahead, r.ahead) {
		return
	}
	t.sweepOnLocked(e.dir, r, r.window-len(ahead))
}

// sweepLocked reads ahead for p small files among entries of the listing l of
// dir. It returns false when enough is under way.
func (t *Tree) sweepLocked(dir *Node, l *listing, entries []DirEntry, p *pursuit) bool {
	for _, next := range entries {
		if !next.Full || !next.Attr.IsRegular() || next.Attr.Size > sweepSize {
			continue
		}
		f := t.childLocked(dir, next, l)
		if f.typ != syscall.S_IFREG || f.aheadOf(f.attr) || len(f.handles) > 0 {
			continue
		}
		if f.content == nil {
			f.content = t.cache.NewFile()
		}
		t.refLocked(f)
		if !t.ahead.start(f, func(ctx context.Context) { t.readWhole(ctx, f, p) }) {
			t.unrefLocked(f, 1)
			return false
		}
	}
	return true
}

// sweepOnLocked reads ahead the first files, some of them, of the directories
// that come after dir, in which files are read as r says, if directories beside it
// are being gone through.
func (t *Tree) sweepOnLocked(dir *Node, r *run, some int) {
	if len(dir.names) == 0 {
		return
	}
	e := dir.names[0]
	up := e.dir
	if up.listing == nil || up.dirs.last != e.name || up.dirs.length < minRun {
		return
	}
	now := time.Now()
	for _, next := range up.dirs.after(up.listing.directories(), sweepDirs) {
		if some <= 0 {
			return
		}
		d := t.childLocked(up, next, up.listing)
		l := t.listingLocked(d, now)
		if l == nil {
			t.startListingLocked(d, glance, r.ahead)
			return
		}
		first := l.inOrder(r.byName)
		first = first[:min(len(first), some)]
		if !t.sweepLocked(d, l, first, r.ahead) {
			return
		}
		some -= len(first)
	}
}

// carryOnLocked has the run of files in a directory, whose listing is l, carry on
// the one in the directory before it, if the file e is the first there.
func (t *Tree) carryOnLocked(e entry, l *listing) {
	dir := e.dir
	if len(dir.names) == 0 {
		return
	}
	up, name := dir.names[0].dir, dir.names[0].name
	was := up.children[up.swept]
	if up.swept == name {
		return
	}
	up.swept = name
	if was != nil && up.dirs.last == name && up.dirs.length >= minRun {
		dir.files.carryOn(was.files, l, e.name)
	}
}

// childLocked returns the node of an entry of the listing l of dir.
func (t *Tree) childLocked(dir *Node, e DirEntry, l *listing) *Node {
	if n := dir.children[e.Name]; n != nil {
		return n // which may know better
	}
	n, _ := t.enterLocked(dir, e.Name, e.Attr, l.stamp, l.until)
	return n
}

// An aheadState is what a file was when it was read ahead.
type aheadState struct {
	read  bool
	size  int64
	mtime time.Time
	gen   uint64
}

// aheadOf reports whether the content was read ahead when the attributes were
// a, and not changed by us since.
func (n *Node) aheadOf(a Attr) bool {
	s := n.whole
	return s.read && s.gen == n.gen && s.size == a.Size && s.mtime.Equal(a.Mtime)
}

// readWhole reads a small file into its cache, unless p is over. It gives back a
// reference.
func (t *Tree) readWhole(ctx context.Context, n *Node, p *pursuit) {
	defer t.Forget(n, 1)
	t.renameMu.RLock()
	t.mu.Lock()
	path, named := n.backendPathLocked()
	attr, gen, content := n.attr, n.gen, n.content
	t.unlock()
	if !named || p.over() {
		t.renameMu.RUnlock()
		return
	}
	version := content.Version()
	stamp, until := t.now()
	buf := make([]byte, min(attr.Size, sweepSize))
	file, got, err := t.openRead(ctx, path, buf)
	t.renameMu.RUnlock()
	if err != nil {
		return // who needs the file will see
	}
	defer file.Close(context.WithoutCancel(ctx))
	if a, ok := openedAttr(file); ok {
		t.mu.Lock()
		t.storeLocked(n, a, stamp, until)
		t.unlock()
		attr.Size, attr.Mtime = a.Size, a.Mtime
	}
	if attr.Size > sweepSize || int64(got) != attr.Size && p.over() {
		return
	}
	if int64(got) != attr.Size {
		buf = make([]byte, attr.Size)
		got, err = file.ReadAt(ctx, buf, 0)
		if err != nil && err != io.EOF || int64(got) != attr.Size {
			return
		}
	}
	content.FillVersion(buf[:got], 0, version)
	t.mu.Lock()
	t.readWholeLocked(n, attr, gen)
	t.unlock()
}

// readWholeLocked notes that all of n was read when it had the size and mtime of
// a and gen was that of our changes.
func (t *Tree) readWholeLocked(n *Node, a Attr, gen uint64) {
	if n.gen == gen && n.attr.Size == a.Size && n.attr.Mtime.Equal(a.Mtime) {
		n.whole = aheadState{true, a.Size, a.Mtime, gen}
	}
}

// openRead opens a file for reading and fills buf from its beginning, if the
// backend can do that at once: got is negative if not.
func (t *Tree) openRead(ctx context.Context, path string, buf []byte) (f File, got int, err error) {
	if b, ok := t.backend.(ReadOpenBackend); ok {
		return b.OpenRead(ctx, path, buf)
	}
	f, err = t.backend.Open(ctx, path, syscall.O_RDONLY, SetAttr{})
	return f, -1, err
}

// openedAttr returns the attributes that a file had when it was opened, if it
// knows them.
func openedAttr(f File) (Attr, bool) {
	o, ok := f.(OpenedFile)
	if !ok {
		return Attr{}, false
	}
	return o.Opened()
}

// openSmall opens n, which has the attributes a, for reading only, and takes up
// its content if it comes with that. nil if n is not to be opened like this.
// renameMu is held.
func (t *Tree) openSmall(ctx context.Context, n *Node, path string, a Attr, flags OpenFlags) (File, error) {
	if _, ok := t.backend.(ReadOpenBackend); !ok || flags.Writes() || flags.Has(syscall.O_TRUNC) || a.Size == 0 || a.Size > sweepSize {
		return nil, nil
	}
	t.mu.Lock()
	if n.content == nil {
		n.content = t.cache.NewFile()
	}
	gen, content := n.gen, n.content
	known := n.aheadOf(n.attr)
	t.unlock()
	if known {
		return nil, nil
	}
	version := content.Version()
	stamp, until := t.now()
	buf := make([]byte, a.Size)
	file, got, err := t.openRead(ctx, path, buf)
	if err != nil {
		return nil, err
	}
	a, ok := openedAttr(file)
	if !ok {
		return file, nil
	}
	t.mu.Lock()
	t.storeLocked(n, a, stamp, until)
	t.unlock()
	if int64(got) == a.Size {
		content.FillVersion(buf[:got], 0, version)
		t.mu.Lock()
		t.readWholeLocked(n, a, gen)
		t.unlock()
	}
	return file, nil
}

package bridge

import (
	"context"
	"io"
	"sync"
	"syscall"
	"time"
)

const (
	// sweepSize is the size up to which files are read ahead whole, in
	// bytes: that of one request.
	sweepSize = 128 << 10
	// sweepWindow is how many files are read ahead at most.
	sweepWindow = 64
)

// sweep takes up that n was opened for reading, and reads ahead the next files
// of its directory if files are being read one after the other.
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
	for _, next := range e.dir.files.follow(l, e.name, sweepWindow) {
		if !next.Full || !next.Attr.IsRegular() || next.Attr.Size > sweepSize {
			continue
		}
		f := t.childLocked(e.dir, next, l)
		if f.typ != syscall.S_IFREG || f.aheadOf(f.attr) || len(f.handles) > 0 {
			continue
		}
		if f.content == nil {
			f.content = t.cache.NewFile()
		}
		t.refLocked(f)
		if !t.ahead.start(f, func(ctx context.Context) { t.readWhole(ctx, f) }) {
			t.unrefLocked(f, 1)
			return
		}
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

// readWhole reads a small file into its cache. It gives back a reference.
func (t *Tree) readWhole(ctx context.Context, n *Node) {
	defer t.Forget(n, 1)
	t.renameMu.RLock()
	t.mu.Lock()
	path, named := n.backendPathLocked()
	attr, gen, content := n.attr, n.gen, n.content
	t.unlock()
	if !named {
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
	if attr.Size > sweepSize {
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

// openLater returns a file that is opened when it is needed, if n has been
// read ahead and nothing else is asked for than reading. renameMu is held.
func (t *Tree) openLater(n *Node, flags OpenFlags) File {
	if !t.traits.Slow || flags.Writes() || flags.Has(syscall.O_TRUNC) {
		return nil
	}
	t.mu.Lock()
	defer t.unlock()
	if !n.aheadOf(n.attr) || !time.Now().Before(n.attrUntil) {
		return nil
	}
	return &lateFile{tree: t, node: n}
}

// A lateFile is a file open for reading that the backend has not opened yet:
// its content has been read ahead, and chances are that nobody needs more.
type lateFile struct {
	tree *Tree
	node *Node

	mu   sync.Mutex
	file File // guarded by mu; nil until it is needed
}

// open opens the file in earnest. Before a name is removed or replaced, the
// files that are open under it are opened, since there is no other time.
func (l *lateFile) open(ctx context.Context) (File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		return l.file, nil
	}
	l.tree.lateMu.RLock()
	defer l.tree.lateMu.RUnlock()
	l.tree.mu.Lock()
	path, named := l.node.backendPathLocked()
	l.tree.unlock()
	if !named {
		return nil, syscall.ESTALE
	}
	f, err := l.tree.backend.Open(ctx, path, syscall.O_RDONLY, SetAttr{})
	if err == nil {
		l.file = f
	}
	return f, err
}

// openNow has the backend open all files that are open at n. renameMu is held.
func (t *Tree) openNow(ctx context.Context, n *Node) {
	t.mu.Lock()
	var late []*lateFile
	for h := range n.handles {
		if l, ok := h.file.(*lateFile); ok {
			late = append(late, l)
		}
	}
	t.unlock()
	for _, l := range late {
		if _, err := l.open(ctx); err != nil {
			t.log.Warn("an open file was lost when its name was removed", "path", n.path(""), "err", err)
		}
	}
}

func (l *lateFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	return f.ReadAt(ctx, p, off)
}

func (l *lateFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return 0, syscall.EBADF
}

func (l *lateFile) Attr(ctx context.Context) (Attr, error) {
	f, err := l.open(ctx)
	if err != nil {
		return Attr{}, err
	}
	return f.Attr(ctx)
}

func (l *lateFile) SetAttr(ctx context.Context, set SetAttr) error {
	f, err := l.open(ctx)
	if err != nil {
		return err
	}
	return f.SetAttr(ctx, set)
}

func (l *lateFile) Sync(ctx context.Context) error { return nil }

func (l *lateFile) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close(ctx)
}

// CopyRange implements CopyFile.
func (l *lateFile) CopyRange(ctx context.Context, off int64, dst File, dstOff, n int64) (int64, error) {
	f, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	c, ok := f.(CopyFile)
	if !ok {
		return 0, syscall.EOPNOTSUPP
	}
	return c.CopyRange(ctx, off, dst, dstOff, n)
}

package bridge_test

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"

	"sftpbridge/bridge"
)

// A holding is a backend that holds up what nobody waits for, opening and
// listing, until free is closed.
type holding struct {
	counting
	begun *atomic.Int64 // that were held up
	reads *atomic.Int64 // of files that were opened ahead
	free  chan struct{}
}

func newHolding(t *testing.T, dirs, files int) (holding, *bridge.Tree) {
	b := holding{newCounting(t, dirs, files), new(atomic.Int64), new(atomic.Int64), make(chan struct{})}
	return b, treeOf(t, b)
}

// hold waits unless ctx is a caller's, and reports whether it did.
func (b holding) hold(ctx context.Context) bool {
	if ctx.Value(callerKey{}) != nil {
		return false
	}
	b.begun.Add(1)
	<-b.free
	return true
}

func (b holding) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	held := b.hold(ctx)
	f, err := b.counting.Open(ctx, name, flags, attr)
	if held && err == nil {
		f = countingFile{f, b.reads}
	}
	return f, err
}

func (b holding) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		b.hold(ctx)
		b.counting.ReadDir(ctx, name)(yield)
	}
}

// TestTurningWalkDropsListings lists large directories one after the other, and
// then one that is far from them: those that are being listed ahead are listed no
// further than what comes at once.
func TestTurningWalkDropsListings(t *testing.T) {
	const dirs, files, glance = 40, 500, 200
	b, tree := newHolding(t, dirs, files)
	c := superuser(tree)
	names := listFor(t, tree, c, tree.Root())
	nodes := make([]*bridge.Node, dirs)
	for i, name := range names {
		nodes[i] = lookup(t, tree, c, tree.Root(), name)
	}
	listFor(t, tree, c, nodes[0])
	listFor(t, tree, c, nodes[1]) // it is a run
	ahead := int64(bridge.Fetching(tree))
	if ahead < 3 {
		t.Fatalf("%d directories are listed ahead", ahead)
	}
	listFor(t, tree, c, nodes[dirs-1])
	close(b.free)
	waitAhead(t, tree)
	if n, most := b.listed.Load(), dirs+3*files+ahead*(glance+1); n > most {
		t.Errorf("%d entries were listed, want at most %d: %d directories were listed ahead", n, most, ahead)
	}
	if got := len(listFor(t, tree, c, nodes[2])); got != files {
		t.Errorf("%d entries of a directory whose listing was dropped", got)
	}
}

// TestTurningReaderDropsFiles reads files one after the other, and then one that
// is far from them: of those that are being read ahead, what is not open yet is
// not read.
func TestTurningReaderDropsFiles(t *testing.T) {
	const files = 99
	b, tree := newHolding(t, 1, files)
	c := superuser(tree)
	dir := lookup(t, tree, c, tree.Root(), "d00")
	names := listFor(t, tree, c, dir)
	for _, i := range []int{0, 1} {
		readFor(t, tree, c, lookup(t, tree, c, dir, names[i]))
	}
	ahead := bridge.Fetching(tree)
	if ahead < 3 {
		t.Fatalf("%d files are read ahead", ahead)
	}
	readFor(t, tree, c, lookup(t, tree, c, dir, names[files-1]))
	close(b.free)
	waitAhead(t, tree)
	if n := b.reads.Load(); n > 0 {
		t.Errorf("%d of %d files that were being opened ahead were read", n, ahead)
	}
	if got, want := readFor(t, tree, c, lookup(t, tree, c, dir, names[2])), fmt.Sprintf("content of d00/%d", number(t, names[2])); got != want {
		t.Errorf("a file that was dropped: %q, want %q", got, want)
	}
}

// TestWandererDropsNothing goes to and fro among what is being listed ahead, as
// several walkers do that share the work: all of it goes on.
func TestWandererDropsNothing(t *testing.T) {
	const dirs, files = 12, 500
	b, tree := newHolding(t, dirs, files)
	c := superuser(tree)
	names := listFor(t, tree, c, tree.Root())
	for _, i := range []int{1, 2, 0} {
		listFor(t, tree, c, lookup(t, tree, c, tree.Root(), names[i]))
	}
	ahead := int64(bridge.Fetching(tree))
	close(b.free)
	waitAhead(t, tree)
	if n, want := b.listed.Load(), dirs+(3+ahead)*files; ahead < 3 || n != want {
		t.Errorf("%d entries were listed, want %d, of %d directories ahead", n, want, ahead)
	}
}

// TestFindAsksNoMore lists all directories and looks at nothing, as find does: the
// backend is asked for hardly more than that.
func TestFindAsksNoMore(t *testing.T) {
	const dirs, files = 100, 100
	b, tree := aheadTree(t, dirs, files)
	c := superuser(tree)
	looks := b.looks.Load()
	for _, name := range listFor(t, tree, c, tree.Root()) {
		listFor(t, tree, c, lookup(t, tree, c, tree.Root(), name))
	}
	waitAhead(t, tree)
	if n, want := b.listed.Load(), int64(dirs+dirs*files); n > want*11/10 {
		t.Errorf("%d entries were listed, of %d", n, want)
	}
	if n := b.looks.Load() - looks; n > dirs/10 {
		t.Errorf("%d entries were looked at", n)
	}
	if n := b.opened.Load(); n > 0 {
		t.Errorf("%d files were opened", n)
	}
}

// TestFewFilesOfMany reads one small file of a directory, and another, in no
// order: no other is read, and the directory is not listed but for what comes at
// once.
func TestFewFilesOfMany(t *testing.T) {
	const files, glance = 1000, 200
	b, tree := aheadTree(t, 1, files)
	c := superuser(tree)
	dir := lookup(t, tree, c, tree.Root(), "d00")
	for i, name := range []string{"f500", "f20"} {
		readFor(t, tree, c, lookup(t, tree, c, dir, name))
		waitAhead(t, tree)
		if n := b.opened.Load(); n != int64(i+1) {
			t.Errorf("%d files were opened for %d", n, i+1)
		}
		if n := b.listed.Load(); n > 2*(glance+1) {
			t.Errorf("%d entries were listed for %d files", n, i+1)
		}
	}

	listFor(t, tree, c, dir) // knowing all names makes no difference
	for i, name := range []string{"f700", "f03"} {
		readFor(t, tree, c, lookup(t, tree, c, dir, name))
		waitAhead(t, tree)
		if n := b.opened.Load(); n != int64(2+i+1) {
			t.Errorf("%d files were opened for %d", n, 2+i+1)
		}
	}
}

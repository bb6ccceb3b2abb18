package bridge_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// counting is a slow backend that counts what callers, who mark their
// contexts, wait for.
type counting struct {
	slow
	opens, lists, looks *atomic.Int64
	listed, opened      *atomic.Int64 // entries, and files, whoever waits
}

type callerKey struct{}

var callerCtx = context.WithValue(ctx, callerKey{}, true)

func (c counting) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	if ctx.Value(callerKey{}) != nil {
		c.opens.Add(1)
	}
	c.opened.Add(1)
	return c.slow.Open(ctx, name, flags, attr)
}

func (c counting) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	if ctx.Value(callerKey{}) != nil {
		c.lists.Add(1)
	}
	return func(yield func(bridge.DirEntry, error) bool) {
		var entries []bridge.DirEntry // backwards by name: memfs has them in any order
		for e, err := range c.slow.ReadDir(ctx, name) {
			if err != nil {
				yield(e, err)
				return
			}
			entries = append(entries, e)
		}
		slices.SortFunc(entries, func(a, b bridge.DirEntry) int { return strings.Compare(b.Name, a.Name) })
		for _, e := range entries {
			c.listed.Add(1)
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (c counting) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	if ctx.Value(callerKey{}) != nil {
		c.looks.Add(1)
	}
	return c.slow.Lstat(ctx, name)
}

// aheadTree has directories d00, d01, … with files f00, f01, … in each.
func aheadTree(t *testing.T, dirs, files int) (counting, *bridge.Tree) {
	t.Helper()
	b := newCounting(t, dirs, files)
	return b, treeOf(t, b)
}

// treeOf returns a tree of b that remembers what it is told.
func treeOf(t *testing.T, b bridge.Backend) *bridge.Tree {
	t.Helper()
	tree, err := bridge.New(ctx, b, bridge.Options{AttrTimeout: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func newCounting(t *testing.T, dirs, files int) counting {
	t.Helper()
	b := counting{slow{memfs.New()}, new(atomic.Int64), new(atomic.Int64), new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)}
	for d := range dirs {
		dir := fmt.Sprintf("d%02d", d)
		if err := b.Mkdir(ctx, dir, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			file, err := b.slow.Open(ctx, fmt.Sprintf("%s/f%02d", dir, f), syscall.O_CREAT|syscall.O_WRONLY, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt(ctx, fmt.Appendf(nil, "content of %s/%d", dir, f), 0); err != nil {
				t.Fatal(err)
			}
			file.Close(ctx)
		}
	}
	return b
}

func lookup(t *testing.T, tree *bridge.Tree, c bridge.Caller, dir *bridge.Node, name string) *bridge.Node {
	t.Helper()
	n, _, err := tree.Lookup(callerCtx, c, dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Forget(n, 1) })
	return n
}

func listFor(t *testing.T, tree *bridge.Tree, c bridge.Caller, dir *bridge.Node) (names []string) {
	t.Helper()
	d, err := tree.OpenDir(callerCtx, c, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for e, err := range d.Entries(callerCtx, 2) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name)
	}
	return names
}

// readFor reads a file as a caller who is counted.
func readFor(t *testing.T, tree *bridge.Tree, c bridge.Caller, n *bridge.Node) string {
	t.Helper()
	h, err := tree.Open(callerCtx, c, n, syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(ctx)
	return readHandle(t, h)
}

func TestFilesAreReadAhead(t *testing.T) {
	b, tree := aheadTree(t, 1, 60)
	c := superuser(tree)
	dir := lookup(t, tree, c, tree.Root(), "d00")
	for i, name := range listFor(t, tree, c, dir) {
		var num int
		fmt.Sscanf(name, "f%d", &num)
		if got, want := readFor(t, tree, c, lookup(t, tree, c, dir, name)), fmt.Sprintf("content of d00/%d", num); got != want {
			t.Fatalf("file %d: %q, want %q", i, got, want)
		}
	}
	if n := b.opens.Load(); n > 10 {
		t.Errorf("%d of 60 files were opened while a caller waited", n)
	}
}

func TestScatteredFilesAreNotReadAhead(t *testing.T) {
	b, tree := aheadTree(t, 1, 90)
	c := superuser(tree)
	dir := lookup(t, tree, c, tree.Root(), "d00")
	listFor(t, tree, c, dir)
	for i := range 9 {
		readFor(t, tree, c, lookup(t, tree, c, dir, fmt.Sprintf("f%02d", (i*40)%90)))
	}
	if n := b.opens.Load(); n < 8 {
		t.Errorf("only %d opens: files were read ahead", n)
	}
}

func TestDirectoriesAreListedAhead(t *testing.T) {
	b, tree := aheadTree(t, 40, 1)
	c := superuser(tree)
	for _, name := range listFor(t, tree, c, tree.Root()) {
		if got := listFor(t, tree, c, lookup(t, tree, c, tree.Root(), name)); len(got) != 1 {
			t.Fatalf("%s has %q", name, got)
		}
	}
	if n := b.lists.Load(); n > 8 {
		t.Errorf("%d of 41 directories were listed while a caller waited", n)
	}
}

// TestReadAheadIsNotStale changes, renames and removes files that were read
// ahead, before and after they are opened.
func TestReadAheadIsNotStale(t *testing.T) {
	_, tree := aheadTree(t, 1, 20)
	c := superuser(tree)
	dir := lookup(t, tree, c, tree.Root(), "d00")
	names := listFor(t, tree, c, dir)
	for _, name := range names[:4] {
		readFor(t, tree, c, lookup(t, tree, c, dir, name))
	}
	changed := lookup(t, tree, c, dir, names[5])
	h, err := tree.Open(ctx, c, changed, syscall.O_WRONLY|syscall.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(ctx, []byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if got := readFor(t, tree, c, changed); got != "new" {
		t.Errorf("changed file: %q", got)
	}
	h.Close(ctx)
	if got := readFor(t, tree, c, changed); got != "new" {
		t.Errorf("changed file, closed: %q", got)
	}

	removed := lookup(t, tree, c, dir, names[6])
	h, err = tree.Open(ctx, c, removed, syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(ctx)
	if err := tree.Unlink(ctx, c, dir, names[6]); err != nil {
		t.Fatal(err)
	}
	if a, err := h.Attr(ctx); err != nil || a.Nlink != 0 {
		t.Errorf("removed file: nlink %d, %v", a.Nlink, err)
	}
	if got := readHandle(t, h); got == "" {
		t.Error("removed file is empty")
	}

	replaced := lookup(t, tree, c, dir, names[7])
	h2, err := tree.Open(ctx, c, replaced, syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer h2.Close(ctx)
	want := readHandle(t, h2)
	if err := tree.Rename(ctx, c, dir, names[5], dir, names[7], 0); err != nil {
		t.Fatal(err)
	}
	if got := readHandle(t, h2); got != want {
		t.Errorf("replaced file: %q, want %q", got, want)
	}
	if got := readFor(t, tree, c, lookup(t, tree, c, dir, names[7])); got != "new" {
		t.Errorf("new file of the name: %q", got)
	}
}

// TestLookUpsListAhead looks at all files of all directories, one after the
// other, without ever listing: hardly any is waited for.
func TestLookUpsListAhead(t *testing.T) {
	const dirs, files = 30, 20
	b, tree := aheadTree(t, dirs, files)
	c := superuser(tree)
	for d := range dirs {
		dir := lookup(t, tree, c, tree.Root(), fmt.Sprintf("d%02d", d))
		for f := range files {
			lookup(t, tree, c, dir, fmt.Sprintf("f%02d", f))
			if f == 0 {
				waitAhead(t, tree)
			}
		}
	}
	if n := b.looks.Load(); n > 10 {
		t.Errorf("%d of %d files were looked at while a caller waited", n, dirs*files)
	}
}

// waitAhead waits until nothing is being fetched ahead.
func waitAhead(t *testing.T, tree *bridge.Tree) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); bridge.Fetching(tree) > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("something is being fetched for ever")
		}
	}
}

// TestOneLookUpListsLittle looks at one file in each of several directories, in
// no order: none is listed further than what comes at once, and no other
// directory is.
func TestOneLookUpListsLittle(t *testing.T) {
	const dirs, files, glance = 9, 900, 200
	b, tree := aheadTree(t, dirs, files)
	c := superuser(tree)
	for i, d := range []int{8, 2, 7, 1, 6, 0} {
		dir := lookup(t, tree, c, tree.Root(), fmt.Sprintf("d%02d", d))
		waitAhead(t, tree)
		lookup(t, tree, c, dir, "f500")
		waitAhead(t, tree)
		if n, most := b.listed.Load(), int64((i+1)*(glance+1)+3*dirs); n > most {
			t.Fatalf("%d entries were listed for %d files, want at most %d", n, i+1, most)
		}
	}
}

// TestListedAheadIsNotStale changes directories that were listed ahead.
func TestListedAheadIsNotStale(t *testing.T) {
	_, tree := aheadTree(t, 12, 4)
	c := superuser(tree)
	for d := range 4 {
		dir := lookup(t, tree, c, tree.Root(), fmt.Sprintf("d%02d", d))
		lookup(t, tree, c, dir, "f00")
		waitAhead(t, tree)
	}
	next := lookup(t, tree, c, tree.Root(), "d05")
	n, h, _, _, err := tree.Create(ctx, c, next, "new", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	tree.Forget(n, 1)
	if _, err := h.WriteAt(ctx, []byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := tree.Unlink(ctx, c, next, "f01"); err != nil {
		t.Fatal(err)
	}
	if err := tree.Rename(ctx, c, next, "f02", next, "moved", 0); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]syscall.Errno{"new": 0, "moved": 0, "f00": 0, "f01": syscall.ENOENT, "f02": syscall.ENOENT} {
		n, a, err := tree.Lookup(ctx, c, next, name)
		wantErrno(t, name, err, want)
		if err == nil {
			tree.Forget(n, 1)
			if name == "new" && a.Size != 3 {
				t.Errorf("new has %d bytes", a.Size)
			}
		}
	}
}

// TestFilesOfTheNextDirectoriesAreReadAhead reads all files of one directory after
// the other: only at the very beginning a caller waits.
func TestFilesOfTheNextDirectoriesAreReadAhead(t *testing.T) {
	const dirs, files = 8, 20
	b, tree := aheadTree(t, dirs, files)
	c := superuser(tree)
	for _, d := range listFor(t, tree, c, tree.Root()) {
		dir := lookup(t, tree, c, tree.Root(), d)
		for _, f := range listFor(t, tree, c, dir) {
			got := readFor(t, tree, c, lookup(t, tree, c, dir, f))
			if want := fmt.Sprintf("content of %s/%d", d, number(t, f)); got != want {
				t.Fatalf("%s/%s: %q, want %q", d, f, got, want)
			}
			waitAhead(t, tree)
		}
	}
	if n := b.opens.Load(); n > 8 {
		t.Errorf("%d of %d files were opened while a caller waited", n, dirs*files)
	}
	if n := b.opened.Load(); n > dirs*files {
		t.Errorf("%d files were opened, of %d", n, dirs*files)
	}
}

func number(t *testing.T, name string) (n int) {
	t.Helper()
	if _, err := fmt.Sscanf(name, "f%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestOneFileOfEachDirectory reads the first file of one directory after the
// other: no other file is read.
func TestOneFileOfEachDirectory(t *testing.T) {
	const dirs = 20
	b, tree := aheadTree(t, dirs, 10)
	c := superuser(tree)
	for _, d := range listFor(t, tree, c, tree.Root()) {
		dir := lookup(t, tree, c, tree.Root(), d)
		readFor(t, tree, c, lookup(t, tree, c, dir, listFor(t, tree, c, dir)[0]))
		waitAhead(t, tree)
	}
	if n := b.opened.Load(); n > dirs {
		t.Errorf("%d files were opened for %d", n, dirs)
	}
}

// TestRunsBreak goes through a directory for a while, and then to and fro: no
// more is read ahead.
func TestRunsBreak(t *testing.T) {
	b, tree := aheadTree(t, 2, 60)
	c := superuser(tree)
	dir := lookup(t, tree, c, tree.Root(), "d01")
	names := listFor(t, tree, c, dir)
	for _, f := range names[:10] {
		readFor(t, tree, c, lookup(t, tree, c, dir, f))
	}
	waitAhead(t, tree)
	before := b.opened.Load()
	for i := range 8 {
		readFor(t, tree, c, lookup(t, tree, c, dir, names[i*30%49]))
		waitAhead(t, tree)
	}
	if n := b.opened.Load() - before; n > 8 {
		t.Errorf("%d files were opened for 8", n)
	}
}

// TestFilesOfTheNextDirectoriesAreNotStale changes a file that was read ahead
// in the directory that comes next.
func TestFilesOfTheNextDirectoriesAreNotStale(t *testing.T) {
	_, tree := aheadTree(t, 4, 6)
	c := superuser(tree)
	dirs := listFor(t, tree, c, tree.Root())
	for _, d := range dirs[:2] {
		dir := lookup(t, tree, c, tree.Root(), d)
		for _, f := range listFor(t, tree, c, dir) {
			readFor(t, tree, c, lookup(t, tree, c, dir, f))
			waitAhead(t, tree)
		}
	}
	next := lookup(t, tree, c, tree.Root(), dirs[2])
	h, err := tree.Open(ctx, c, lookup(t, tree, c, next, "f05"), syscall.O_WRONLY|syscall.O_TRUNC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(ctx, []byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := tree.Rename(ctx, c, next, "f05", next, "f04", 0); err != nil {
		t.Fatal(err)
	}
	if got := readFor(t, tree, c, lookup(t, tree, c, next, "f04")); got != "new" {
		t.Errorf("%q, want new", got)
	}
}

package bridge_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// slow makes a backend of memory look like one that is far away: it has no
// identities, and the tree remembers what it told.
type slow struct{ *memfs.FS }

func (s slow) Traits() bridge.Traits { return bridge.Traits{Slow: true, Subsecond: true} }

func (s slow) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	a, err := s.FS.Lstat(ctx, name)
	a.ID, a.Nlink = bridge.FileID{}, 0
	return a, err
}

func (s slow) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := s.FS.Open(ctx, name, flags, attr)
	if err != nil {
		return nil, err
	}
	return slowFile{f}, nil
}

func (s slow) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for e, err := range s.FS.ReadDir(ctx, name) {
			e.Attr.ID, e.Attr.Nlink = bridge.FileID{}, 0
			if !yield(e, err) {
				return
			}
		}
	}
}

type slowFile struct{ bridge.File }

func (f slowFile) Attr(ctx context.Context) (bridge.Attr, error) {
	a, err := f.File.Attr(ctx)
	a.ID, a.Nlink = bridge.FileID{}, 0
	return a, err
}

var ctx = context.Background()

func newTree(t *testing.T, b bridge.Backend) *bridge.Tree {
	t.Helper()
	return newTreeWith(t, b, bridge.Options{})
}

func newTreeWith(t *testing.T, b bridge.Backend, opt bridge.Options) *bridge.Tree {
	t.Helper()
	tree, err := bridge.New(ctx, b, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

// both runs a test over a fast and over a slow backend.
func both(t *testing.T, test func(t *testing.T, tree *bridge.Tree, fs *memfs.FS)) {
	t.Run("fast", func(t *testing.T) {
		fs := memfs.New()
		test(t, newTree(t, fs), fs)
	})
	t.Run("slow", func(t *testing.T) {
		fs := memfs.New()
		test(t, newTree(t, slow{fs}), fs)
	})
}

func superuser(tree *bridge.Tree) bridge.Caller {
	return bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}, Door: tree.NewDoor()}
}

func someone(tree *bridge.Tree, uid uint32) bridge.Caller {
	return bridge.Caller{Avatar: &bridge.Avatar{Name: "user", Cred: bridge.Cred{UID: uid, GID: uid}}, Door: tree.NewDoor()}
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if got := bridge.Errno(err); got != want {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func create(t *testing.T, tree *bridge.Tree, c bridge.Caller, dir *bridge.Node, name, data string) *bridge.Node {
	t.Helper()
	n, h, _, _, err := tree.Create(ctx, c, dir, name, syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(ctx, []byte(data), 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return n
}

func read(t *testing.T, tree *bridge.Tree, c bridge.Caller, n *bridge.Node) string {
	t.Helper()
	h, err := tree.Open(ctx, c, n, syscall.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(ctx)
	return readHandle(t, h)
}

func readHandle(t *testing.T, h *bridge.Handle) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := h.ReadAt(ctx, buf, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func list(t *testing.T, tree *bridge.Tree, c bridge.Caller, dir *bridge.Node) []string {
	t.Helper()
	d, err := tree.OpenDir(ctx, c, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var names []string
	for e, err := range d.Entries(ctx, 2) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, e.Name)
	}
	sort.Strings(names)
	return names
}

func TestOpenFileOutlivesItsName(t *testing.T) {
	both(t, func(t *testing.T, tree *bridge.Tree, _ *memfs.FS) {
		c := superuser(tree)
		n := create(t, tree, c, tree.Root(), "a", "hello")
		h, err := tree.Open(ctx, c, n, syscall.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Rename(ctx, c, tree.Root(), "a", tree.Root(), "b", 0); err != nil {
			t.Fatal(err)
		}
		if got := readHandle(t, h); got != "hello" {
			t.Errorf("after rename: %q", got)
		}
		if err := tree.Unlink(ctx, c, tree.Root(), "b"); err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt(ctx, []byte(", world"), 5); err != nil {
			t.Fatal(err)
		}
		if got := readHandle(t, h); got != "hello, world" {
			t.Errorf("after unlink: %q", got)
		}
		a, err := h.Attr(ctx)
		if err != nil || a.Size != 12 || a.Nlink != 0 {
			t.Errorf("attributes after unlink: size %d, nlink %d, %v", a.Size, a.Nlink, err)
		}
		if a, err := tree.GetAttr(ctx, c, n); err != nil || a.Size != 12 {
			t.Errorf("by node: size %d, %v", a.Size, err)
		}
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
		_, err = tree.GetAttr(ctx, c, n)
		wantErrno(t, "after close", err, syscall.ENOENT)
		tree.Forget(n, 1)
	})
}

func TestHardLinksAreOneNode(t *testing.T) {
	both(t, func(t *testing.T, tree *bridge.Tree, _ *memfs.FS) {
		c := superuser(tree)
		n := create(t, tree, c, tree.Root(), "a", "x")
		a, err := tree.Link(ctx, c, n, tree.Root(), "b")
		if err != nil || a.Nlink != 2 {
			t.Fatalf("link: nlink %d, %v", a.Nlink, err)
		}
		m, _, err := tree.Lookup(ctx, c, tree.Root(), "b")
		if err != nil || m != n {
			t.Errorf("second name is another node: %v", err)
		}
		if err := tree.Unlink(ctx, c, tree.Root(), "a"); err != nil {
			t.Fatal(err)
		}
		if a, err := tree.GetAttr(ctx, c, n); err != nil || a.Nlink != 1 {
			t.Errorf("after unlink: nlink %d, %v", a.Nlink, err)
		}
		if got := read(t, tree, c, n); got != "x" {
			t.Errorf("content %q", got)
		}
		if _, err := tree.Link(ctx, c, n, tree.Root(), "a"); err != nil {
			t.Errorf("link again: %v", err)
		}
	})
}

func TestRenameOfDirectory(t *testing.T) {
	both(t, func(t *testing.T, tree *bridge.Tree, _ *memfs.FS) {
		c := superuser(tree)
		d, _, err := tree.Mkdir(ctx, c, tree.Root(), "d", bridge.SetAttr{Mode: 0o755})
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := tree.Mkdir(ctx, c, d, "e", bridge.SetAttr{Mode: 0o755})
		if err != nil {
			t.Fatal(err)
		}
		f := create(t, tree, c, e, "f", "deep")
		wantErrno(t, "into itself", tree.Rename(ctx, c, tree.Root(), "d", e, "x", 0), syscall.EINVAL)
		if err := tree.Rename(ctx, c, tree.Root(), "d", tree.Root(), "new", 0); err != nil {
			t.Fatal(err)
		}
		if got := read(t, tree, c, f); got != "deep" {
			t.Errorf("content %q", got)
		}
		_, _, err = tree.Lookup(ctx, c, tree.Root(), "d")
		wantErrno(t, "old name", err, syscall.ENOENT)
		if got := list(t, tree, c, tree.Root()); !slices.Equal(got, []string{"new"}) {
			t.Errorf("root has %q", got)
		}
		wantErrno(t, "onto a full directory", tree.Rename(ctx, c, tree.Root(), "new", tree.Root(), "new", 0), 0)
		wantErrno(t, "rmdir", tree.Rmdir(ctx, c, tree.Root(), "new"), syscall.ENOTEMPTY)
		wantErrno(t, "unlink", tree.Unlink(ctx, c, tree.Root(), "new"), syscall.EISDIR)
	})
}

func TestPermissionsOfOthers(t *testing.T) {
	both(t, func(t *testing.T, tree *bridge.Tree, _ *memfs.FS) {
		r, u := superuser(tree), someone(tree, 1000)
		if _, err := tree.SetAttr(ctx, r, tree.Root(), bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755}); err != nil {
			t.Fatal(err)
		}
		n := create(t, tree, r, tree.Root(), "f", "secret")
		if _, err := tree.SetAttr(ctx, r, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		_, err := tree.Open(ctx, u, n, syscall.O_RDONLY)
		wantErrno(t, "open", err, syscall.EACCES)
		_, _, err = tree.Mkdir(ctx, u, tree.Root(), "d", bridge.SetAttr{Mode: 0o755})
		wantErrno(t, "mkdir", err, syscall.EACCES)
		wantErrno(t, "unlink", tree.Unlink(ctx, u, tree.Root(), "f"), syscall.EACCES)
		_, err = tree.SetAttr(ctx, u, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o666})
		wantErrno(t, "chmod", err, syscall.EPERM)
		u.ReadOnly = true
		_, err = tree.SetAttr(ctx, u, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o666})
		wantErrno(t, "chmod by who may only read", err, syscall.EROFS)
	})
}

func TestEvents(t *testing.T) {
	both(t, func(t *testing.T, tree *bridge.Tree, _ *memfs.FS) {
		mount := tree.Subscribe()
		defer mount.Close()
		c := superuser(tree)
		n := create(t, tree, c, tree.Root(), "a", "x")
		kinds := func() (kinds []bridge.EventKind) {
			for _, e := range mount.Take() {
				kinds = append(kinds, e.Kind)
			}
			mount.Done()
			return kinds
		}
		if got := kinds(); !slices.Contains(got, bridge.EntryChanged) || !slices.Contains(got, bridge.ContentChanged) {
			t.Errorf("create and write: %v", got)
		}
		own := c
		own.Door = mount.Door()
		if _, err := tree.SetAttr(ctx, own, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
		if got := kinds(); len(got) != 0 {
			t.Errorf("own change: %v", got)
		}
		if err := tree.Unlink(ctx, c, tree.Root(), "a"); err != nil {
			t.Fatal(err)
		}
		settled := make(chan struct{})
		go func() {
			tree.Settle(ctx, c.Door)
			close(settled)
		}()
		<-mount.Ready()
		if got := kinds(); !slices.Contains(got, bridge.EntryGone) {
			t.Errorf("unlink: %v", got)
		}
		<-settled
	})
}

// failing is a slow backend whose writes fail when told to.
type failing struct {
	slow
	err *error
}

func (f failing) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	file, err := f.slow.Open(ctx, name, flags, attr)
	return failingFile{file, f.err}, err
}

type failingFile struct {
	bridge.File
	err *error
}

func (f failingFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if *f.err != nil {
		return 0, *f.err
	}
	return f.File.WriteAt(ctx, p, off)
}

func TestFailedWriteIsTold(t *testing.T) {
	werr := error(syscall.ENOSPC)
	tree := newTree(t, failing{slow{memfs.New()}, &werr})
	c := superuser(tree)
	for _, tell := range []string{"flush", "fsync", "close"} {
		_, h, _, _, err := tree.Create(ctx, c, tree.Root(), tell, syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o644})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt(ctx, []byte("lost"), 0); err != nil {
			wantErrno(t, "write", err, syscall.ENOSPC)
		}
		switch tell {
		case "flush":
			err = h.Flush(ctx)
		case "fsync":
			err = h.Sync(ctx)
		}
		cerr := h.Close(ctx)
		if tell == "close" {
			err = cerr
		} else if tell == "fsync" && cerr != nil {
			t.Errorf("%s: close tells again: %v", tell, cerr)
		}
		wantErrno(t, tell, err, syscall.ENOSPC)
	}
}

func TestListingIsOfOneMoment(t *testing.T) {
	both(t, func(t *testing.T, tree *bridge.Tree, _ *memfs.FS) {
		c := superuser(tree)
		for _, name := range []string{"a", "b", "c"} {
			create(t, tree, c, tree.Root(), name, "")
		}
		d, err := tree.OpenDir(ctx, c, tree.Root())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var first []string
		for e, err := range d.Entries(ctx, 0) {
			if err != nil {
				t.Fatal(err)
			}
			first = append(first, e.Name)
		}
		if err := tree.Unlink(ctx, c, tree.Root(), "b"); err != nil {
			t.Fatal(err)
		}
		var again []string
		for e := range d.Entries(ctx, 0) {
			again = append(again, e.Name)
		}
		if !slices.Equal(first, again) || len(first) != 5 {
			t.Errorf("first %q, then %q", first, again)
		}
		d.Rewind()
		again = nil
		for e := range d.Entries(ctx, 2) {
			again = append(again, e.Name)
		}
		if len(again) != 2 || slices.Contains(again, "b") {
			t.Errorf("after rewind %q", again)
		}
	})
}

// TestSlowIsAsFast does the same random things to a tree that remembers and to
// one that asks each time: both give the same errnos and the same tree.
func TestSlowIsAsFast(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		fast, far := newTree(t, memfs.New()), newTree(t, slow{memfs.New()})
		c := superuser(fast)
		names := []string{"a", "b", "c", "d"}
		for step := range 300 {
			op, from, to := rnd.IntN(10), randomPath(rnd, names), randomPath(rnd, names)
			data := strings.Repeat(string(rune('a'+step%26)), rnd.IntN(3000))
			o1, e1 := randomOp(fast, c, op, from, to, data)
			o2, e2 := randomOp(far, c, op, from, to, data)
			if bridge.Errno(e1) != bridge.Errno(e2) || o1 != o2 {
				at := 0
				for at < min(len(o1), len(o2)) && o1[at] == o2[at] {
					at++
				}
				t.Fatalf("seed %d, step %d, op %d %v %v:\nfast %v %d bytes, %.40q from %d\nslow %v %d bytes, %.40q", seed, step, op, from, to, e1, len(o1), o1[at:], at, e2, len(o2), o2[at:])
			}
		}
	}
}

func randomPath(rnd *rand.Rand, names []string) []string {
	path := make([]string, 1+rnd.IntN(3))
	for i := range path {
		path[i] = names[rnd.IntN(len(names))]
	}
	return path
}

// at walks to the directory of a path.
func at(tree *bridge.Tree, c bridge.Caller, path []string) (*bridge.Node, string, error) {
	dir := tree.Root()
	for _, name := range path[:len(path)-1] {
		n, _, err := tree.Lookup(ctx, c, dir, name)
		if err != nil {
			return nil, "", err
		}
		dir = n
	}
	return dir, path[len(path)-1], nil
}

func randomOp(tree *bridge.Tree, c bridge.Caller, op int, from, to []string, data string) (string, error) {
	dir, name, err := at(tree, c, from)
	if err != nil {
		return "", err
	}
	switch op {
	case 0:
		_, _, err = tree.Mkdir(ctx, c, dir, name, bridge.SetAttr{Mode: 0o755})
	case 1:
		err = tree.Unlink(ctx, c, dir, name)
	case 2:
		err = tree.Rmdir(ctx, c, dir, name)
	case 3, 4:
		var newDir *bridge.Node
		var newName string
		if newDir, newName, err = at(tree, c, to); err == nil {
			err = tree.Rename(ctx, c, dir, name, newDir, newName, bridge.RenameFlags(op-3))
		}
	case 5, 6:
		var h *bridge.Handle
		_, h, _, _, err = tree.Create(ctx, c, dir, name, syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{Mode: 0o644})
		if err == nil {
			_, err = h.WriteAt(ctx, []byte(data), int64(len(data)/2))
			err = errors.Join(err, h.Close(ctx))
		}
	case 7:
		var n *bridge.Node
		if n, _, err = tree.Lookup(ctx, c, dir, name); err == nil {
			_, err = tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetSize, Size: int64(len(data))})
		}
	case 8:
		var n *bridge.Node
		var a bridge.Attr
		if n, a, err = tree.Lookup(ctx, c, dir, name); err == nil && a.IsRegular() {
			var h *bridge.Handle
			if h, err = tree.Open(ctx, c, n, syscall.O_RDONLY); err == nil {
				buf := make([]byte, 8192)
				got, _ := h.ReadAt(ctx, buf, 0)
				return string(buf[:got]), h.Close(ctx)
			}
		}
	case 9:
		var n *bridge.Node
		if n, _, err = tree.Lookup(ctx, c, dir, name); err == nil {
			var d *bridge.DirHandle
			if d, err = tree.OpenDir(ctx, c, n); err == nil {
				var names []string
				for e := range d.Entries(ctx, 2) {
					names = append(names, e.Name)
				}
				sort.Strings(names)
				return strings.Join(names, " "), d.Close()
			}
		}
	}
	return "", err
}

package bridge_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// A reusing backend has one inode number, as if each file got that of the one
// that was removed last, and calls removed before it says that a file is gone.
type reusing struct {
	*memfs.FS
	removed func()
}

func (r *reusing) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	a, err := r.FS.Lstat(ctx, name)
	if name != "." {
		a.ID.Ino = 99
	}
	return a, err
}

func (r *reusing) Rmdir(ctx context.Context, name string) error {
	err := r.FS.Rmdir(ctx, name)
	if r.removed != nil {
		r.removed()
	}
	return err
}

// TestReusedInode removes a directory that is still in use, of which the next
// one gets the inode number: they are not the same.
func TestReusedInode(t *testing.T) {
	b := &reusing{FS: memfs.New()}
	tree := newTree(t, b)
	c := bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}, Door: tree.NewDoor()}
	mkdir := func(name string) *bridge.Node {
		n, _, err := tree.Mkdir(ctx, c, tree.Root(), name, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755})
		if err != nil {
			t.Error(err)
			return nil
		}
		t.Cleanup(func() { tree.Forget(n, 1) })
		return n
	}
	remove := func(name string) {
		t.Helper()
		if err := tree.Rmdir(ctx, c, tree.Root(), name); err != nil {
			t.Fatal(err)
		}
	}
	first := mkdir("a")
	remove("a")
	second := mkdir("a")
	if second == first {
		t.Error("made after the removal: the same node")
	}
	if _, err := tree.GetAttr(ctx, c, second); err != nil {
		t.Error(err)
	}

	// Made while the tree does not know yet that the removal is done.
	made := make(chan *bridge.Node, 1)
	b.removed = func() {
		b.removed = nil
		go func() { made <- mkdir("b") }()
		select {
		case n := <-made:
			made <- n
		case <-time.After(time.Second): // the names may share a lock
		}
	}
	remove("a")
	third := <-made
	if third == second {
		t.Error("made during the removal: the same node")
	}
	if n, _, err := tree.Mkdir(ctx, c, third, "x", bridge.SetAttr{}); err != nil {
		t.Error(err)
	} else {
		tree.Forget(n, 1)
	}

	// A removal that fails changes nothing.
	if err := tree.Rmdir(ctx, c, tree.Root(), "b"); bridge.Errno(err) != syscall.ENOTEMPTY {
		t.Errorf("rmdir of what is not empty: %v", err)
	}
	if n, _, err := tree.Lookup(ctx, c, tree.Root(), "b"); err != nil || n != third {
		t.Errorf("lookup: %v, %v", n == third, err)
	} else {
		tree.Forget(n, 1)
	}
}

// TestDirectoryGoneBehindOurBack removes, and moves, a directory that is still in
// use, without telling the tree. A door that has been told that it is gone must
// not get it again under a name: to the kernel it is dead.
func TestDirectoryGoneBehindOurBack(t *testing.T) {
	b := &reusing{FS: memfs.New()}
	tree := newTree(t, b)
	c := bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}, Door: tree.NewDoor()}
	look := func(name string) *bridge.Node {
		t.Helper()
		n, _, err := tree.Lookup(ctx, c, tree.Root(), name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tree.Forget(n, 1) })
		return n
	}
	gone := func(name string) {
		t.Helper()
		_, _, err := tree.Lookup(ctx, c, tree.Root(), name)
		wantErrno(t, "lookup of "+name, err, syscall.ENOENT)
	}
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755}
	must(t, b.FS.Mkdir(ctx, "a", mode))
	first := look("a")
	must(t, b.FS.Rmdir(ctx, "a"))
	gone("a")
	must(t, b.FS.Mkdir(ctx, "a", mode))
	second := look("a")
	if second == first || second.ID() == first.ID() {
		t.Error("made anew: the same node")
	}
	must(t, b.FS.Rename(ctx, "a", "b", 0))
	gone("a")
	third := look("b")
	if third == second || third.ID() == second.ID() {
		t.Error("moved, and missed before it was seen again: the same node")
	}
	must(t, b.FS.Rename(ctx, "b", "c", 0))
	if look("c") != third {
		t.Error("moved, and never missed: another node")
	}
}

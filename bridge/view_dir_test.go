package bridge_test

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
	"sftpbridge/bridge/memfs"
)

// newLocal returns a tree over a new directory of this machine.
func newLocal(t *testing.T) (*bridge.Tree, string) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	fs, err := localfs.New(dir)
	must(t, err)
	return newTree(t, fs), dir
}

// take ranges over a listing until n entries have come, and returns them.
func take(t *testing.T, d bridge.ServerDir, n int) (entries []bridge.DirEntry) {
	t.Helper()
	for e, err := range d.Entries(t.Context()) {
		must(t, err)
		if entries = append(entries, e); len(entries) == n {
			break
		}
	}
	return entries
}

// TestListingInParts: a listing goes on where it was left, and what it tells of an
// entry is what is true when it is yielded, whoever changed it before.
func TestListingInParts(t *testing.T) {
	local, dir := newLocal(t)
	t.Run("local", func(t *testing.T) {
		listInParts(t, local, func(name string) { must(t, os.Truncate(filepath.Join(dir, "d", name), 7)) })
	})
	memory := newTree(t, memfs.New())
	other := newView(t, memory, &bridge.Avatar{})
	t.Run("memory", func(t *testing.T) {
		listInParts(t, memory, func(name string) {
			must(t, other.SetAttrs(t.Context(), "/d/"+name, bridge.SetAttr{Valid: bridge.SetSize, Size: 7}))
		})
	})
}

func listInParts(t *testing.T, tree *bridge.Tree, grow func(name string)) {
	v := newView(t, tree, &bridge.Avatar{})
	makeDir(t, v, "/d", 0o755, root)
	const files = 250
	for i := range files {
		writeFile(t, v, "/d/"+strconv.Itoa(i), "x", 0o644, root)
	}
	d, err := v.OpenDirectory(t.Context(), "/d")
	must(t, err)
	seen := make(map[string]bool)
	for part := 0; ; part++ {
		entries := take(t, d, 30+part)
		for _, e := range entries {
			if seen[e.Name] {
				t.Fatalf("%s comes twice", e.Name)
			}
			seen[e.Name] = true
			if want := int64(min(1+6*part, 7)); e.Name != "." && e.Name != ".." && e.Attr.Size != want {
				t.Fatalf("part %d: %s has %d bytes, want %d", part, e.Name, e.Attr.Size, want)
			}
		}
		if len(entries) < 30+part {
			break
		}
		if part == 0 {
			for i := range files {
				grow(strconv.Itoa(i))
			}
		}
	}
	must(t, d.Close())
	if len(seen) != files+2 {
		t.Errorf("%d entries, want %d", len(seen), files+2)
	}
}

// TestListingLosesSearch: what may be seen of the entries is found out again for
// each part of a listing, and of the directory that is there then.
func TestListingLosesSearch(t *testing.T) {
	tree, dir := newLocal(t)
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	for i := range 50 {
		must(t, os.WriteFile(filepath.Join(dir, "d", strconv.Itoa(i)), nil, 0o644))
	}
	v := newView(t, tree, &bridge.Avatar{Cred: *eve})
	d, err := v.OpenDirectory(t.Context(), "/d")
	must(t, err)
	defer d.Close()
	full := func(what string, want bool) {
		t.Helper()
		for _, e := range take(t, d, 10) {
			if e.Full != want && e.Name != "." && e.Name != ".." {
				t.Errorf("%s: %+v", what, e)
			}
		}
	}
	full("searchable", true)
	must(t, os.Chmod(filepath.Join(dir, "d"), 0o744))
	full("not searchable", false)
	must(t, os.Chmod(filepath.Join(dir, "d"), 0o755))
	full("searchable again", true)
	must(t, os.Rename(filepath.Join(dir, "d"), filepath.Join(dir, "moved")))
	must(t, os.Symlink("moved", filepath.Join(dir, "d")))
	full("a link in its place", false)
}

// TestListingCloses: a listing that is left holds nothing open but itself.
func TestListingCloses(t *testing.T) {
	tree, dir := newLocal(t)
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	v := newView(t, tree, &bridge.Avatar{})
	count := func() (n int) {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		for _, e := range entries {
			if to, _ := os.Readlink("/proc/self/fd/" + e.Name()); to == dir {
				n++
			}
		}
		return n
	}
	before := count()
	for range 10 {
		d, err := v.OpenDirectory(t.Context(), "/")
		must(t, err)
		take(t, d, 1)
		take(t, d, 10)
		must(t, d.Close())
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	if _, err := v.OpenDirectory(t.Context(), "/f"); bridge.Errno(err) != syscall.ENOTDIR {
		t.Errorf("listing a file: %v", err)
	}
}

// TestDirLook: entries that are looked up for one answer are the nodes that Lookup
// finds, and what was removed or is another file by then is noticed.
func TestDirLook(t *testing.T) {
	tree, dir := newLocal(t)
	for _, name := range []string{"gone", "other", "same"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	sub := tree.Subscribe()
	defer sub.Close()
	c := bridge.Caller{Avatar: &bridge.Avatar{Cred: *eve}, Door: sub.Door()}
	before := make(map[string]*bridge.Node)
	for _, name := range []string{"gone", "other", "same"} {
		n, _, err := tree.Lookup(ctx, c, tree.Root(), name)
		must(t, err)
		defer tree.Forget(n, 1)
		before[name] = n
	}
	d, err := tree.OpenDir(ctx, c, tree.Root())
	must(t, err)
	defer d.Close()
	var entries []bridge.DirEntry
	for e, err := range d.Entries(ctx, 2) {
		must(t, err)
		entries = append(entries, e)
	}
	must(t, os.Remove(filepath.Join(dir, "gone")))
	must(t, os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o600))
	must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "other")))
	look := d.Look(ctx, c)
	defer look.Close()
	for _, e := range entries {
		n, a, err := look.Lookup(ctx, e)
		if e.Name == "gone" {
			if bridge.Errno(err) != syscall.ENOENT {
				t.Errorf("what was removed: %+v, %v", a, err)
			}
			continue
		}
		must(t, err)
		want, wantAttr, err := tree.Lookup(ctx, c, tree.Root(), e.Name)
		must(t, err)
		if n != want || a != wantAttr || (n == before[e.Name]) != (e.Name == "same") {
			t.Errorf("%s: %+v, want %+v; the same node: %v", e.Name, a, wantAttr, n == want)
		}
		tree.Forget(n, 1)
		tree.Forget(want, 1)
	}
	// Without search permission there is nothing to be looked up.
	must(t, os.Chmod(dir, 0o744))
	blind := d.Look(ctx, c)
	defer blind.Close()
	for _, e := range entries {
		if _, _, err := blind.Lookup(ctx, e); bridge.Errno(err) != syscall.EACCES {
			t.Errorf("%s without search permission: %v", e.Name, err)
		}
	}
	must(t, os.Chmod(dir, 0o755))
}

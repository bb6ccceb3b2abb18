package memfs_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

func mkdir(t *testing.T, fs *memfs.FS, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := fs.Mkdir(ctx, name, bridge.SetAttr{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinksOfDirectories(t *testing.T) {
	fs := memfs.New()
	mkdir(t, fs, "a", "b", "a/x", "a/y", "b/z")
	create(t, fs, "a/f")
	want := func(what string, links map[string]uint32) {
		t.Helper()
		for name, want := range links {
			a, err := fs.Lstat(ctx, name)
			if err != nil || a.Nlink != want {
				t.Errorf("%s: %s has %d links, %v; want %d", what, name, a.Nlink, err, want)
			}
		}
	}
	rename := func(from, to string, flags bridge.RenameFlags) {
		t.Helper()
		if err := fs.Rename(ctx, from, to, flags); err != nil {
			t.Fatal(err)
		}
	}
	want("new", map[string]uint32{".": 4, "a": 4, "b": 3, "a/x": 2, "a/f": 1})
	rename("a/x", "b/x", 0)
	want("moved", map[string]uint32{"a": 3, "b": 4, "b/x": 2})
	rename("a/y", "b/x", 0)
	want("replaced", map[string]uint32{"a": 2, "b": 4, "b/x": 2})
	rename("a/f", "b/x", bridge.RenameExchange)
	want("exchanged with a file", map[string]uint32{"a": 3, "b": 3, "b/x": 1, "a/f": 2})
	rename("b/z", "z", bridge.RenameNoReplace)
	want("moved up", map[string]uint32{".": 5, "b": 2, "z": 2})
	if err := fs.Rmdir(ctx, "z"); err != nil {
		t.Fatal(err)
	}
	want("removed", map[string]uint32{".": 4})
}

// What is made and removed leaves nothing behind.
func TestNothingIsLost(t *testing.T) {
	fs := memfs.New()
	before, err := fs.StatFS(ctx, ".")
	if err != nil {
		t.Fatal(err)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	mkdir(t, fs, "d")
	for i := range 20 {
		name, other := fmt.Sprint("d/f", i), fmt.Sprint("d/g", i)
		f, err := fs.Open(ctx, name, syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{})
		check(err)
		write(t, f, int64(i)*50_000, 10_000*i+1)
		check(f.(bridge.AllocateFile).Allocate(ctx, 1, 3_000_000, 70_000))
		check(fs.Link(ctx, name, other))
		create(t, fs, name+"new")
		check(fs.Rename(ctx, name+"new", name, 0))
		check(fs.Remove(ctx, name))
		check(fs.Remove(ctx, other))
		check(f.Close(ctx))
	}
	check(fs.Symlink(ctx, "target", "d/l", bridge.SetAttr{}))
	check(fs.Remove(ctx, "d/l"))
	check(fs.Rmdir(ctx, "d"))
	after, err := fs.StatFS(ctx, ".")
	check(err)
	after.Files -= 20 // those that create keeps open
	if after.BlocksFree != before.BlocksFree || after.Files != before.Files {
		t.Errorf("StatFS was %+v and is %+v", before, after)
	}
}

// Names may be longer than a path, but not without end.
func TestDeep(t *testing.T) {
	fs := memfs.New()
	name := strings.Repeat("d", 250)
	for len(name) <= bridge.DepthMax {
		mkdir(t, fs, name)
		name += "/" + strings.Repeat("d", 250)
	}
	if err := fs.Mkdir(ctx, name, bridge.SetAttr{}); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("Mkdir of a name of %d bytes: %v", len(name), err)
	}
}

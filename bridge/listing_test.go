package bridge_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// An endless backend has a directory whose listing does not end.
type endless struct{ *memfs.FS }

func (b endless) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for i := 0; ; i++ {
			if !yield(bridge.DirEntry{Name: fmt.Sprintf("n%d", i), Attr: bridge.Attr{Mode: syscall.S_IFREG}}, nil) {
				return
			}
		}
	}
}

func (b endless) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	if strings.HasPrefix(name, "n") {
		return bridge.Attr{Mode: syscall.S_IFREG | 0o644, Nlink: 1}, nil
	}
	return b.FS.Lstat(ctx, name)
}

// TestEndlessListing takes a good part of it: what was passed is not kept.
func TestEndlessListing(t *testing.T) {
	const entries = 40_000
	tree := newTree(t, endless{memfs.New()})
	v := newView(t, tree, &bridge.Avatar{})
	d, err := v.OpenDirectory(ctx, "/")
	must(t, err)
	n := 0
	var before int64
	for _, err := range d.Entries(ctx) {
		must(t, err)
		if n++; n == 10_000 {
			before = heap()
		}
		if n == entries {
			break
		}
	}
	if grown := heap() - before; grown > 4<<20 { // kept, they would be more than that
		t.Errorf("%d more entries took %d bytes", n-10_000, grown)
	}
	must(t, d.Close())
}

// A large backend lists so many entries with all their attributes.
type large struct {
	endless
	entries int
}

func (b large) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for i := range b.entries {
			a := bridge.Attr{Mode: syscall.S_IFREG | 0o644, Nlink: 1}
			if !yield(bridge.DirEntry{Name: fmt.Sprintf("n%d", i), Attr: a, Full: true, Asked: time.Now()}, nil) {
				return
			}
		}
	}
}

type largeSlow struct{ large }

func (b largeSlow) Traits() bridge.Traits {
	t := b.large.Traits()
	t.Slow, t.FileIDs = true, false
	return t
}

// TestLargeListing lists a large directory in the way of each door: of what was
// passed nothing is kept but for the nodes that are remembered for a while, of
// which there are no more from then on.
func TestLargeListing(t *testing.T) {
	measure := func(name string, to int, n *int, start *int64) {
		from := to - 25_000
		switch *n++; *n {
		case from:
			*start = heap()
		case to:
			if grown := heap() - *start; grown > int64(to-from)*32 {
				t.Errorf("%s: %d bytes for each of %d entries that were passed", name, grown/int64(to-from), to-from)
			}
		}
	}
	for name, b := range map[string]bridge.Backend{"fast": large{endless{memfs.New()}, 50_000}, "slow": largeSlow{large{endless{memfs.New()}, 130_000}}} {
		entries := 50_000
		if b.Traits().Slow {
			entries = 130_000
		}
		tree := newTree(t, struct{ bridge.Backend }{b}) // each entry is looked up by its name
		d, err := newView(t, tree, &bridge.Avatar{}).OpenDirectory(ctx, "/")
		must(t, err)
		n, start := 0, int64(0)
		for _, err := range d.Entries(ctx) {
			must(t, err)
			measure(name+", SFTP", entries, &n, &start)
		}
		must(t, d.Close())
		if n != entries+2 {
			t.Errorf("%s, SFTP: %d entries", name, n)
		}

		h, err := tree.OpenDir(ctx, superuser(tree), tree.Root())
		must(t, err)
		n = 0
		for more := true; more; { // as the kernel asks
			off := uint64(n)
			h.Passed(off)
			more = false
			for _, err := range h.Entries(ctx, off) {
				must(t, err)
				measure(name+", mount", entries, &n, &start)
				if more = n-int(off) == 100; more {
					break
				}
			}
		}
		if n != entries+2 {
			t.Errorf("%s, mount: %d entries", name, n)
		}
		for e, err := range h.Entries(ctx, 5) { // seekdir to what was passed
			must(t, err)
			if e.Name != "n3" {
				t.Errorf("%s: %q at 5", name, e.Name)
			}
			break
		}
		must(t, h.Close())
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A ghostly backend lists names that are not there, without end.
type ghostly struct{ endless }

func (b ghostly) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	return b.FS.Lstat(ctx, name)
}

// TestListingOfNothing: a listing goes on even if nothing in it is there.
func TestListingOfNothing(t *testing.T) {
	v := newView(t, newTree(t, ghostly{endless{memfs.New()}}), &bridge.Avatar{})
	d, err := v.OpenDirectory(ctx, "/")
	must(t, err)
	n := 0
	for e, err := range d.Entries(ctx) {
		must(t, err)
		if n++; n > 2 && e.Full {
			t.Fatalf("%+v is there", e)
		}
		if n == 1000 {
			break
		}
	}
	must(t, d.Close())
}

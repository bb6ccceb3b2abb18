package bridge_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"syscall"
	"testing"

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

package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// A brokenLister is a backend whose first listings fail after some entries.
type brokenLister struct {
	slow
	left  int // listings that fail
	after int
}

func (b *brokenLister) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	fail := b.left > 0
	if fail {
		b.left--
	}
	return func(yield func(bridge.DirEntry, error) bool) {
		n := 0
		for e, err := range b.slow.ReadDir(ctx, name) {
			if fail && n == b.after {
				break
			}
			if n++; !yield(e, err) {
				return
			}
		}
		if fail {
			yield(bridge.DirEntry{}, syscall.EIO)
		}
	}
}

// TestBrokenListing has a listing fail, and whoever lists go on where it was:
// a listing with a hole must not look like a whole one. From the beginning, it
// is another one.
func TestBrokenListing(t *testing.T) {
	for _, after := range []int{0, 3} {
		b := &brokenLister{slow: slow{memfs.New()}, after: after}
		// Without a memory, so that nothing is listed ahead.
		tree, err := bridge.New(ctx, b, bridge.Options{AttrTimeout: -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tree.Close() })
		c := bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}}
		const n = 6
		for i := range n {
			if _, _, err := tree.Mkdir(ctx, c, tree.Root(), fmt.Sprint("dir", i), bridge.SetAttr{}); err != nil {
				t.Fatal(err)
			}
		}
		b.left = 1
		d, err := tree.OpenDir(ctx, c, tree.Root())
		if err != nil {
			t.Fatal(err)
		}
		off := uint64(0)
		list := func() (err error) {
			for _, e := range d.Entries(ctx, off) {
				if e != nil {
					return e
				}
				off++
			}
			return nil
		}
		for range 2 {
			if err := list(); !errors.Is(err, syscall.EIO) {
				t.Errorf("after %d entries: %v at %d, want EIO", after, err, off)
			}
		}
		d.Rewind()
		off = 0
		if err := list(); err != nil || off != n+2 {
			t.Errorf("from the beginning: %d entries, %v", off, err)
		}
		d.Close()
	}
}

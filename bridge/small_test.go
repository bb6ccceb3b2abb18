package bridge_test

import (
	"context"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// readOpening is a slow backend that reads a file together with opening it. It
// counts what is opened, and what is read by itself.
type readOpening struct {
	slow
	opens, reads *atomic.Int64
	during       func() // called between opening and reading; may be nil
}

func (b *readOpening) OpenRead(ctx context.Context, name string, p []byte) (bridge.File, int, error) {
	b.opens.Add(1)
	f, err := b.slow.Open(ctx, name, syscall.O_RDONLY, bridge.SetAttr{})
	if err != nil {
		return nil, 0, err
	}
	a, err := f.Attr(ctx)
	if err != nil {
		return nil, 0, err
	}
	if b.during != nil {
		b.during()
	}
	n, err := f.ReadAt(ctx, p, 0)
	if err == io.EOF {
		err = nil
	}
	return openedFile{countingFile{f, b.reads}, a}, n, err
}

type countingFile struct {
	bridge.File
	reads *atomic.Int64
}

func (f countingFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f.reads.Add(1)
	return f.File.ReadAt(ctx, p, off)
}

type openedFile struct {
	bridge.File
	attr bridge.Attr
}

func (f openedFile) Opened() (bridge.Attr, bool) { return f.attr, true }

func newReadOpening(t *testing.T, timeout time.Duration) (*readOpening, *bridge.Tree) {
	t.Helper()
	b := &readOpening{slow{memfs.New()}, new(atomic.Int64), new(atomic.Int64), nil}
	tree, err := bridge.New(ctx, b, bridge.Options{AttrTimeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return b, tree
}

// putBehind writes a file behind the tree's back, at a time of its own.
func putBehind(t *testing.T, b *readOpening, name, content string, when int64) {
	t.Helper()
	f, err := b.slow.Open(ctx, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	if _, err := f.WriteAt(ctx, []byte(content), 0); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(when, 0)
	if err := f.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: at, Mtime: at}); err != nil {
		t.Fatal(err)
	}
}

// TestSmallFilesAreReadAsTheyAreOpened reads a small file again and again: the
// backend opens it once and is asked for its content by nothing else.
func TestSmallFilesAreReadAsTheyAreOpened(t *testing.T) {
	b, tree := newReadOpening(t, time.Hour)
	putBehind(t, b, "f", "content", 1e9)
	c := superuser(tree)
	n := lookup(t, tree, c, tree.Root(), "f")
	for range 3 {
		if got := readFor(t, tree, c, n); got != "content" {
			t.Fatalf("%q", got)
		}
	}
	if opens, reads := b.opens.Load(), b.reads.Load(); opens != 1 || reads != 0 {
		t.Errorf("%d opens, %d reads", opens, reads)
	}
}

// TestSmallFilesAreNotStale changes a file behind the tree's back, between two
// reads and while it is being opened: what is read is what is there.
func TestSmallFilesAreNotStale(t *testing.T) {
	b, tree := newReadOpening(t, -1) // nothing is believed
	putBehind(t, b, "f", "first", 1e9)
	c := superuser(tree)
	n := lookup(t, tree, c, tree.Root(), "f")
	want := func(content string) {
		t.Helper()
		if got := readFor(t, tree, c, n); got != content {
			t.Errorf("read %q, want %q", got, content)
		}
	}
	want("first")
	putBehind(t, b, "f", "other", 2e9)
	want("other")
	putBehind(t, b, "f", "a longer one", 3e9)
	want("a longer one")

	// Somebody writes between the attributes that are told and the read.
	putBehind(t, b, "f", "one more", 3.2e9)
	written := false
	b.during = func() { written = true; putBehind(t, b, "f", "yet more", 3.4e9) }
	readFor(t, tree, c, n)
	b.during = nil
	if !written {
		t.Error("the file was not opened")
	}
	want("yet more")

	// We write while it is being opened to be read.
	putBehind(t, b, "f", "yet another", 3.6e9)
	b.during = func() {
		b.during = nil
		h, err := tree.Open(ctx, c, n, syscall.O_WRONLY)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := h.WriteAt(ctx, []byte("ours"), 0); err != nil {
			t.Error(err)
		}
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	want("oursanother")
	want("oursanother")
}

package bridge_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// ordered is a slow backend of files that carry out what was started when it
// is waited for, in order, and that note what they carry out.
type ordered struct {
	slow
	log *opLog
}

type opLog struct {
	mu      sync.Mutex
	ops     []string
	refuse  map[string]error // by the kind of operation
	loosely bool             // nothing can be started
}

// do notes an operation, and returns the error that it is to have.
func (l *opLog) do(kind, what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, kind+what)
	return l.refuse[kind]
}

func (b ordered) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := b.slow.Open(ctx, name, flags, attr)
	if err != nil {
		return nil, err
	}
	return &orderedFile{File: f, log: b.log}, nil
}

type orderedFile struct {
	bridge.File
	log *opLog

	mu      sync.Mutex
	started []func() // not carried out yet
	closing bool
}

// start has op carried out by who waits for it, or for what was started later.
func (f *orderedFile) start(op func() error) func(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := make(chan error, 1)
	f.started = append(f.started, func() { done <- op() })
	return func(context.Context) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, op := range f.started {
			op()
		}
		f.started = nil
		return <-done
	}
}

func (f *orderedFile) StartWrite(p []byte, off int64) func(context.Context) error {
	if f.log.loosely {
		return nil
	}
	return f.start(func() error { _, err := f.WriteAt(ctx, p, off); return err })
}

func (f *orderedFile) StartSetAttr(set bridge.SetAttr) func(context.Context) error {
	return f.start(func() error { return f.SetAttr(ctx, set) })
}

func (f *orderedFile) StartAttr() func(context.Context) (bridge.Attr, error) {
	var a bridge.Attr
	wait := f.start(func() (err error) {
		if err = f.log.do("attr", ""); err == nil {
			a, err = f.Attr(ctx)
		}
		return err
	})
	return func(ctx context.Context) (bridge.Attr, error) {
		err := wait(ctx)
		return a, err
	}
}

func (f *orderedFile) StartClose() bool {
	f.closing = true
	f.start(func() error { return f.log.do("close", "") })
	return true
}

func (f *orderedFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.log.do("write", fmt.Sprintf(" %d at %d", len(p), off)); err != nil {
		return 0, err
	}
	return f.File.WriteAt(ctx, p, off)
}

func (f *orderedFile) SetAttr(ctx context.Context, set bridge.SetAttr) error {
	if err := f.log.do("setattr", ""); err != nil {
		return err
	}
	return f.File.SetAttr(ctx, set)
}

func (f *orderedFile) Close(ctx context.Context) error {
	if !f.closing {
		f.log.do("close", " by itself")
	}
	return f.File.Close(ctx)
}

// writeAndTouch makes a file, writes to it and sets its times, as tar does.
func writeAndTouch(t *testing.T, b ordered) (tree *bridge.Tree, h *bridge.Handle) {
	t.Helper()
	tree = newTree(t, b)
	c := superuser(tree)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Forget(n, 1) })
	for off := range int64(3) {
		if _, err := h.WriteAt(ctx, []byte("x"), off); err != nil && b.log.refuse == nil {
			t.Fatal(err) // a later write may be told of an earlier one
		}
	}
	when := time.Unix(1e9, 0)
	if _, err := tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: when, Mtime: when}); err != nil {
		t.Fatal(err)
	}
	return tree, h
}

// TestChangesTravelBehindTheData has a file's times and its close sent behind
// its data: they never overtake it.
func TestChangesTravelBehindTheData(t *testing.T) {
	for range 50 {
		b := ordered{slow{memfs.New()}, new(opLog)}
		_, h := writeAndTouch(t, b)
		if err := h.Close(ctx); err != nil {
			t.Fatal(err)
		}
		ops := b.log.ops
		if n := len(ops); n < 4 || !slices.Equal(ops[n-3:], []string{"setattr", "attr", "close"}) {
			t.Fatalf("the backend was told %q", ops)
		}
		if a, err := b.Lstat(ctx, "f"); err != nil || a.Size != 3 || a.Mtime.Unix() != 1e9 {
			t.Fatalf("size %d, mtime %v, %v", a.Size, a.Mtime, err)
		}
	}
}

// TestFlushTellsAttributes looks at a file that was flushed: what the backend
// made of it came with that, unless it was written to meanwhile.
func TestFlushTellsAttributes(t *testing.T) {
	b := ordered{slow{memfs.New()}, new(opLog)}
	tree, err := bridge.New(ctx, b, bridge.Options{AttrTimeout: time.Hour})
	must(t, err)
	defer tree.Close()
	c := superuser(tree)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
	must(t, err)
	defer tree.Forget(n, 1)
	defer h.Close(ctx)
	_, err = h.WriteAt(ctx, []byte("data"), 0)
	must(t, err)
	must(t, h.Flush(ctx))
	told, err := b.Lstat(ctx, "f")
	must(t, err)
	must(t, b.FS.SetAttr(ctx, "f", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})) // behind our back: not asked, not seen
	if a, err := tree.GetAttr(ctx, c, n); err != nil || a.Perm() != 0o600 || a.Size != 4 || !a.Mtime.Equal(told.Mtime) {
		t.Errorf("after the flush: mode %o, size %d, mtime %v, %v; want what there was: %v", a.Perm(), a.Size, a.Mtime, err, told.Mtime)
	}

	var wg sync.WaitGroup
	for i := range int64(200) {
		_, err := h.WriteAt(ctx, []byte("more"), 4*i)
		must(t, err)
		wg.Go(func() { h.Flush(ctx) })
		_, err = h.WriteAt(ctx, []byte("more"), 4*i+4)
		must(t, err)
		if a, err := tree.GetAttr(ctx, c, n); err != nil || a.Size != 4*i+8 {
			t.Fatalf("size %d, %v, want %d", a.Size, err, 4*i+8)
		}
		wg.Wait()
	}
	must(t, h.Flush(ctx))
	a, err := tree.GetAttr(ctx, c, n)
	if told, _ := b.Lstat(ctx, "f"); err != nil || a.Size != told.Size || !a.Mtime.Equal(told.Mtime) {
		t.Errorf("at last: size %d, mtime %v, %v; want %d, %v", a.Size, a.Mtime, err, told.Size, told.Mtime)
	}
}

// TestChangesWaitForData has a backend that starts nothing: the times are set
// when all data has arrived, and the file is closed after that.
func TestChangesWaitForData(t *testing.T) {
	b := ordered{slow{memfs.New()}, &opLog{loosely: true}}
	_, h := writeAndTouch(t, b)
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	ops := b.log.ops
	set := slices.Index(ops, "setattr")
	isWrite := func(op string) bool { return strings.HasPrefix(op, "write") }
	if set < 1 || !isWrite(ops[0]) || slices.ContainsFunc(ops[set:], isWrite) || !strings.HasPrefix(ops[len(ops)-1], "close") {
		t.Fatalf("the backend was told %q", ops)
	}
}

// TestCloseBesideAnother closes a file that somebody else has open still: what
// he uses is not closed under him.
func TestCloseBesideAnother(t *testing.T) {
	b := ordered{slow{memfs.New()}, new(opLog)}
	tree, h := writeAndTouch(t, b)
	other, err := tree.Open(ctx, superuser(tree), h.Node(), syscall.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(b.log.ops, "close") {
		t.Errorf("closed before all had arrived: %q", b.log.ops)
	}
}

// TestFailuresBehindTheDataAreTold has one of the things fail that are sent
// together: close tells.
func TestFailuresBehindTheDataAreTold(t *testing.T) {
	for _, kind := range []string{"write", "setattr"} {
		for _, tell := range []struct {
			name string
			call func(*bridge.Handle) error
		}{
			{"close", func(h *bridge.Handle) error { return h.Close(ctx) }},
			{"fsync", func(h *bridge.Handle) error { defer h.Close(ctx); return h.Sync(ctx) }},
			{"flush", func(h *bridge.Handle) error { defer h.Close(ctx); return h.Flush(ctx) }},
		} {
			b := ordered{slow{memfs.New()}, &opLog{refuse: map[string]error{kind: syscall.ENOSPC}}}
			_, h := writeAndTouch(t, b)
			if err := tell.call(h); bridge.Errno(err) != syscall.ENOSPC {
				t.Errorf("%s after a %s that failed: %v", tell.name, kind, err)
			}
		}
	}
}

// TestChangeWhileClosing changes the mode of a file while its only handle is
// being closed: the change is not lost with the handle.
func TestChangeWhileClosing(t *testing.T) {
	b := ordered{slow{memfs.New()}, new(opLog)}
	tree := newTree(t, b)
	c := superuser(tree)
	for range 200 {
		n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt(ctx, []byte("data"), 0); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := h.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		if _, err := tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o640}); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if a, err := b.Lstat(ctx, "f"); err != nil || a.Perm() != 0o640 {
			t.Fatalf("mode %o, %v", a.Perm(), err)
		}
		tree.Forget(n, 1)
		if err := tree.Unlink(ctx, c, tree.Root(), "f"); err != nil {
			t.Fatal(err)
		}
	}
}

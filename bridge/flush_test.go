package bridge_test

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// TestFlushByAnother has somebody flush a handle before the one who wrote
// through it asks: a process that was forked while the file was open does so
// when it executes a program, and nobody hears what it is told.
func TestFlushByAnother(t *testing.T) {
	tree := newTree(t, fullSlow{slow{memfs.New()}})
	c := bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}, Door: tree.NewDoor()}
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_RDWR, bridge.SetAttr{Mode: 0o644, Valid: bridge.SetMode})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Forget(n, 1)
	defer h.Close(ctx)
	if _, err := h.WriteAt(ctx, []byte("lost"), 0); err != nil && bridge.Errno(err) != syscall.ENOSPC {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		call func() error
		want syscall.Errno
	}{
		{"the first flush", func() error { return h.Flush(ctx) }, syscall.ENOSPC},
		{"a second flush", func() error { return h.Flush(ctx) }, syscall.ENOSPC},
		{"fsync", func() error { return h.Sync(ctx) }, syscall.ENOSPC},
		{"fsync again", func() error { return h.Sync(ctx) }, 0},
		{"a flush afterwards", func() error { return h.Flush(ctx) }, 0},
	} {
		if err := step.call(); bridge.Errno(err) != step.want {
			t.Errorf("%s: %v, want %v", step.name, err, step.want)
		}
	}
}

// A sometimesFull backend has files that cannot be written to while it is full.
type sometimesFull struct {
	slow
	full *atomic.Bool
}

func (f sometimesFull) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	file, err := f.slow.Open(ctx, name, flags, attr)
	return sometimesFullFile{file, f.full}, err
}

type sometimesFullFile struct {
	bridge.File
	full *atomic.Bool
}

func (f sometimesFullFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	if f.full.Load() {
		return 0, syscall.ENOSPC
	}
	return f.File.WriteAt(ctx, p, off)
}

// TestWritesGoOn has a program that never flushes and never closes, such as one
// that writes a log: when there is room again, its writes succeed.
func TestWritesGoOn(t *testing.T) {
	full := new(atomic.Bool)
	tree := newTree(t, sometimesFull{slow{memfs.New()}, full})
	c := superuser(tree)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_RDWR, bridge.SetAttr{Mode: 0o644, Valid: bridge.SetMode})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Forget(n, 1)
	defer h.Close(ctx)
	other, err := tree.Open(ctx, c, n, syscall.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	until := func(what string, want syscall.Errno) {
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			_, err := h.WriteAt(ctx, []byte("log"), 0)
			if bridge.Errno(err) == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v, want %v", what, err, want)
			}
		}
	}
	full.Store(true)
	until("writing to a full backend", syscall.ENOSPC)
	full.Store(false)
	until("writing when there is room", 0)
	for name, h := range map[string]*bridge.Handle{"the writer": h, "another": other} {
		wantErrno(t, "fsync of "+name, h.Sync(ctx), syscall.ENOSPC)
		wantErrno(t, "fsync again of "+name, h.Sync(ctx), 0)
	}
}

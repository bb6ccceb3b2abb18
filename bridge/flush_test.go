package bridge_test

import (
	"syscall"
	"testing"

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

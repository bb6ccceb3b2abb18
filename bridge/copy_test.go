package bridge_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// copying is a slow backend that copies by itself, and counts how often.
type copying struct {
	slow
	copies *atomic.Int64
}

func (c copying) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := c.FS.Open(ctx, name, flags, attr)
	if err != nil {
		return nil, err
	}
	return copyingFile{slowFile{f}, c.copies}, nil
}

type copyingFile struct {
	slowFile
	copies *atomic.Int64
}

func (f copyingFile) CopyRange(ctx context.Context, off int64, dst bridge.File, dstOff, n int64) (int64, error) {
	f.copies.Add(1)
	return f.File.(bridge.CopyFile).CopyRange(ctx, off, dst.(copyingFile).File, dstOff, n)
}

// TestSmallCopies has files copied that are large or small, in memory or not:
// the backend does what is not small and known.
func TestSmallCopies(t *testing.T) {
	b := copying{slow{memfs.New()}, new(atomic.Int64)}
	for name, size := range map[string]int{"small": 30_000, "large": 300_000} {
		f, err := b.FS.Open(ctx, name, syscall.O_CREAT|syscall.O_WRONLY, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
		must(t, err)
		_, err = f.WriteAt(ctx, []byte(strings.Repeat(name, size/5)), 0)
		must(t, err)
		must(t, f.Close(ctx))
	}
	tree := newTree(t, b)
	c := superuser(tree)
	for _, step := range []struct {
		name   string
		read   bool // first
		copies int64
	}{
		{"small", false, 1},
		{"small", true, 0},
		{"large", true, 1},
	} {
		src, err := tree.Open(ctx, c, lookup(t, tree, c, tree.Root(), step.name), syscall.O_RDONLY)
		must(t, err)
		a, err := src.Attr(ctx)
		must(t, err)
		want := []byte(strings.Repeat(step.name, int(a.Size)/5))
		if step.read {
			_, err := src.ReadAt(ctx, make([]byte, a.Size), 0)
			must(t, err)
		}
		_, dst, _, _, err := tree.Create(ctx, c, tree.Root(), "copy", syscall.O_RDWR|syscall.O_CREAT|syscall.O_TRUNC, bridge.SetAttr{Mode: 0o600})
		must(t, err)
		b.copies.Store(0)
		n, err := src.CopyTo(ctx, 0, dst, 0, 1<<40)
		if err != nil || n != a.Size || b.copies.Load() != step.copies {
			t.Errorf("%s, read %v: copied %d, %v, in %d requests, want %d bytes in %d", step.name, step.read, n, err, b.copies.Load(), a.Size, step.copies)
		}
		must(t, dst.Sync(ctx))
		got := make([]byte, len(want))
		f, err := b.FS.Open(ctx, "copy", syscall.O_RDONLY, bridge.SetAttr{})
		must(t, err)
		if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: wrong content of the copy, %v", step.name, err)
		}
		f.Close(ctx)
		must(t, src.Close(ctx))
		must(t, dst.Close(ctx))
	}
}

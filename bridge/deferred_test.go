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

// refusing is a slow backend that counts changes of attributes by handle and
// refuses them if told to.
type refusing struct {
	slow
	changes *atomic.Int64
	err     *error
}

func (r refusing) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := r.slow.Open(ctx, name, flags, attr)
	if err != nil {
		return nil, err
	}
	return refusingFile{f, r}, nil
}

type refusingFile struct {
	bridge.File
	r refusing
}

func (f refusingFile) SetAttr(ctx context.Context, set bridge.SetAttr) error {
	f.r.changes.Add(1)
	if *f.r.err != nil {
		return *f.r.err
	}
	return f.File.SetAttr(ctx, set)
}

// TestAttributesOfNewFilesTravelWithTheData sets mode and times of a file that
// is being written, as tar does: they are seen at once, go to the backend in
// one request, and stay what was asked for.
func TestAttributesOfNewFilesTravelWithTheData(t *testing.T) {
	var refuse error
	b := refusing{slow{memfs.New()}, new(atomic.Int64), &refuse}
	tree := newTree(t, b)
	c := superuser(tree)
	when := time.Unix(1e9, 0)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(ctx, []byte("data"), 0); err != nil {
		t.Fatal(err)
	}
	for _, set := range []bridge.SetAttr{
		{Valid: bridge.SetUID | bridge.SetGID},
		{Valid: bridge.SetMode, Mode: 0o640},
		{Valid: bridge.SetAtime | bridge.SetMtime, Atime: when, Mtime: when},
	} {
		if _, err := tree.SetAttr(ctx, c, n, set); err != nil {
			t.Fatal(err)
		}
	}
	if n := b.changes.Load(); n != 0 {
		t.Errorf("%d changes went to the backend before the file was closed", n)
	}
	check := func(a bridge.Attr, err error) {
		t.Helper()
		if err != nil || a.Perm() != 0o640 || !a.Mtime.Equal(when) || a.Size != 4 {
			t.Errorf("mode %o, mtime %v, size %d, %v", a.Perm(), a.Mtime, a.Size, err)
		}
	}
	check(tree.GetAttr(ctx, c, n))
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if n := b.changes.Load(); n != 1 {
		t.Errorf("%d changes went to the backend, want 1", n)
	}
	check(tree.GetAttr(ctx, c, n))
	check(b.Lstat(ctx, "f"))
}

// TestChangeAfterFlush has a file changed that was flushed, as it is when a
// program closes it, though its handle is still there: nobody would be told of a
// failure later, so the backend has the change when it is answered.
func TestChangeAfterFlush(t *testing.T) {
	b := slow{memfs.New()}
	tree := newTree(t, b)
	c := superuser(tree)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
	must(t, err)
	defer tree.Forget(n, 1)
	defer h.Close(ctx)
	_, err = h.WriteAt(ctx, []byte("data"), 0)
	must(t, err)
	must(t, h.Flush(ctx))
	_, err = tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o640})
	must(t, err)
	if a, err := b.Lstat(ctx, "f"); err != nil || a.Perm() != 0o640 {
		t.Errorf("mode %o, %v", a.Perm(), err)
	}
}

// TestWriteAfterTimes has a write come after times were set: it is the last to
// say when the file was modified.
func TestWriteAfterTimes(t *testing.T) {
	tree := newTree(t, slow{memfs.New()})
	c := superuser(tree)
	when := time.Unix(1e9, 0)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: when, Mtime: when}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.WriteAt(ctx, []byte("data"), 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if a, err := tree.GetAttr(ctx, c, n); err != nil || a.Mtime.Equal(when) {
		t.Errorf("mtime %v, %v", a.Mtime, err)
	}
}

func TestFailedChangeIsTold(t *testing.T) {
	refuse := error(syscall.EIO)
	b := refusing{slow{memfs.New()}, new(atomic.Int64), &refuse}
	tree := newTree(t, b)
	c := superuser(tree)
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "close", h.Close(ctx), syscall.EIO)
	if a, err := tree.GetAttr(ctx, c, n); err != nil || a.Perm() != 0o600 {
		t.Errorf("mode %o, %v", a.Perm(), err)
	}
}

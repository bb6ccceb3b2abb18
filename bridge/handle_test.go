package bridge_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// TestManyWriters has one file open many times, written to and closed: no
// close is to be done before what was written through it has arrived.
func TestManyWriters(t *testing.T) {
	fs := memfs.New()
	tree := newTree(t, slow{fs})
	c := bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}, Door: tree.NewDoor()}
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_RDWR, bridge.SetAttr{Mode: 0o644, Valid: bridge.SetMode})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Forget(n, 1)
	defer h.Close(ctx)
	const writers, rounds = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for round := range rounds {
				if err := writeOnce(tree, c, n, fs, int64(w)*100, fmt.Sprintf("%d in round %03d", w, round)); err != nil {
					t.Errorf("writer %d, round %d: %v", w, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// writeOnce writes data, and looks whether the backend has it after the close.
func writeOnce(tree *bridge.Tree, c bridge.Caller, n *bridge.Node, fs *memfs.FS, off int64, data string) error {
	h, err := tree.Open(ctx, c, n, syscall.O_WRONLY)
	if err != nil {
		return err
	}
	if _, err := h.WriteAt(ctx, []byte(data), off); err != nil {
		return err
	}
	if err := h.Close(ctx); err != nil {
		return err
	}
	f, err := fs.Open(ctx, "f", syscall.O_RDONLY, bridge.SetAttr{})
	if err != nil {
		return err
	}
	defer f.Close(ctx)
	got := make([]byte, len(data))
	if _, err := f.ReadAt(ctx, got, off); err != nil || !bytes.Equal(got, []byte(data)) {
		return fmt.Errorf("after close there is %q, %v; want %q", got, err, data)
	}
	return nil
}

// A fullSlow backend has files that cannot be written to.
type fullSlow struct{ slow }

func (f fullSlow) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	file, err := f.slow.Open(ctx, name, flags, attr)
	return fullFile{file}, err
}

type fullFile struct{ bridge.File }

func (fullFile) WriteAt(context.Context, []byte, int64) (int, error) { return 0, syscall.ENOSPC }

// TestManyFailures has writes of many handles fail at the same time: each of
// them is told so by write or close.
func TestManyFailures(t *testing.T) {
	tree := newTree(t, fullSlow{slow{memfs.New()}})
	c := bridge.Caller{Avatar: &bridge.Avatar{Name: "root"}, Door: tree.NewDoor()}
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_RDWR, bridge.SetAttr{Mode: 0o644, Valid: bridge.SetMode})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Forget(n, 1)
	defer h.Close(ctx)
	const writers, rounds = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for round := range rounds {
				h, err := tree.Open(ctx, c, n, syscall.O_WRONLY)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = h.WriteAt(ctx, []byte("lost"), int64(w)*100)
				if err1 := h.Close(ctx); err == nil {
					err = err1
				}
				if bridge.Errno(err) != syscall.ENOSPC {
					t.Errorf("writer %d, round %d: %v", w, round, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

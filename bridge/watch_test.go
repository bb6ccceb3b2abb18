package bridge_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// A watched backend in memory tells of changes when the test says so.
type watched struct {
	*memfs.FS
	changes chan bridge.Change
	told    chan struct{} // gets one for each change that was taken up
	opened  func()        // called when a file was made, before the tree knows; may be nil
}

func newWatched() *watched {
	return &watched{FS: memfs.New(), changes: make(chan bridge.Change), told: make(chan struct{}, 10)}
}

func (w *watched) Watch(ctx context.Context, changed func(bridge.Change)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-w.changes:
			changed(c)
			w.told <- struct{}{}
		}
	}
}

func (w *watched) WatchDir(string) error { return nil }
func (w *watched) UnwatchDir(string)     {}

func (w *watched) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := w.FS.Open(ctx, name, flags, attr)
	if w.opened != nil && flags.Has(syscall.O_CREAT) {
		w.opened()
	}
	return f, err
}

// tell has the tree take up a change.
func (w *watched) tell(c bridge.Change) {
	w.changes <- c
	<-w.told
}

// TestOwnFileIsNotNews: a door is not told of the file that it makes itself, not
// even if the backend's word of it comes before the tree knows the file.
func TestOwnFileIsNotNews(t *testing.T) {
	w := newWatched()
	tree := newTree(t, w)
	sub := tree.Subscribe()
	defer sub.Close()
	w.opened = func() {
		w.changes <- bridge.Change{Dir: ".", Name: "f", Entry: true}
		select {
		case <-w.told: // it should have waited
			w.told <- struct{}{}
		case <-time.After(100 * time.Millisecond):
		}
	}
	c := bridge.Caller{Avatar: &bridge.Avatar{}, Door: sub.Door()}
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
	must(t, err)
	defer tree.Forget(n, 1)
	<-w.told
	if events := sub.Take(); len(events) > 0 {
		t.Errorf("told of its own file: %+v", events)
	}
	sub.Done()

	// What is written through a descriptor of the door's is its own, too, if it says so.
	other, err := w.FS.Open(ctx, "f", syscall.O_WRONLY, bridge.SetAttr{})
	must(t, err)
	write := func(off int64) {
		_, err := other.WriteAt(ctx, []byte("text"), off)
		must(t, err)
	}
	write(0)
	a, err := h.AttrWritten(ctx)
	must(t, err)
	w.tell(bridge.Change{Dir: ".", Name: "f", Content: true})
	if events := sub.Take(); len(events) > 0 || a.Size != 4 {
		t.Errorf("told of its own writing: %+v; the size is %d", events, a.Size)
	}
	sub.Done()
	write(4)
	w.tell(bridge.Change{Dir: ".", Name: "f", Content: true})
	if events := sub.Take(); len(events) != 1 || events[0].Node != n {
		t.Errorf("told of another's writing: %+v", events)
	}
	sub.Done()
	must(t, other.Close(ctx))
	must(t, h.Close(ctx))
}

// TestSetAttrOfOpenFile: a change of attributes meets the file that is open, not
// one that somebody has put in its place.
func TestSetAttrOfOpenFile(t *testing.T) {
	tree, dir := newLocal(t)
	c := bridge.Caller{Avatar: &bridge.Avatar{}}
	n, h, _, _, err := tree.Create(ctx, c, tree.Root(), "f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
	must(t, err)
	defer tree.Forget(n, 1)
	must(t, os.Rename(filepath.Join(dir, "f"), filepath.Join(dir, "moved")))
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	a, err := tree.SetAttr(ctx, c, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o640})
	if err != nil || a.Perm() != 0o640 {
		t.Errorf("mode %o, %v", a.Perm(), err)
	}
	for name, want := range map[string]os.FileMode{"moved": 0o640, "f": 0o600} {
		fi, err := os.Lstat(filepath.Join(dir, name))
		must(t, err)
		if fi.Mode() != want {
			t.Errorf("%s has the mode %o, want %o", name, fi.Mode(), want)
		}
	}
	// The handle gives nobody rights that he does not have.
	for _, set := range []bridge.SetAttr{{Valid: bridge.SetMode, Mode: 0o777}, {Valid: bridge.SetMtime}, {Valid: bridge.SetSize}} {
		if _, err := tree.SetAttr(ctx, bridge.Caller{Avatar: &bridge.Avatar{Cred: *eve}}, n, set); err == nil {
			t.Errorf("%+v is permitted", set)
		}
	}
	must(t, h.Close(ctx))
}

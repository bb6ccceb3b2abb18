package bridge_test

import (
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// TestMadeAgain makes what somebody else has removed behind our back, though it
// is still believed to be there: locks are files that come and go.
func TestMadeAgain(t *testing.T) {
	b := slow{memfs.New()}
	tree, err := bridge.New(ctx, b, bridge.Options{AttrTimeout: time.Hour})
	must(t, err)
	defer tree.Close()
	c := superuser(tree)
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644}
	create := func(name string, flags bridge.OpenFlags) error {
		n, h, _, _, err := tree.Create(ctx, c, tree.Root(), name, flags|syscall.O_WRONLY|syscall.O_CREAT, mode)
		if err == nil {
			defer tree.Forget(n, 1)
			if _, err := h.WriteAt(ctx, []byte("data"), 0); err != nil {
				t.Error(err)
			}
			err = h.Close(ctx)
		}
		return err
	}
	mkdir := func(name string) error {
		n, _, err := tree.Mkdir(ctx, c, tree.Root(), name, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755})
		if err == nil {
			tree.Forget(n, 1)
		}
		return err
	}
	for name, mk := range map[string]func(name string) error{
		"open":      func(name string) error { return create(name, 0) },
		"exclusive": func(name string) error { return create(name, syscall.O_EXCL) },
		"mkdir":     mkdir,
	} {
		must(t, mk(name))
		n, _, err := tree.Lookup(ctx, c, tree.Root(), name)
		must(t, err)
		tree.Forget(n, 1)
		if name != "open" {
			wantErrno(t, name+" of what is there", mk(name), syscall.EEXIST)
		}
		if name == "mkdir" {
			must(t, b.FS.Rmdir(ctx, name))
		} else {
			must(t, b.FS.Remove(ctx, name))
		}
		if err := mk(name); err != nil {
			t.Errorf("%s of what somebody removed: %v", name, err)
		}
		if _, err := b.Lstat(ctx, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

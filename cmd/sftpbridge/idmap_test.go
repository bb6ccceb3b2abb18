package main

import (
	"context"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/backendtest"
	"sftpbridge/bridge/memfs"
)

func TestSwappedBackend(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) bridge.Backend {
		return swapped{memfs.New(), idSwap{there: ids{1005, 1006}, here: ids{1000, 1000}}}
	}, backendtest.Options{})
}

func TestSwap(t *testing.T) {
	ctx := context.Background()
	base := memfs.New()
	b := swapped{base, idSwap{there: ids{1005, 1006}, here: ids{0, 100}}}
	defer b.Close()
	owner := bridge.SetAttr{Valid: bridge.SetMode | bridge.SetUID | bridge.SetGID, Mode: 0o644, UID: 0, GID: 100}
	f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, owner)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	check := func(what string, a bridge.Attr, err error, uid, gid uint32) {
		t.Helper()
		if err != nil || a.UID != uid || a.GID != gid {
			t.Errorf("%s: owner %d:%d, %v, want %d:%d", what, a.UID, a.GID, err, uid, gid)
		}
	}
	a, err := base.Lstat(ctx, "f")
	check("there", a, err, 1005, 1006)
	a, err = b.Lstat(ctx, "f")
	check("here", a, err, 0, 100)
	a, err = f.Attr(ctx)
	check("open", a, err, 0, 100)
	if err := f.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID, UID: 1005, GID: 7}); err != nil {
		t.Fatal(err)
	}
	a, err = base.Lstat(ctx, "f")
	check("given away", a, err, 0, 7)
	for e, err := range b.ReadDir(ctx, ".") {
		check("listed", e.Attr, err, 1005, 7)
	}
}

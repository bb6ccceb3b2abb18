package sftpfs_test

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// mountTmp mounts a tmpfs at dir, or has the test skipped.
func mountTmp(t *testing.T, dir string, flags uintptr, options string) {
	t.Helper()
	if err := syscall.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skip("cannot mount a tmpfs: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// TestWhy has failures for which OpenSSH gives no reason, but the file system does.
func TestWhy(t *testing.T) {
	dir := t.TempDir()
	mountTmp(t, filepath.Join(dir, "full"), 0, "size=1m")
	mountTmp(t, filepath.Join(dir, "readonly"), syscall.MS_RDONLY, "")
	put(t, filepath.Join(dir, "f"), "content")
	ctx := context.Background()
	b := open(t, sftpfs.Command(sshdtest.SFTPServer(t)), sftpfs.Options{Root: dir})
	defer b.Close()
	f, err := b.Open(ctx, "full/f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	_, err = f.WriteAt(ctx, make([]byte, 4<<20), 0)
	wantErrno(t, "write to a full file system", err, syscall.ENOSPC)
	wantErrno(t, "rename across file systems", b.Rename(ctx, "f", "full/g", 0), syscall.EXDEV)
	wantErrno(t, "link across file systems", b.Link(ctx, "f", "full/g"), syscall.EXDEV)
	wantErrno(t, "mkdir on a read-only file system", b.Mkdir(ctx, "readonly/d", bridge.SetAttr{}), syscall.EROFS)
	_, err = b.Open(ctx, "readonly/f", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{})
	wantErrno(t, "create on a read-only file system", err, syscall.EROFS)
}

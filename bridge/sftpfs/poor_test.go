package sftpfs_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// poor returns the tree of dir on a server that has none of OpenSSH's
// extensions.
func poor(t *testing.T, dir string) *sftpfs.FS {
	const without = "posix-rename,hardlink,fsync,lsetstat,limits,copy-data,statvfs,fstatvfs"
	b := open(t, sftpfs.Command(sshdtest.SFTPServer(t), "-P", without), sftpfs.Options{Root: dir})
	t.Cleanup(func() { b.Close() })
	return b
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestPoorServerRename(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	b := poor(t, dir)
	put(t, filepath.Join(dir, "a"), "a")
	put(t, filepath.Join(dir, "b"), "b")
	for _, d := range []string{"empty", "full", "d"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(dir, "full/f"), "f")
	put(t, filepath.Join(dir, "d/f"), "d")

	wantErrno(t, "onto a directory", b.Rename(ctx, "a", "d", 0), syscall.EISDIR)
	wantErrno(t, "a directory onto a file", b.Rename(ctx, "d", "a", 0), syscall.ENOTDIR)
	wantErrno(t, "onto a full directory", b.Rename(ctx, "d", "full", 0), syscall.ENOTEMPTY)
	wantErrno(t, "what is not there", b.Rename(ctx, "absent", "a", 0), syscall.ENOENT)
	wantErrno(t, "into what is not there", b.Rename(ctx, "a", "absent/a", 0), syscall.ENOENT)
	wantErrno(t, "no replace", b.Rename(ctx, "a", "b", bridge.RenameNoReplace), syscall.EEXIST)
	wantErrno(t, "exchange", b.Rename(ctx, "a", "b", bridge.RenameExchange), syscall.EINVAL)
	for from, to := range map[string]string{"a": "b", "d": "empty", "full": "new"} {
		if err := b.Rename(ctx, from, to, 0); err != nil {
			t.Errorf("Rename %s to %s: %v", from, to, err)
		}
	}
	for name, want := range map[string]string{"b": "a", "empty/f": "d", "new/f": "f"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s is %q, %v; want %q", name, got, err, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("left over: %v", entries)
	}
}

func TestPoorServerAnswers(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	b := poor(t, dir)
	f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	if n, err := f.WriteAt(ctx, data, 0); n != len(data) || err != nil {
		t.Fatalf("WriteAt = %d, %v", n, err)
	}
	got := make([]byte, len(data)+10)
	if n, err := f.ReadAt(ctx, got, 0); n != len(data) || err != io.EOF || string(got[:n]) != string(data) {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if err := b.Symlink(ctx, "f", "l", bridge.SetAttr{}); err != nil {
		t.Fatal(err)
	}
	wantErrno(t, "Sync", f.Sync(ctx), syscall.EOPNOTSUPP)
	wantErrno(t, "Link", b.Link(ctx, "f", "g"), syscall.EPERM)
	_, err = b.StatFS(ctx, ".")
	wantErrno(t, "StatFS", err, syscall.EOPNOTSUPP)
	now := bridge.SetAttr{Valid: bridge.SetMtime, Mtime: time.Unix(1e9, 0)}
	wantErrno(t, "times of a link", b.SetAttr(ctx, "l", now), syscall.EOPNOTSUPP)
	if err := b.SetAttr(ctx, "f", now); err != nil {
		t.Errorf("times of a file: %v", err)
	}
	if a, err := b.Lstat(ctx, "f"); err != nil || !a.Mtime.Equal(now.Mtime) || a.Perm() != 0o666 {
		t.Errorf("Lstat = %+v, %v", a, err)
	}
}

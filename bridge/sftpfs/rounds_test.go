package sftpfs_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/faulty"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// over returns dial with all its channels going over the line l.
func over(l *faulty.Line, dial sftpfs.Dialer) sftpfs.Dialer {
	return func(ctx context.Context) (sftpfs.Transport, error) {
		tr, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return &lineTransport{tr, l}, nil
	}
}

type lineTransport struct {
	sftpfs.Transport
	l *faulty.Line
}

func (t *lineTransport) Open(ctx context.Context) (io.ReadWriteCloser, error) {
	ch, err := t.Transport.Open(ctx)
	if err != nil {
		return nil, err
	}
	return t.l.Wrap(ch), nil
}

// TestRoundTrips counts for how many answers each operation waits. A close
// whose answer nobody waits for may or may not be among them.
func TestRoundTrips(t *testing.T) {
	dir := t.TempDir()
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/c/f"), make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir, Connections: 1, Channels: 1})
	defer b.Close()
	ctx := context.Background()
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600}
	var f bridge.File
	buf := make([]byte, 1<<20)
	for _, op := range []struct {
		name   string
		rounds int
		run    func() error
	}{
		{"stat below unknown directories", 1, func() error { _, err := b.Lstat(ctx, "a/b/c/f"); return err }},
		{"stat", 1, func() error { _, err := b.Lstat(ctx, "f0"); return err }},
		{"stat of nothing", 1, func() error {
			if _, err := b.Lstat(ctx, "absent"); err != syscall.ENOENT && bridge.Errno(err) != syscall.ENOENT {
				return err
			}
			return nil
		}},
		{"list", 2 + 1, func() error {
			for _, err := range b.ReadDir(ctx, ".") {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"list again", 1 + 1, func() error {
			n := 0
			for _, err := range b.ReadDir(ctx, ".") {
				if err != nil {
					return err
				}
				n++
			}
			if n != 21 {
				return fmt.Errorf("%d entries", n)
			}
			return nil
		}},
		{"open and read", 1, func() (err error) {
			var n int
			f, n, err = b.OpenRead(ctx, "f4", buf[:7])
			if err == nil && string(buf[:n]) != "content" {
				err = fmt.Errorf("%d bytes were read", n)
			}
			return err
		}},
		{"close what was opened and read", 1, func() error { return f.Close(ctx) }},
		{"open", 1, func() (err error) { f, err = b.Open(ctx, "a/b/c/f", syscall.O_RDONLY, bridge.SetAttr{}); return err }},
		{"read 1 MiB", 1, func() error { _, err := f.ReadAt(ctx, buf, 0); return err }},
		{"close", 1, func() error { return f.Close(ctx) }},
		{"create", 1, func() (err error) {
			f, err = b.Open(ctx, "a/b/c/new", syscall.O_RDWR|syscall.O_CREAT, mode)
			return err
		}},
		{"write 1 MiB", 1, func() error { _, err := f.WriteAt(ctx, buf, 0); return err }},
		{"sync", 1, func() error { return f.Sync(ctx) }},
		{"close what was written", 1, func() error { return f.Close(ctx) }},
		{"mkdir", 1, func() error { return b.Mkdir(ctx, "d", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o700}) }},
		{"mkdir below it", 1, func() error { return b.Mkdir(ctx, "d/d", bridge.SetAttr{}) }},
		{"chmod", 1, func() error { return b.SetAttr(ctx, "f0", mode) }},
		{"rename", 1, func() error { return b.Rename(ctx, "f0", "f1", 0) }},
		{"rename to a free name", 2, func() error { return b.Rename(ctx, "f3", "f3too", bridge.RenameNoReplace) }},
		{"symlink", 1, func() error { return b.Symlink(ctx, "target", "link", bridge.SetAttr{}) }},
		{"readlink", 1, func() error { _, err := b.Readlink(ctx, "link"); return err }},
		{"link", 1, func() error { return b.Link(ctx, "f2", "f2too") }},
		{"remove", 1, func() error { return b.Remove(ctx, "f1") }},
		{"rmdir", 1, func() error { return b.Rmdir(ctx, "d/d") }},
	} {
		line.Bursts()
		if err := op.run(); err != nil {
			t.Errorf("%s: %v", op.name, err)
		}
		if n := line.Bursts(); n > op.rounds {
			t.Errorf("%s takes %d round trips, want %d", op.name, n, op.rounds)
		}
		if _, err := b.Lstat(ctx, "."); err != nil { // what was not waited for is done then
			t.Fatal(err)
		}
	}
}

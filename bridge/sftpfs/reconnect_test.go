package sftpfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/faulty"
	"sftpbridge/bridge/sftpfs/sshdial"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// dialer returns a Dialer to s.
func dialer(t testing.TB, s *sshdtest.Server) sftpfs.Dialer {
	t.Helper()
	dial, err := sshdial.New(s.User+"@"+s.Addr, sshdial.Options{
		ConfigFile: "none", IdentityFiles: []string{s.KeyFile}, KnownHosts: s.KnownHosts,
	})
	if err != nil {
		t.Fatal(err)
	}
	return dial
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantRead(t *testing.T, f bridge.File, off int64, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	n, err := f.ReadAt(context.Background(), buf, off)
	if string(buf[:n]) != want || err != nil && err != io.EOF {
		t.Errorf("ReadAt %d = %q, %v; want %q", off, buf[:n], err, want)
	}
}

// TestKilledConnections has the server's processes killed under open files.
func TestKilledConnections(t *testing.T) {
	s := sshdtest.Start(t)
	ctx := context.Background()
	b := open(t, dialer(t, s), sftpfs.Options{Root: s.Dir})
	defer b.Close()
	put(t, filepath.Join(s.Dir, "read"), "0123456789")
	put(t, filepath.Join(s.Dir, "moved"), "moved content")
	put(t, filepath.Join(s.Dir, "removed"), "removed content")
	put(t, filepath.Join(s.Dir, "replaced"), "replaced content")
	put(t, filepath.Join(s.Dir, "shrunk"), "shrunk content")
	put(t, filepath.Join(s.Dir, "log"), "one\n")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	files := make(map[string]bridge.File)
	for _, name := range []string{"read", "moved", "removed", "replaced", "shrunk"} {
		f, err := b.Open(ctx, name, syscall.O_RDONLY, bridge.SetAttr{})
		must(err)
		defer f.Close(ctx)
		if _, err := f.ReadAt(ctx, make([]byte, 1), 0); err != nil {
			t.Fatal(err)
		}
		files[name] = f
	}
	w, err := b.Open(ctx, "written", syscall.O_RDWR|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
	must(err)
	_, err = w.WriteAt(ctx, []byte("before "), 0)
	must(err)
	a, err := b.Open(ctx, "log", syscall.O_WRONLY|syscall.O_APPEND, bridge.SetAttr{})
	must(err)
	_, err = a.WriteAt(ctx, []byte("two\n"), 0)
	must(err)
	must(b.Mkdir(ctx, "d", bridge.SetAttr{}))
	must(b.Rename(ctx, "moved", "d/moved", 0))
	must(b.Rename(ctx, "d", "e", 0))
	must(b.Remove(ctx, "removed"))
	must(b.Rename(ctx, "read", "readme", bridge.RenameNoReplace))
	must(os.Truncate(filepath.Join(s.Dir, "shrunk"), 3))
	must(os.Rename(filepath.Join(s.Dir, "log"), filepath.Join(s.Dir, "replaced")))
	must(os.Rename(filepath.Join(s.Dir, "replaced"), filepath.Join(s.Dir, "log")))
	put(t, filepath.Join(s.Dir, "replaced"), "other")

	s.KillConnections()

	wantRead(t, files["read"], 0, "0123456789")
	wantRead(t, files["moved"], 0, "moved content")
	for _, name := range []string{"removed", "replaced", "shrunk"} {
		if _, err := files[name].ReadAt(ctx, make([]byte, 4), 0); !errors.Is(err, syscall.ESTALE) {
			t.Errorf("%s: %v; want ESTALE", name, err)
		}
	}
	_, err = w.WriteAt(ctx, []byte("after"), 7)
	must(err)
	_, err = a.WriteAt(ctx, []byte("three\n"), 0)
	must(err)
	s.KillConnections()
	must(w.Close(ctx))
	must(a.Close(ctx))
	for name, want := range map[string]string{"written": "before after", "log": "one\ntwo\nthree\n"} {
		if got, _ := os.ReadFile(filepath.Join(s.Dir, name)); string(got) != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if _, err := b.Lstat(ctx, "e/moved"); err != nil {
		t.Error(err)
	}
}

// TestStoppedServer has the server's processes stopped: calls end at their
// deadline, and all goes on when they run again.
func TestStoppedServer(t *testing.T) {
	s := sshdtest.Start(t)
	ctx := context.Background()
	const timeout = 2 * time.Second
	b := open(t, dialer(t, s), sftpfs.Options{Root: s.Dir, Timeout: timeout, Keepalive: time.Minute})
	defer b.Close()
	put(t, filepath.Join(s.Dir, "f"), "content")
	f, err := b.Open(ctx, "f", syscall.O_RDWR, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	s.Signal(syscall.SIGSTOP)
	for name, op := range map[string]func() error{
		"Lstat":   func() error { _, err := b.Lstat(ctx, "f"); return err },
		"ReadAt":  func() error { _, err := f.ReadAt(ctx, make([]byte, 7), 0); return err },
		"WriteAt": func() error { _, err := f.WriteAt(ctx, []byte("CONTENT"), 0); return err },
		"Mkdir":   func() error { return b.Mkdir(ctx, "d", bridge.SetAttr{}) },
		"ReadDir": func() error {
			for _, err := range b.ReadDir(ctx, ".") {
				return err
			}
			return nil
		},
	} {
		start := time.Now()
		err := op()
		if e := bridge.Errno(err); e != syscall.ETIMEDOUT && e != syscall.EIO {
			t.Errorf("%s on a stopped server: %v", name, err)
		}
		if took := time.Since(start); took > 20*timeout {
			t.Errorf("%s took %v", name, took)
		}
	}
	s.Signal(syscall.SIGCONT)
	eventually(t, func() error { _, err := b.Lstat(ctx, "f"); return err })
	if _, err := f.WriteAt(ctx, []byte("CON"), 0); err != nil {
		t.Errorf("WriteAt afterwards: %v", err)
	}
	wantRead(t, f, 0, "CON")
}

// eventually tries until there is no error, for long.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestServerAway has the server gone for a while.
func TestServerAway(t *testing.T) {
	s := sshdtest.Start(t)
	ctx := context.Background()
	b := open(t, dialer(t, s), sftpfs.Options{Root: s.Dir, Timeout: 2 * time.Second})
	defer b.Close()
	s.Stop()
	for range 3 {
		if _, err := b.Lstat(ctx, "."); bridge.Errno(err) != syscall.ETIMEDOUT && bridge.Errno(err) != syscall.EIO {
			t.Errorf("Lstat without a server: %v", err)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Lstat(ended, "."); bridge.Errno(err) != syscall.EINTR {
		t.Errorf("cancelled: %v", err)
	}
	s.Run()
	eventually(t, func() error { _, err := b.Lstat(ctx, "."); return err })
}

// TestLostAnswers has the connection break just before and just after the
// server does what it was asked for. The caller hears what is true.
func TestLostAnswers(t *testing.T) {
	server := sshdtest.SFTPServer(t)
	ctx := context.Background()
	for _, op := range []struct {
		name  string
		run   func(b *sftpfs.FS) error
		check string // a name that must be there then
		gone  string // and one that must not
	}{
		{"Mkdir", func(b *sftpfs.FS) error { return b.Mkdir(ctx, "new", bridge.SetAttr{}) }, "new", ""},
		{"Remove", func(b *sftpfs.FS) error { return b.Remove(ctx, "f") }, "", "f"},
		{"Rmdir", func(b *sftpfs.FS) error { return b.Rmdir(ctx, "d") }, "", "d"},
		{"Rename", func(b *sftpfs.FS) error { return b.Rename(ctx, "f", "g", 0) }, "g", "f"},
		{"RenameNoReplace", func(b *sftpfs.FS) error { return b.Rename(ctx, "f", "new", bridge.RenameNoReplace) }, "new", "f"},
		{"Symlink", func(b *sftpfs.FS) error { return b.Symlink(ctx, "t", "new", bridge.SetAttr{}) }, "new", ""},
		{"Link", func(b *sftpfs.FS) error { return b.Link(ctx, "f", "new") }, "new", ""},
		{"Create", func(b *sftpfs.FS) error {
			f, err := b.Open(ctx, "new", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{})
			if err == nil {
				err = f.Close(ctx)
			}
			return err
		}, "new", ""},
	} {
		for _, lose := range []string{"request", "answer"} {
			t.Run(op.name+"/"+lose, func(t *testing.T) {
				dir := t.TempDir()
				put(t, filepath.Join(dir, "f"), "content")
				put(t, filepath.Join(dir, "g"), "old")
				if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
					t.Fatal(err)
				}
				var line faulty.Line
				b := open(t, over(&line, sftpfs.Command(server)), sftpfs.Options{Root: dir})
				defer b.Close()
				if lose == "answer" {
					line.LoseAnswer()
				} else {
					line.CutAfter(10)
				}
				if err := op.run(b); err != nil {
					t.Errorf("%v", err)
				}
				if op.check != "" {
					if _, err := os.Lstat(filepath.Join(dir, op.check)); err != nil {
						t.Error(err)
					}
				}
				if op.gone != "" {
					if _, err := os.Lstat(filepath.Join(dir, op.gone)); err == nil {
						t.Errorf("%s is still there", op.gone)
					}
				}
			})
		}
	}
}

// TestBreakingLine writes and reads back a large file over a line that breaks
// all the time.
func TestBreakingLine(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir})
	defer b.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	want := make([]byte, 8<<20)
	for i := range want {
		want[i] = byte(rnd.Uint32())
	}
	f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	const step = 1 << 20
	for off := 0; off < len(want); off += step {
		line.CutAfter(rnd.Int64N(step))
		if n, err := f.WriteAt(ctx, want[off:off+step], int64(off)); n != step || err != nil {
			t.Fatalf("WriteAt %d = %d, %v", off, n, err)
		}
	}
	got := make([]byte, len(want))
	for off := 0; off < len(got); off += step {
		if off%(2*step) == 0 {
			line.LoseAnswer()
		} else {
			line.CutAfter(rnd.Int64N(64))
		}
		if n, err := f.ReadAt(ctx, got[off:off+step], int64(off)); n != step || err != nil && err != io.EOF {
			t.Fatalf("ReadAt %d = %d, %v", off, n, err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("what was read is not what was written")
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	if disk, _ := os.ReadFile(filepath.Join(dir, "f")); !bytes.Equal(disk, want) {
		t.Error("the file is not what was written")
	}
}

// TestListingOverABreak has the connection break in the midst of a listing.
func TestListingOverABreak(t *testing.T) {
	dir := t.TempDir()
	const n = 500
	for i := range n {
		put(t, filepath.Join(dir, fmt.Sprintf("name%03d", i)), "")
	}
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir})
	defer b.Close()
	seen := make(map[string]int)
	for d, err := range b.ReadDir(context.Background(), ".") {
		if err != nil {
			t.Fatal(err)
		}
		if seen[d.Name]++; len(seen) == n/2 {
			line.Cut()
		}
	}
	for name, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", name, times)
		}
	}
	if len(seen) != n {
		t.Errorf("%d names, want %d", len(seen), n)
	}
}

// TestLostData has what was written and acknowledged gone from the server
// before the close, as after a crash of its machine.
func TestLostData(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir})
	defer b.Close()
	f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(ctx, []byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	line.Cut()
	if err := os.Truncate(filepath.Join(dir, "f"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(ctx); !errors.Is(err, syscall.EIO) {
		t.Errorf("Close = %v, want EIO", err)
	}
}

// TestFailedWriteBeyondEnd has a write fail that would have made the file
// longer: the file is still the same one.
func TestFailedWriteBeyondEnd(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir, Timeout: time.Second})
	defer b.Close()
	f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	if _, err := f.WriteAt(ctx, []byte("one "), 0); err != nil {
		t.Fatal(err)
	}
	resume := line.Stall()
	if _, err := f.WriteAt(ctx, []byte("beyond"), 1<<20); err == nil {
		t.Error("a write to a server that does not answer succeeds")
	}
	line.Cut()
	resume()
	eventually(t, func() error { _, err := b.Lstat(ctx, "f"); return err })
	if _, err := f.WriteAt(ctx, []byte("two"), 4); err != nil {
		t.Errorf("WriteAt afterwards: %v", err)
	}
	wantRead(t, f, 0, "one two")
}

// TestFailedTruncate has the answers to truncations come too late, through the
// file and by name: the file is still the same one.
func TestFailedTruncate(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir, Timeout: time.Second})
	defer b.Close()
	f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(ctx)
	for name, truncate := range map[string]func(bridge.SetAttr) error{
		"file": func(set bridge.SetAttr) error { return f.SetAttr(ctx, set) },
		"name": func(set bridge.SetAttr) error { return b.SetAttr(ctx, "f", set) },
	} {
		if _, err := f.WriteAt(ctx, []byte("one two"), 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		line.Delay(700 * time.Millisecond)
		if err := truncate(bridge.SetAttr{Valid: bridge.SetSize, Size: 3}); err == nil {
			t.Errorf("%s: an answer that came too late", name)
		}
		line.Delay(0)
		eventually(t, func() error { _, err := b.Lstat(ctx, "f"); return err })
		wantRead(t, f, 0, "one")
	}
}

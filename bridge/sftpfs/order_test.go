package sftpfs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/faulty"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// startAll makes a file, writes it in parts, sets its times and closes it
// without waiting in between, and returns what waits for the outcome.
func startAll(t *testing.T, b *sftpfs.FS, name string, parts int) (outcome func() error) {
	t.Helper()
	ctx := context.Background()
	file, err := b.Open(ctx, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
	if err != nil {
		t.Fatal(err)
	}
	f := file.(bridge.OrderedFile)
	var waits []func(context.Context) error
	for i := range parts {
		waits = append(waits, f.StartWrite([]byte("part"), int64(4*i)))
	}
	when := time.Unix(1e9, 0)
	waits = append(waits, f.StartSetAttr(bridge.SetAttr{Valid: bridge.SetMode | bridge.SetAtime | bridge.SetMtime, Mode: 0o640, Atime: when, Mtime: when}))
	for i, wait := range waits {
		if wait == nil {
			t.Fatalf("request %d was not started", i)
		}
	}
	if !f.StartClose() {
		t.Fatal("the close was not started")
	}
	return func() error {
		var errs []error
		for _, wait := range waits {
			errs = append(errs, wait(ctx))
		}
		return errors.Join(append(errs, file.Close(ctx))...)
	}
}

func checkStarted(t *testing.T, path string, parts int) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil || fi.Size() != int64(4*parts) || fi.ModTime().Unix() != 1e9 || fi.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", fi, err)
	}
}

// TestChangesAreSentTogether writes, sets times and closes in one round trip.
func TestChangesAreSentTogether(t *testing.T) {
	dir := t.TempDir()
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir, Connections: 1, Channels: 1})
	defer b.Close()
	for i := range 20 {
		name := fmt.Sprint("f", i)
		if err := startAll(t, b, name, 3)(); err != nil {
			t.Fatal(err)
		}
		checkStarted(t, filepath.Join(dir, name), 3)
	}
	file, err := b.Open(context.Background(), "stalled", syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	f := file.(bridge.OrderedFile)
	line.Bursts()
	resume := line.Stall()
	written := f.StartWrite([]byte("data"), 0)
	set := f.StartSetAttr(bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o640})
	f.StartClose()
	resume()
	if err := errors.Join(written(context.Background()), set(context.Background()), file.Close(context.Background())); err != nil {
		t.Error(err)
	}
	if n := line.Bursts(); n > 1 {
		t.Errorf("%d round trips, want 1", n)
	}
}

// TestOrderAcrossBreaks cuts the connection anywhere in what is sent together:
// afterwards the file is as it should be, its times included.
func TestOrderAcrossBreaks(t *testing.T) {
	dir := t.TempDir()
	var line faulty.Line
	b := open(t, over(&line, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: dir})
	defer b.Close()
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 40 {
		name := fmt.Sprint("f", i)
		ctx := context.Background()
		file, err := b.Open(ctx, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		f := file.(bridge.OrderedFile)
		if i%5 == 4 {
			line.LoseAnswer()
		} else {
			line.CutAfter(rnd.Int64N(200))
		}
		when := time.Unix(1e9, 0)
		set := bridge.SetAttr{Valid: bridge.SetMode | bridge.SetAtime | bridge.SetMtime, Mode: 0o640, Atime: when, Mtime: when}
		// What cannot be started is done at the end, as the tree does.
		var waits []func(context.Context) error
		for part := range 3 {
			p, off := []byte("part"), int64(4*part)
			wait := f.StartWrite(p, off)
			if wait == nil {
				wait = func(ctx context.Context) error { _, err := file.WriteAt(ctx, p, off); return err }
			}
			waits = append(waits, wait)
		}
		change := f.StartSetAttr(set)
		if change == nil {
			change = func(ctx context.Context) error { return file.SetAttr(ctx, set) }
		} else {
			f.StartClose()
		}
		for _, wait := range append(waits, change, file.Close) {
			if err := wait(ctx); err != nil {
				t.Fatalf("file %d: %v", i, err)
			}
		}
		checkStarted(t, filepath.Join(dir, name), 3)
	}
}

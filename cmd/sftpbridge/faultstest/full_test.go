package faultstest

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestDiskFull fills the upstream's file system: who writes is told ENOSPC, at
// both doors, and can go on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, 20*timeout)
	if err := syscall.Mount("tmpfs", r.upstream, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("no tmpfs: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(r.upstream, syscall.MNT_DETACH) })
	r.start()
	up := upstreamOf(r)
	for _, kind := range doorKinds {
		t.Run(kind.name, func(t *testing.T) {
			d := kind.enter(t, r)
			f, err := d.open("small", os.O_RDWR|os.O_CREATE)
			if err != nil {
				t.Fatal(err)
			}
			if err := writeAll(f, 16<<10); err != nil {
				t.Fatal(err)
			}
			for i := range 2 { // the second time everything is full from the start
				if err := fill(d); !isNoSpace(err) {
					var st syscall.Statfs_t
					syscall.Statfs(r.upstream, &st)
					large, _ := up.stat("large")
					t.Errorf("filling the file system, run %d: %v, want ENOSPC; large is %v, %d blocks are free", i, err, large, st.Bfree)
				}
			}
			if _, err := f.WriteAt(make([]byte, 64<<10), 16<<10); err == nil {
				err = f.Sync()
				if !isNoSpace(err) {
					t.Errorf("the file that was open: %v, want ENOSPC", err)
				}
			}
			if err := up.remove("large"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "with room again", func() error { return writeAll(f, 256<<10) })
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			got, err := os.ReadFile(up.path("small"))
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{'x'}, 256<<10)) {
				t.Errorf("small has %d bytes, %v", len(got), err)
			}
			if err := up.remove("small"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// fill writes a file that there is no room for.
func fill(d door) error {
	f, err := d.open("large", os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	err = writeAll(f, 6<<20)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// writeAll writes n bytes, and has them acknowledged.
func writeAll(f file, n int) error {
	return inTime(func() error {
		piece := bytes.Repeat([]byte{'x'}, 16<<10)
		for off := 0; off < n; off += len(piece) {
			if _, err := f.WriteAt(piece, int64(off)); err != nil {
				return err
			}
		}
		return f.Sync()
	})
}

// isNoSpace reports whether err says that there is no room: SFTP has no status
// for it, but a text.
func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || err != nil && strings.Contains(strings.ToLower(err.Error()), "no space left")
}

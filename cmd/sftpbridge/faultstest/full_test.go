package faultstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// kinds are what the tree is on in the tests of full file systems.
var kinds = []struct {
	name   string
	newRig func(t *testing.T) *rig
}{
	{"upstream", func(t *testing.T) *rig { return newRig(t, 20*timeout) }},
	{"local", func(t *testing.T) *rig { r := newRig(t, 20*timeout); r.local(); return r }},
}

// TestDiskFull fills the file system: who writes is told ENOSPC, at both
// doors, and can go on when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			r := kind.newRig(t)
			if err := syscall.Mount("tmpfs", r.upstream, "tmpfs", 0, "size=4m"); err != nil {
				t.Skip("no tmpfs: ", err)
			}
			t.Cleanup(func() { syscall.Unmount(r.upstream, syscall.MNT_DETACH) })
			r.start()
			room := func() error { return upstreamOf(r).remove("large") }
			fillAtDoors(t, r, syscall.ENOSPC, room, func() error { return nil })
		})
	}
}

// TestQuota uses up a quota of btrfs, which is the one that can be had without
// a kernel made for it. On a local directory the errno is EDQUOT; OpenSSH tells
// no more than that it failed, and of the free space of the disk, so that there
// it is EIO.
func TestQuota(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			r := kind.newRig(t)
			limit := mountWithQuota(t, r.upstream)
			r.start()
			want := syscall.EDQUOT
			if kind.name == "upstream" {
				want = syscall.EIO
			}
			room := func() error { return limit("64M") }
			again := func() error { return errors.Join(upstreamOf(r).remove("large"), limit("2M")) }
			fillAtDoors(t, r, want, room, again)
		})
	}
}

// mountWithQuota mounts a new file system with a quota of 2 MiB at dir, and
// returns what changes it.
func mountWithQuota(t *testing.T, dir string) func(limit string) error {
	t.Helper()
	disk, all := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s %v: %w: %s", name, args, err, out)
		}
		return err
	}
	unmounted := func(dir string) { t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) }) }
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		t.Skip("btrfs-progs is not installed")
	}
	err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 200<<20), run("mkfs.btrfs", "-q", "-M", disk))
	if err != nil {
		t.Fatal(err)
	}
	if err := run("mount", "-o", "loop", disk, all); err != nil {
		t.Skip("no file system can be mounted from a file: ", err)
	}
	unmounted(all)
	sub := filepath.Join(all, "sub")
	limit := func(n string) error { return run("btrfs", "qgroup", "limit", n, sub) }
	err = errors.Join(run("btrfs", "subvolume", "create", sub), run("btrfs", "quota", "enable", all), limit("2M"),
		run("mount", "--bind", sub, dir))
	if err != nil {
		t.Fatal(err)
	}
	unmounted(dir)
	return limit
}

// fillAtDoors writes more than there is room for at each door: it has to fail
// with want. When there is room, it goes on with what was open, and that is
// what is there.
func fillAtDoors(t *testing.T, r *rig, want syscall.Errno, room, again func() error) {
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
				if err := fill(d); err == nil || !isFull(err, want) {
					var st syscall.Statfs_t
					syscall.Statfs(r.upstream, &st)
					large, _ := up.stat("large")
					t.Errorf("filling the file system, run %d: %v, want %v; large is %v, %d blocks are free", i, err, want, large, st.Bfree)
				}
			}
			if err := writeAll(f, 256<<10); err != nil && !isFull(err, want) {
				t.Errorf("the file that was open: %v, want %v", err, want)
			}
			if err := room(); err != nil {
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
			if err := errors.Join(up.remove("small"), again()); err != nil {
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

// isFull reports whether err says what errno means: SFTP has no status for it,
// but a text.
func isFull(err error, errno syscall.Errno) bool {
	return errors.Is(err, errno) || err != nil && strings.Contains(strings.ToLower(err.Error()), errno.Error())
}

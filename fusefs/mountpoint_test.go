package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// silentMount mounts a file system of the type typ that answers nothing.
func silentMount(t *testing.T, dir, typ string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	opts := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("silent", dir, typ, 0, opts); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) })
}

// TestSilentMountIsReplaced has a mount of ours that does not answer, though
// its server has not ended: it is cut off and taken away. One of others stays.
func TestSilentMountIsReplaced(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	real := t.TempDir()
	dir := filepath.Join(t.TempDir(), "link", "mnt")
	if err := os.Symlink(real, filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mounted := filepath.Join(real, "mnt")
	silentMount(t, mounted, "fuse."+typeName)
	got, err := prepareDir(dir, time.Second, log)
	if err != nil || got != mounted {
		t.Fatalf("over a silent mount of ours: %q, %v", got, err)
	}
	if dev, _ := mountOn(mounted); dev != "" {
		t.Errorf("the device %s is still mounted", dev)
	}

	silentMount(t, mounted, "fuse.other")
	_, err = prepareDir(dir, time.Second, log)
	if !errors.Is(err, syscall.ETIMEDOUT) || !strings.Contains(err.Error(), "umount -f") {
		t.Errorf("over a silent mount of others: %v", err)
	}
	if _, typ := mountOn(mounted); typ != "fuse.other" {
		t.Errorf("on the mount point there is %q", typ)
	}
}

package sftpfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// A size that the file system of the upstream cannot have is EFBIG.
func TestTooLarge(t *testing.T) {
	const size = 999_999_999_999_999
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); !errors.Is(err, syscall.EFBIG) {
		t.Skipf("files can be large here: %v", err)
	}
	fs := open(t, sftpfs.Command(sshdtest.SFTPServer(t)), sftpfs.Options{Root: dir})
	defer fs.Close()
	set := bridge.SetAttr{Valid: bridge.SetSize, Size: size}
	if err := fs.SetAttr(t.Context(), "f", set); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("by name: %v", err)
	}
	f, err := fs.Open(t.Context(), "f", syscall.O_RDWR, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(t.Context())
	if err := f.SetAttr(t.Context(), set); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("of the open file: %v", err)
	}
}

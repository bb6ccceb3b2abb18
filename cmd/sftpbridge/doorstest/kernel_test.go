package doorstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// TestKernelEnforces: with enforce: kernel an access control list counts, of
// which the tree knows nothing, at both doors.
func TestKernelEnforces(t *testing.T) {
	setfacl, err := exec.LookPath("setfacl")
	if err != nil {
		t.Skip("no setfacl (package acl)")
	}
	r := startRig(t, enforced)
	file := filepath.Join(r.dir, "local", "file")
	if err := os.WriteFile(file, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(setfacl, "-m", "u:4001:---", file).CombinedOutput(); err != nil {
		t.Skipf("no access control lists here: %v %s", err, out)
	}
	for i, want := range []syscall.Errno{1: syscall.EACCES, 2: 0, 3: 0} {
		if i == 0 {
			continue
		}
		read := call{Op: "open", Path: filepath.Join(r.mount, "file"), A: syscall.O_RDONLY}
		if a := startChild(t, users[i]).call(t, read); a.Errno != want {
			t.Errorf("%s at the mount: %v, want %v", users[i].Name, a.Errno, want)
		}
		read.Path = "file"
		if a := startClient(t, r, users[i]).call(t, read); a.Errno != statusOf(want) {
			t.Errorf("%s at SFTP: status %d, want %d", users[i].Name, a.Errno, statusOf(want))
		}
	}
}

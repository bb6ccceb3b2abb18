package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestHelperArgs(t *testing.T) {
	tests := []struct{ in, want string }{
		{"sftpbridge serve mem:", "serve mem:"},
		{"sftpbridge mem: /mnt", "mount --daemon -- mem: /mnt"},
		{"sftpbridge host:x /mnt -o rw,identity=/k", "mount --daemon -o rw,identity=/k -- host:x /mnt"},
		{"/sbin/mount.sftpbridge host:x /mnt -o ro", "mount --daemon -o ro -- host:x /mnt"},
		{"/sbin/mount.fuse.sftpbridge -o ro host:x /mnt -n -t fuse.sftpbridge", "mount --daemon -o ro -- host:x /mnt"},
		{"mount.sftpbridge -s -v host:x /mnt -r", "mount --daemon --read-only -- host:x /mnt"},
		{"mount.sftpbridge -f host:x /mnt", "version"},
		{"sftpbridge /srv /mnt", "mount --daemon -- /srv /mnt"},
		{"sftpbridge demo /mnt", "demo /mnt"},
		{"sftpbridge --help", "--help"},
	}
	for _, test := range tests {
		got, err := helperArgs(strings.Fields(test.in))
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.in, got, err, test.want)
		}
	}
	for _, in := range []string{"mount.sftpbridge host:x", "mount.sftpbridge a:b c d", "sftpbridge a:b /c -o", "mount.sftpbridge a:b /c -N x"} {
		if got, err := helperArgs(strings.Fields(in)); err == nil {
			t.Errorf("%s: got %q, want an error", in, got)
		}
	}
}

func TestSplitOptions(t *testing.T) {
	got := splitOptions(`ro,,identity=/a\,b,x=c\\d,allow_other`)
	want := []string{"ro", "identity=/a,b", `x=c\d`, "allow_other"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOptionsAreFlags(t *testing.T) {
	cmd := newMount(nil)
	var f treeFlags
	fs := cmd.Flags()
	f.options = []string{"ro,allow_other,port=2222", "identity=/k1,identity=/k2,noatime,_netdev,x-systemd.automount"}
	if err := f.applyOptions(fs); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"read-only": "true", "allow-other": "true", "port": "2222", "identity": "[/k1,/k2]"} {
		if got := fs.Lookup(name).Value.String(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if !slices.Equal(f.fuseOpts, []string{"noatime", "_netdev", "x-systemd.automount"}) {
		t.Errorf("left for the mount: %q", f.fuseOpts)
	}
}

// TestRemount turns a mount read-only and back, with options as mount(8) gives
// them: those that it had, and those that are new.
func TestRemount(t *testing.T) {
	needFUSE(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := mountPoint(t)
	p := start(t, "mount", "mem:", dir)
	p.line("mounted ")
	f := filepath.Join(dir, "f")
	for _, c := range []struct {
		options string
		want    error
	}{{"", nil}, {"rw,user_id=0,group_id=0,remount,ro", syscall.EROFS}, {"ro,remount,rw", nil}} {
		if c.options != "" {
			if out, err := reexec(t, "mem:", dir, "-o", c.options).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", c.options, err, out)
			}
		}
		if err := os.WriteFile(f, nil, 0o644); !errors.Is(err, c.want) {
			t.Errorf("writing after %q: %v, want %v", c.options, err, c.want)
		}
	}
	if out, err := reexec(t, "mem:", t.TempDir(), "-o", "remount,ro").CombinedOutput(); err == nil {
		t.Errorf("what is not mounted is mounted again: %s", out)
	}
}

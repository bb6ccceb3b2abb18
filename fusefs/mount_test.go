package fusefs_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
)

func TestOtherDoorIsSeen(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		f := s.path("f")
		if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("stat of nothing: %v", err)
		}
		s.do("write", "/f", "one")
		wantFile(t, f, "one")
		open, err := os.Open(f)
		must(t, err)
		defer open.Close()
		s.do("write", "/f", "twos")
		wantFile(t, f, "twos")
		if fi, err := open.Stat(); err != nil || fi.Size() != 4 {
			t.Errorf("size %v, %v, want 4", fi, err)
		}
		buf := make([]byte, 4)
		if _, err := open.ReadAt(buf, 0); err != nil || string(buf) != "twos" {
			t.Errorf("open file: %q, %v", buf, err)
		}
		s.do("chmod", "/f", "0600")
		if fi, err := os.Stat(f); err != nil || fi.Mode() != 0o600 {
			t.Errorf("mode %v, %v, want 600", fi, err)
		}
		s.do("rename", "/f", "/g")
		if _, err := os.Stat(f); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("old name: %v", err)
		}
		wantFile(t, s.path("g"), "twos")
		s.do("remove", "/g")
		if _, err := os.Stat(s.path("g")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("removed name: %v", err)
		}
		must(t, os.WriteFile(s.path("h"), []byte("mount's"), 0o644))
		if got := s.do("read", "/h"); got != "mount's" {
			t.Errorf("the other door reads %q", got)
		}
	})
}

func TestTwoMountsOfOneTree(t *testing.T) {
	backends := map[string]config{"memfs": {}, "localfs": {Local: t.TempDir()}}
	for name, c := range backends {
		t.Run(name, func(t *testing.T) {
			c.Second = t.TempDir()
			s := start(t, c)
			for i := range 20 {
				a, b := s.path("f"), filepath.Join(c.Second, "f")
				if i%2 == 1 {
					a, b = b, a
				}
				want := strings.Repeat("x", i+1)
				must(t, os.WriteFile(a, []byte(want), 0o644))
				wantFile(t, b, want)
				must(t, os.Chmod(a, os.FileMode(0o600+i)))
				if fi, err := os.Stat(b); err != nil || fi.Mode() != os.FileMode(0o600+i) {
					t.Errorf("mode: %v, %v", fi, err)
				}
				must(t, os.Rename(b, b+"2"))
				if _, err := os.Stat(a); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("renamed: %v", err)
				}
				wantFile(t, a+"2", want)
				must(t, os.Remove(a+"2"))
				if _, err := os.Stat(b + "2"); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("removed: %v", err)
				}
			}
		})
	}
}

func TestMountByAUser(t *testing.T) {
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip(err)
	}
	if fi, err := os.Stat("/dev/fuse"); err == nil && fi.Mode().Perm()&0o006 != 0o006 {
		t.Skip("users may not open /dev/fuse")
	}
	dir := publicDir(t)
	must(t, os.Chown(dir, 1000, 1000))
	s := start(t, config{Dir: dir, UID: 1000, Avatar: bridge.Cred{UID: 1000, GID: 1000}, Mount: []string{"noexec"}})
	s.do("chmod", "/", "0777")
	f := s.path("f")
	if got := as(t, 1000, "write", f); got != "OK" {
		t.Errorf("write: %s", got)
	}
	if got := as(t, 1001, "read", f); got != syscall.EACCES.Error() {
		t.Errorf("read by another user: %s", got)
	}
	if _, err := os.Stat(f); !errors.Is(err, syscall.EACCES) {
		t.Errorf("stat by root: %v", err)
	}
	if got := s.do("read", "/f"); got != "written" {
		t.Errorf("the other door reads %q", got)
	}
	s.do("unmount")
	if got := as(t, 1000, "read", f); got != syscall.ENOENT.Error() {
		t.Errorf("after unmount: %s", got)
	}
}

func TestMountOfSubdirectory(t *testing.T) {
	s := start(t, config{Root: "/sub"})
	must(t, os.WriteFile(s.path("f"), []byte("inside"), 0o644))
	if got := s.do("read", "/sub/f"); got != "inside" {
		t.Errorf("got %q", got)
	}
	s.do("write", "/sub/g", "outside")
	wantFile(t, s.path("g"), "outside")
	s.do("chmod", "/sub", "0700")
	if fi, err := os.Stat(s.dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode of the root: %v, %v", fi, err)
	}
	if _, err := os.Lstat(filepath.Join(s.dir, "../sub")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is beside the root: %v", err)
	}
}

func TestReadOnlyMount(t *testing.T) {
	s := start(t, config{RO: true})
	s.do("write", "/f", "x")
	wantFile(t, s.path("f"), "x")
	wantErrno(t, "write", os.WriteFile(s.path("f"), nil, 0o644), syscall.EROFS)
	wantErrno(t, "mkdir", os.Mkdir(s.path("d"), 0o755), syscall.EROFS)
}

func TestSourceAndTypeAreShown(t *testing.T) {
	s := start(t, config{Mount: []string{"fsname=host:/dir", "noexec"}})
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if f[1] != s.dir {
			continue
		}
		if f[0] != "host:/dir" || f[2] != "fuse.sftpbridge" || !strings.Contains(f[3], "noexec") || !strings.Contains(f[3], "nosuid") {
			t.Errorf("mounts has %s", line)
		}
		return
	}
	t.Error("not mounted")
}

func TestMountPointMustBeADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(file, nil, 0o644))
	for dir, want := range map[string]syscall.Errno{file: syscall.ENOTDIR, file + "x": syscall.ENOENT} {
		s := spawn(t, config{Dir: dir})
		if line := s.line(); !strings.Contains(line, dir+": "+want.Error()) {
			t.Errorf("%s: %s", dir, line)
		}
		s.cmd.Wait()
		s.cmd = nil
	}
}

func TestStaleMountIsReplaced(t *testing.T) {
	dir := t.TempDir()
	s := start(t, config{Dir: dir})
	must(t, os.WriteFile(s.path("f"), nil, 0o644))
	s.kill()
	if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("mount of a killed server: %v", err)
	}
	s = start(t, config{Dir: dir})
	s.expect = "taking away a dead mount"
	if _, err := os.Stat(s.path("f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the new mount has the old one's file: %v", err)
	}
}

func TestUnmountWhileBusy(t *testing.T) {
	back := t.TempDir()
	for name, c := range map[string]config{"memfs": {}, "localfs": {Local: back}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, c)
			f, err := os.Create(s.path("f"))
			must(t, err)
			defer f.Close()
			_, err = f.WriteString("written")
			must(t, err)
			s.do("unmount")
			if _, err := os.Stat(s.path("f")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("name after unmount: %v", err)
			}
			if c.Local == "" {
				_, err = f.WriteString("more")
				wantErrno(t, "write to a file of an ended mount", err, syscall.ENOTCONN)
			} else {
				wantFile(t, filepath.Join(back, "f"), "written")
			}
		})
	}
}

func TestUnmountByOthersEndsTheServer(t *testing.T) {
	s := start(t, config{})
	must(t, os.WriteFile(s.path("f"), nil, 0o644))
	must(t, syscall.Unmount(s.dir, 0))
	end := time.Now().Add(deadline)
	for {
		if _, err := os.Stat(s.path("f")); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("still mounted")
		}
	}
	s.do("unmount")
}

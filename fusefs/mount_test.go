package fusefs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOtherDoorIsSeen(t *testing.T) {
	backends(t, func(t *testing.T, s *server) {
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

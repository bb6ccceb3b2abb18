package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// backends runs f on a mount over each backend that needs no network.
func backends(t *testing.T, f func(t *testing.T, s *server)) {
	t.Run("memfs", func(t *testing.T) { f(t, start(t, config{})) })
	t.Run("localfs", func(t *testing.T) { f(t, start(t, config{Local: t.TempDir()})) })
}

// allBackends runs f on a mount over each backend.
func allBackends(t *testing.T, f func(t *testing.T, s *server)) {
	backends(t, f)
	t.Run("sftpfs", func(t *testing.T) {
		needUpstream(t)
		f(t, start(t, config{Remote: t.TempDir()}))
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
	}
}

func TestRenameFlags(t *testing.T) {
	backends(t, func(t *testing.T, s *server) {
		a, b := s.path("a"), s.path("b")
		must(t, os.WriteFile(a, []byte("a"), 0o644))
		must(t, os.WriteFile(b, []byte("b"), 0o644))
		rename := func(flags uint) error { return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, flags) }
		wantErrno(t, "NOREPLACE", rename(unix.RENAME_NOREPLACE), syscall.EEXIST)
		wantErrno(t, "WHITEOUT", rename(unix.RENAME_WHITEOUT), syscall.EINVAL)
		must(t, rename(unix.RENAME_EXCHANGE))
		wantFile(t, a, "b")
		wantFile(t, b, "a")
		must(t, rename(0))
		wantFile(t, b, "b")
		if _, err := os.Lstat(a); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("renamed name: %v", err)
		}
	})
}

func TestReplacedNameIsThere(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		path := s.path("f")
		must(t, os.WriteFile(path, []byte("0"), 0o644))
		var failed, tried int
		done := make(chan error, 1)
		go func() {
			for i := range 200 {
				if err := os.WriteFile(path+".new", []byte(strconv.Itoa(i)), 0o644); err != nil {
					done <- err
					return
				}
				if err := os.Rename(path+".new", path); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		for {
			select {
			case err := <-done:
				must(t, err)
				// The name may be replaced under the kernel's second look
				// too, but that is rare.
				if failed > tried/4 {
					t.Errorf("%d of %d times the name was absent", failed, tried)
				}
				t.Logf("%d of %d times the name was absent", failed, tried)
				return
			default:
			}
			if _, err := os.ReadFile(path); err != nil {
				failed++
			}
			if _, err := os.Stat(path); err != nil {
				failed++
			}
			tried += 2
		}
	})
}

func TestXattr(t *testing.T) {
	backends(t, func(t *testing.T, s *server) {
		f := s.path("f")
		must(t, os.WriteFile(f, nil, 0o644))
		must(t, unix.Setxattr(f, "user.a", []byte("one"), unix.XATTR_CREATE))
		wantErrno(t, "XATTR_CREATE", unix.Setxattr(f, "user.a", nil, unix.XATTR_CREATE), syscall.EEXIST)
		wantErrno(t, "XATTR_REPLACE", unix.Setxattr(f, "user.b", nil, unix.XATTR_REPLACE), syscall.ENODATA)
		buf := make([]byte, 64)
		n, err := unix.Getxattr(f, "user.a", buf)
		if err != nil || string(buf[:n]) != "one" {
			t.Errorf("value %q, %v", buf[:max(n, 0)], err)
		}
		if n, err = unix.Getxattr(f, "user.a", nil); n != 3 || err != nil {
			t.Errorf("length %d, %v", n, err)
		}
		_, err = unix.Getxattr(f, "user.a", buf[:2])
		wantErrno(t, "short buffer", err, syscall.ERANGE)
		_, err = unix.Getxattr(f, "system.posix_acl_access", buf)
		wantErrno(t, "get ACL", err, syscall.EOPNOTSUPP)
		_, err = unix.Getxattr(f, "security.capability", buf)
		wantErrno(t, "get capability", err, syscall.ENODATA)
		if n, err = unix.Listxattr(f, buf); err != nil || !strings.Contains(string(buf[:n]), "user.a\x00") {
			t.Errorf("list %q, %v", buf[:max(n, 0)], err)
		}
		must(t, unix.Removexattr(f, "user.a"))
		wantErrno(t, "remove again", unix.Removexattr(f, "user.a"), syscall.ENODATA)
	})
}

func TestFallocateAndHoles(t *testing.T) {
	backends(t, func(t *testing.T, s *server) {
		f, err := os.Create(s.path("f"))
		must(t, err)
		defer f.Close()
		fd := int(f.Fd())
		must(t, unix.Fallocate(fd, 0, 0, 1<<20))
		if fi, err := f.Stat(); err != nil || fi.Size() != 1<<20 {
			t.Errorf("size after fallocate: %v, %v", fi.Size(), err)
		}
		must(t, f.Truncate(0))
		must(t, f.Truncate(8<<20))
		_, err = f.WriteAt(bytes.Repeat([]byte{1}, 1<<20), 4<<20)
		must(t, err)
		if off, err := unix.Seek(fd, 0, unix.SEEK_DATA); off != 4<<20 || err != nil {
			t.Errorf("SEEK_DATA: %d, %v", off, err)
		}
		if off, err := unix.Seek(fd, 4<<20, unix.SEEK_HOLE); off != 5<<20 || err != nil {
			t.Errorf("SEEK_HOLE: %d, %v", off, err)
		}
		_, err = unix.Seek(fd, 8<<20, unix.SEEK_DATA)
		wantErrno(t, "SEEK_DATA at the end", err, syscall.ENXIO)
	})
}

// appendLines appends a hundred lines that begin with who.
func appendLines(path, who string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	for i := range 100 {
		if _, err := fmt.Fprintf(f, "%s %03d\n", who, i); err != nil {
			return err
		}
	}
	return f.Close()
}

func TestAppendFromTwoProcesses(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		path := s.path("log")
		must(t, os.WriteFile(path, nil, 0o644))
		a, b := self(t, "append", path, "a"), self(t, "append", path, "b")
		must(t, a.Start())
		must(t, b.Start())
		s.do("append", "/log", "c 000\n")
		must(t, errors.Join(a.Wait(), b.Wait()))
		data, err := os.ReadFile(path)
		must(t, err)
		seen := make(map[string]bool)
		for line := range strings.Lines(string(data)) {
			seen[line] = true
		}
		if len(seen) != 201 || len(data) != 201*6 {
			t.Errorf("%d different lines, %d bytes, want 201 and %d", len(seen), len(data), 201*6)
		}
	})
}

func TestMmapSharedWrite(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		path := s.path("f")
		must(t, os.WriteFile(path, make([]byte, 8192), 0o644))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		defer f.Close()
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		copy(m[4090:], "across pages")
		must(t, unix.Msync(m, unix.MS_SYNC))
		if got := s.do("read", "/f"); !strings.Contains(got, "across pages") {
			t.Error("the other door does not see what was written to the map")
		}
		must(t, unix.Munmap(m))
	})
}

func TestDirectIO(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		f, err := os.OpenFile(s.path("f"), os.O_RDWR|os.O_CREATE|syscall.O_DIRECT, 0o644)
		must(t, err)
		defer f.Close()
		buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		must(t, err)
		defer unix.Munmap(buf)
		for i := range buf {
			buf[i] = byte(i % 251)
		}
		want := bytes.Clone(buf)
		_, err = f.WriteAt(buf, 0)
		must(t, err)
		clear(buf)
		_, err = f.ReadAt(buf, 0)
		must(t, err)
		if !bytes.Equal(buf, want) {
			t.Error("not what was written")
		}
	})
}

func TestTmpfileIsUnsupported(t *testing.T) {
	s := start(t, config{})
	_, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	wantErrno(t, "O_TMPFILE", err, syscall.EOPNOTSUPP)
}

func TestListWhileRemoving(t *testing.T) {
	const entries = 10_000
	s := start(t, config{})
	s.do("fill", "/", strconv.Itoa(entries))
	f, err := os.Open(s.dir)
	must(t, err)
	defer f.Close()
	seen := make(map[string]bool)
	for {
		names, err := f.Readdirnames(500)
		for _, name := range names {
			if seen[name] {
				t.Fatalf("%s is listed twice", name)
			}
			seen[name] = true
		}
		for _, name := range names[:len(names)/5] {
			must(t, os.Remove(s.path(name)))
		}
		if err != nil {
			break
		}
	}
	if len(seen) != entries {
		t.Errorf("%d entries were listed, want %d", len(seen), entries)
	}
	left, err := os.ReadDir(s.dir)
	if want := entries - entries/5; err != nil || len(left) != want {
		t.Errorf("%d entries are left, want %d, %v", len(left), want, err)
	}
}

func TestUnlinkedOpenFile(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		f, err := os.OpenFile(s.path("f"), os.O_RDWR|os.O_CREATE, 0o644)
		must(t, err)
		defer f.Close()
		must(t, os.Link(f.Name(), s.path("g")))
		var st unix.Stat_t
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink != 2 {
			t.Errorf("nlink %d, want 2", st.Nlink)
		}
		must(t, os.Remove(f.Name()))
		must(t, os.Remove(s.path("g")))
		_, err = f.WriteString("still here")
		must(t, err)
		must(t, f.Chmod(0o600))
		must(t, f.Truncate(5))
		must(t, unix.Fstat(int(f.Fd()), &st))
		if st.Nlink != 0 || st.Size != 5 || st.Mode&0o777 != 0o600 {
			t.Errorf("nlink %d, size %d, mode %o, want 0, 5, 600", st.Nlink, st.Size, st.Mode&0o777)
		}
		buf := make([]byte, 5)
		if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "still" {
			t.Errorf("read %q, %v", buf, err)
		}
	})
}

func TestModeAndUmask(t *testing.T) {
	s := start(t, config{})
	defer syscall.Umask(syscall.Umask(0o027))
	must(t, os.WriteFile(s.path("f"), nil, 0o666))
	must(t, os.Mkdir(s.path("d"), 0o777))
	must(t, unix.Mkfifo(s.path("p"), 0o666))
	must(t, unix.Mknod(s.path("r"), unix.S_IFREG|0o666, 0))
	for name, want := range map[string]os.FileMode{
		"f": 0o640, "d": os.ModeDir | 0o750, "p": os.ModeNamedPipe | 0o640, "r": 0o640,
	} {
		fi, err := os.Lstat(s.path(name))
		must(t, err)
		if fi.Mode() != want {
			t.Errorf("%s: mode %v, want %v", name, fi.Mode(), want)
		}
	}
}

func TestTimes(t *testing.T) {
	s := start(t, config{})
	must(t, os.WriteFile(s.path("f"), nil, 0o644))
	for _, want := range []time.Time{
		time.Unix(1234567890, 123456789),
		time.Unix(-1234567890, 5),
		time.Unix(1<<33, 999999999),
	} {
		must(t, os.Chtimes(s.path("f"), want, want.Add(time.Second)))
		var st unix.Stat_t
		must(t, unix.Lstat(s.path("f"), &st))
		if a, m := time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()); !a.Equal(want) || !m.Equal(want.Add(time.Second)) {
			t.Errorf("times %v and %v, want %v and a second later", a, m, want)
		}
	}
}

func TestCopyFileRange(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
		must(t, os.WriteFile(s.path("a"), want, 0o644))
		src, err := os.Open(s.path("a"))
		must(t, err)
		defer src.Close()
		dst, err := os.Create(s.path("b"))
		must(t, err)
		defer dst.Close()
		for done := 0; done < len(want); {
			n, err := unix.CopyFileRange(int(src.Fd()), nil, int(dst.Fd()), nil, len(want)-done, 0)
			must(t, err)
			if n == 0 {
				break
			}
			done += n
		}
		wantFile(t, s.path("b"), string(want))
	})
}

func TestStatfs(t *testing.T) {
	allBackends(t, func(t *testing.T, s *server) {
		var st unix.Statfs_t
		must(t, unix.Statfs(s.dir, &st))
		if st.Namelen != 255 || st.Bsize == 0 {
			t.Errorf("statfs: %+v", st)
		}
	})
}

func TestExecuteOnlyFile(t *testing.T) {
	dir := publicDir(t)
	s := start(t, config{Dir: dir, Users: users(1000)})
	script, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(s.path("true"), script, 0o711))
	cmd := exec.Command(s.path("true"))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	if err := cmd.Run(); err != nil {
		t.Errorf("execute: %v", err)
	}
	if got := as(t, 1000, "read", s.path("true")); got != syscall.EACCES.Error() {
		t.Errorf("read: %s", got)
	}
}

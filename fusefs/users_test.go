package fusefs_test

import (
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// publicDir returns a new directory that every user can reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "fusefs-mount-")
	must(t, err)
	t.Cleanup(func() {
		syscall.Unmount(dir, syscall.MNT_DETACH)
		os.Remove(dir)
	})
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// users returns root and the users with the numbers.
func users(uids ...uint32) []bridge.Cred {
	all := []bridge.Cred{{}}
	for _, uid := range uids {
		all = append(all, bridge.Cred{UID: uid, GID: uid})
	}
	return all
}

func TestSingleAvatarKeepsOthersOut(t *testing.T) {
	s := start(t, config{Dir: publicDir(t)})
	must(t, os.WriteFile(s.path("f"), []byte("x"), 0o666))
	for _, op := range []string{"stat", "read", "write"} {
		if got := as(t, 65534, op, s.path("f")); got != syscall.EACCES.Error() {
			t.Errorf("%s: %s", op, got)
		}
	}
}

func TestSingleAvatarIsChecked(t *testing.T) {
	s := start(t, config{Avatar: bridge.Cred{UID: 1000, GID: 1000}})
	s.do("mkdir", "/home")
	s.do("chown", "/home", "1000")
	s.do("write", "/secret", "root's")
	s.do("chmod", "/secret", "0600")
	_, err := os.ReadFile(s.path("secret"))
	wantErrno(t, "read of root's file", err, syscall.EACCES)
	wantErrno(t, "write in root's directory", os.WriteFile(s.path("x"), nil, 0o644), syscall.EACCES)
	must(t, os.Mkdir(s.path("home/d"), 0o755))
	must(t, os.WriteFile(s.path("home/d/f"), []byte("mine"), 0o644))
	fi, err := os.Stat(s.path("home/d/f"))
	must(t, err)
	if st := fi.Sys().(*syscall.Stat_t); st.Uid != 1000 || st.Gid != 1000 {
		t.Errorf("owner %d:%d, want 1000:1000", st.Uid, st.Gid)
	}
	// Search permission that is gone counts at once, though the kernel
	// remembers the name.
	must(t, os.Chmod(s.path("home/d"), 0))
	_, err = os.Stat(s.path("home/d/f"))
	wantErrno(t, "stat without search permission", err, syscall.EACCES)
	must(t, os.Chmod(s.path("home/d"), 0o755))
	wantFile(t, s.path("home/d/f"), "mine")
	s.do("chmod", "/home/d", "0")
	_, err = os.Stat(s.path("home/d/f"))
	wantErrno(t, "stat after the other door's chmod", err, syscall.EACCES)
}

func TestRulesHold(t *testing.T) {
	s := start(t, config{Rules: bridge.Rules{{Pattern: "/ro/**", Ops: bridge.OpWrite | bridge.OpCreate | bridge.OpDelete}}})
	s.do("mkdir", "/ro")
	s.do("write", "/ro/f", "fixed")
	wantFile(t, s.path("ro/f"), "fixed")
	wantErrno(t, "write", os.WriteFile(s.path("ro/f"), nil, 0o644), syscall.EACCES)
	wantErrno(t, "create", os.WriteFile(s.path("ro/g"), nil, 0o644), syscall.EACCES)
	wantErrno(t, "remove", os.Remove(s.path("ro/f")), syscall.EACCES)
}

func TestAllUsers(t *testing.T) {
	s := start(t, config{Dir: publicDir(t), Users: users(1000, 1001)})
	must(t, os.Mkdir(s.path("tmp"), 0o777))
	must(t, syscall.Chmod(s.path("tmp"), 0o1777))
	f := s.path("tmp/f")
	if got := as(t, 1000, "write", f); got != "OK" {
		t.Fatalf("write: %s", got)
	}
	for _, c := range []struct {
		uid      uint32
		op, path string
		want     string
	}{
		{1001, "read", f, "OK"},
		{1001, "write", f, syscall.EACCES.Error()},
		{1001, "remove", f, syscall.EPERM.Error()},
		{1001, "chmod", f, syscall.EPERM.Error()},
		{1001, "mkdir", s.path("d"), syscall.EACCES.Error()},
		{1002, "write", s.path("tmp/g"), syscall.EACCES.Error()},
		{1002, "read", f, syscall.EACCES.Error()},
		{1000, "chmod", f, "OK"},
		{1001, "write", f, "OK"},
		{1000, "remove", f, "OK"},
	} {
		if got := as(t, c.uid, c.op, c.path); got != c.want {
			t.Errorf("user %d: %s %s: %s, want %s", c.uid, c.op, c.path, got, c.want)
		}
	}
}

// The groups of a user are those of the realm, or those of the process.
func TestGroups(t *testing.T) {
	s := start(t, config{Dir: publicDir(t), Users: []bridge.Cred{{}, {UID: 1000, Groups: []uint32{70}}, {UID: 2000, Groups: []uint32{70}}}})
	must(t, os.Mkdir(s.path("d"), 0o770))
	must(t, os.Chmod(s.path("d"), 0o770))
	denied := syscall.EACCES.Error()
	for _, c := range []struct {
		uid, gid, group uint32
		want            string
	}{
		{1000, 70, 70, "OK"},
		{1000, 70, 80, denied}, // by the kernel
		{1000, 80, 80, denied}, // by the realm
		{2000, 70, 70, "OK"},
		{2000, 80, 80, "OK"},
		{2000, 80, 70, denied},
	} {
		must(t, os.Chown(s.path("d"), 0, int(c.gid)))
		cred := bridge.Cred{UID: c.uid, GID: c.uid, Groups: []uint32{5, c.group}}
		if got := asCred(t, cred, "mkdir", s.path("d/new")); got != c.want {
			t.Errorf("user %d in group %d uses a directory of %d: %s, want %s", c.uid, c.group, c.gid, got, c.want)
		}
		os.Remove(s.path("d/new"))
	}
}

func TestOwnerChangedElsewhere(t *testing.T) {
	s := start(t, config{Dir: publicDir(t), Users: users(1000)})
	s.do("write", "/f", "x")
	s.do("chmod", "/f", "0600")
	if got := as(t, 1000, "read", s.path("f")); got != syscall.EACCES.Error() {
		t.Fatalf("read of another's file: %s", got)
	}
	s.do("chown", "/f", "1000")
	if got := as(t, 1000, "chmod", s.path("f")); got != "OK" {
		t.Errorf("chmod by the new owner: %s", got)
	}
	if got := as(t, 1000, "read", s.path("f")); got != "OK" {
		t.Errorf("read by the new owner: %s", got)
	}
}

func TestWriteClearsSetID(t *testing.T) {
	for name, c := range map[string]config{"memfs": {}, "localfs": {Local: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			c.Dir, c.Users, c.Long = publicDir(t), users(1000), true
			s := start(t, c)
			f := s.path("f")
			must(t, os.WriteFile(f, nil, 0o644))
			for _, w := range []struct {
				uid  uint32
				want uint16
			}{{0, 0o6777}, {1000, 0o777}} {
				for _, op := range []string{"append", "allocate", "copy"} {
					must(t, syscall.Chmod(f, 0o6777))
					if got := as(t, w.uid, op, f, "x"); got != "OK" {
						t.Fatalf("user %d, %s: %s", w.uid, op, got)
					}
					s.wantMode(f, w.want)
				}
			}
		})
	}
}

// changeRange opens a file and changes it.
func changeRange(path string, change func(fd int) error) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return change(int(f.Fd()))
}

// wantMode waits for a mode: the kernel is told of one that a write changed
// only after the write. Nothing but the mode is asked for, as it is fetched
// again with the size.
func (s *server) wantMode(path string, want uint16) {
	s.t.Helper()
	var st unix.Statx_t
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(time.Millisecond) {
		must(s.t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MODE, &st))
		if st.Mode&0o7777 == want {
			return
		}
	}
	s.t.Errorf("mode %o, want %o", st.Mode&0o7777, want)
}

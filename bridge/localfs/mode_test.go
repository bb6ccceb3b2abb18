package localfs

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// makers make a file of each type.
var makers = map[string]func(fs *FS, t *testing.T, name string, attr bridge.SetAttr) error{
	"file": func(fs *FS, t *testing.T, name string, attr bridge.SetAttr) error {
		f, err := fs.Open(t.Context(), name, unix.O_WRONLY|unix.O_CREAT, attr)
		if err != nil {
			return err
		}
		return f.Close(t.Context())
	},
	"exclusive": func(fs *FS, t *testing.T, name string, attr bridge.SetAttr) error {
		f, err := fs.Open(t.Context(), name, unix.O_RDONLY|unix.O_CREAT|unix.O_EXCL, attr)
		if err != nil {
			return err
		}
		return f.Close(t.Context())
	},
	"dir": func(fs *FS, t *testing.T, name string, attr bridge.SetAttr) error {
		return fs.Mkdir(t.Context(), name, attr)
	},
	"fifo": func(fs *FS, t *testing.T, name string, attr bridge.SetAttr) error {
		return fs.Mknod(t.Context(), name, unix.S_IFIFO|attr.Mode, 0, attr)
	},
	"node": func(fs *FS, t *testing.T, name string, attr bridge.SetAttr) error {
		return fs.Mknod(t.Context(), name, unix.S_IFREG|attr.Mode, 0, attr)
	},
}

// TestMadeModes checks that neither the umask nor a set-gid directory changes
// the mode that was asked for.
func TestMadeModes(t *testing.T) {
	modes := []uint32{0, 0o644, 0o777, 0o666, 0o070, 0o6755, 0o1777, 0o2710}
	for _, umask := range []int{0, 0o022, 0o777} {
		for what, make := range makers {
			fs, dir := newFS(t)
			must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
			must(t, os.Chmod(filepath.Join(dir, "d"), 0o777|os.ModeSetgid))
			old := unix.Umask(umask)
			for _, m := range modes {
				name := "d/" + string(rune('a'+m%26)) + what
				if err := make(fs, t, name, mode(m)); err != nil {
					t.Errorf("%s %o with umask %o: %v", what, m, umask, err)
					continue
				}
				a, err := fs.Lstat(t.Context(), name)
				if err != nil || a.Perm() != m {
					t.Errorf("%s with umask %o: mode %o, want %o (%v)", what, umask, a.Perm(), m, err)
				}
				must(t, removeAny(fs, t, name))
			}
			unix.Umask(old)
		}
	}
}

func removeAny(fs *FS, t *testing.T, name string) error {
	err := fs.Remove(t.Context(), name)
	if err == syscall.EISDIR {
		return fs.Rmdir(t.Context(), name)
	}
	return err
}

func TestMadeOwners(t *testing.T) {
	needRoot(t)
	attr := bridge.SetAttr{Valid: bridge.SetMode | bridge.SetUID | bridge.SetGID, Mode: 0o6751, UID: 1234, GID: 4321}
	for what, make := range makers {
		fs, dir := newFS(t)
		must(t, os.Chown(dir, 0, 77))
		must(t, os.Chmod(dir, 0o777|os.ModeSetgid))
		must(t, make(fs, t, "x", attr))
		a, err := fs.Lstat(t.Context(), "x")
		if err != nil || a.UID != 1234 || a.GID != 4321 || a.Perm() != 0o6751 {
			t.Errorf("%s: %o %d:%d (%v)", what, a.Perm(), a.UID, a.GID, err)
		}
	}
	fs, _ := newFS(t)
	must(t, fs.Symlink(t.Context(), "/nowhere", "link", attr))
	a, err := fs.Lstat(t.Context(), "link")
	if err != nil || !a.IsSymlink() || a.UID != 1234 || a.GID != 4321 {
		t.Errorf("symbolic link: %o %d:%d (%v)", a.Mode, a.UID, a.GID, err)
	}
}

func TestMadeTimes(t *testing.T) {
	mtime := time.Date(1969, 12, 31, 23, 59, 58, 987654321, time.UTC)
	attr := bridge.SetAttr{Valid: bridge.SetMode | bridge.SetMtime, Mode: 0o600, Mtime: mtime}
	for what, make := range makers {
		fs, _ := newFS(t)
		must(t, make(fs, t, "x", attr))
		a, err := fs.Lstat(t.Context(), "x")
		if err != nil || !a.Mtime.Equal(mtime) {
			t.Errorf("%s: mtime %v, want %v (%v)", what, a.Mtime, mtime, err)
		}
	}
}

func TestChmodProc(t *testing.T) {
	fs, dir := newFS(t)
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o700))
	n, err := fs.inode(t.Context(), "d")
	must(t, err)
	defer n.close()
	must(t, chmodProc(n.fd, 0o1751))
	a, err := fs.Lstat(t.Context(), "d")
	if err != nil || a.Perm() != 0o1751 {
		t.Errorf("mode %o (%v)", a.Perm(), err)
	}
}

// TestUnprivileged does what a process does that is not root.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	const uid, gid, other = 1234, 4321, 999
	fs, dir := newFS(t)
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755)) // the path is not used, but the root must be searched
	}
	must(t, os.Chmod(dir, 0o777))
	must(t, os.WriteFile(filepath.Join(dir, "roots"), []byte("x"), 0o644))
	asUser(t, uid, gid, func() {
		for what, make := range makers {
			own := bridge.SetAttr{Valid: bridge.SetMode | bridge.SetUID | bridge.SetGID, Mode: 0o640, UID: uid, GID: gid}
			wantErrno(t, what+" of one's own", make(fs, t, what, own), 0)
			wantErrno(t, what+" without owner", make(fs, t, what+"2", mode(0o640)), 0)
			for _, valid := range []bridge.SetFields{bridge.SetUID, bridge.SetGID, bridge.SetUID | bridge.SetGID} {
				foreign := bridge.SetAttr{Valid: bridge.SetMode | valid, Mode: 0o640, UID: other, GID: other}
				wantErrno(t, what+" for another", make(fs, t, what+"3", foreign), syscall.EPERM)
			}
			_, err := fs.Lstat(t.Context(), what+"3")
			wantErrno(t, what+" for another is there", err, syscall.ENOENT)
		}
		for _, c := range []struct {
			name string
			attr bridge.SetAttr
			want syscall.Errno
		}{
			{"file", bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID, UID: uid, GID: gid}, 0},
			{"file", bridge.SetAttr{Valid: bridge.SetUID, UID: other}, syscall.EPERM},
			{"roots", bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID}, 0},
			{"roots", bridge.SetAttr{Valid: bridge.SetUID, UID: uid}, syscall.EPERM},
			{"roots", mode(0o666), syscall.EPERM},
			{"roots", bridge.SetAttr{Valid: bridge.SetSize}, syscall.EACCES},
			{"roots", bridge.SetAttr{Valid: bridge.SetMtime | bridge.SetMtimeNow}, syscall.EPERM},
		} {
			wantErrno(t, "SetAttr of "+c.name, fs.SetAttr(t.Context(), c.name, c.attr), c.want)
		}
	})
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// asUser calls f on a thread that meets the file system as another user, and
// ends with it.
func asUser(t *testing.T, uid, gid int, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			t.Errorf("setgroups: %v", errno)
			return
		}
		if err := unix.Setfsgid(gid); err != nil {
			t.Errorf("setfsgid: %v", err)
			return
		}
		if err := unix.Setfsuid(uid); err != nil {
			t.Errorf("setfsuid: %v", err)
			return
		}
		f()
	}()
	<-done
}

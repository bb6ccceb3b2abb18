//go:build amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x

package rights

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
	"sftpbridge/bridge/backendtest"
	"sftpbridge/bridge/localfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type credKey struct{}

func withCred(ctx context.Context, cred bridge.Cred) context.Context {
	return context.WithValue(ctx, credKey{}, cred)
}

func credOf(ctx context.Context) (bridge.Cred, bool) {
	cred, ok := ctx.Value(credKey{}).(bridge.Cred)
	return cred, ok
}

// newFS returns an FS over a new directory, and the directory.
func newFS(t *testing.T) (*FS, string) {
	t.Helper()
	dir := t.TempDir()
	local, err := localfs.New(dir)
	must(t, err)
	fs, err := New(local, credOf)
	must(t, err)
	return fs, dir
}

func TestBackend(t *testing.T) {
	needRoot(t)
	backendtest.Run(t, func(t *testing.T) bridge.Backend {
		fs, _ := newFS(t)
		return fs
	}, backendtest.Options{})
}

// TestAs checks the credentials inside and after, in many goroutines at once.
func TestAs(t *testing.T) {
	needRoot(t)
	before, err := ownCred()
	must(t, err)
	var all sync.WaitGroup
	for worker := range uint32(8) {
		all.Go(func() {
			for round := range uint32(50) {
				cred := bridge.Cred{UID: 1000 + worker, GID: 2000 + worker, Groups: []uint32{round, 5000}}
				err := As(cred, func() error {
					groups, err := unix.Getgroups()
					slices.Sort(groups)
					if fsuid() != cred.UID || fsgid() != cred.GID || !slices.Equal(groups, []int{int(round), 5000}) {
						t.Errorf("credentials %d:%d %v, want %+v", fsuid(), fsgid(), groups, cred)
					}
					return errors.Join(err, syscall.EXDEV)
				})
				if !errors.Is(err, syscall.EXDEV) {
					t.Errorf("As returns %v", err)
				}
				if own, err := ownCred(); err != nil || own.UID != before.UID || own.GID != before.GID || !slices.Equal(own.Groups, before.Groups) {
					t.Errorf("credentials afterwards are %+v, %v; want %+v", own, err, before)
				}
			}
		})
	}
	all.Wait()
}

func TestAsPanics(t *testing.T) {
	needRoot(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is gone")
			}
		}()
		_ = As(bridge.Cred{UID: 1000, GID: 1000}, func() error { panic("in f") })
	}()
	if fsuid() != 0 || fsgid() != 0 {
		t.Errorf("after a panic the thread is %d:%d", fsuid(), fsgid())
	}
}

func TestAsNobody(t *testing.T) {
	if err := As(bridge.Cred{UID: 1<<32 - 1}, func() error { return nil }); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("As no user: %v", err)
	}
}

// TestVerdicts checks that the kernel decides, for each user as it does.
func TestVerdicts(t *testing.T) {
	needRoot(t)
	fs, dir := newFS(t)
	must(t, os.Chmod(dir, 0o755))
	owner := bridge.Cred{UID: 1000, GID: 1000}
	member := bridge.Cred{UID: 1001, GID: 1001, Groups: []uint32{4, 3000}}
	stranger := bridge.Cred{UID: 1002, GID: 1002}
	mkdir := func(name string, mode os.FileMode, uid, gid int) {
		path := filepath.Join(dir, name)
		must(t, os.Mkdir(path, 0o700))
		must(t, os.Chown(path, uid, gid))
		must(t, os.Chmod(path, mode))
	}
	mkdir("group", 0o770, 1000, 3000)
	mkdir("sticky", 0o777|os.ModeSticky, 0, 0)
	must(t, os.WriteFile(filepath.Join(dir, "group/f"), []byte("x"), 0o640))
	must(t, os.Chown(filepath.Join(dir, "group/f"), 1000, 3000))
	must(t, os.WriteFile(filepath.Join(dir, "sticky/f"), nil, 0o644))

	open := func(name string, flags bridge.OpenFlags) func(context.Context) error {
		return func(ctx context.Context) error {
			f, err := fs.Open(ctx, name, flags, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
			if err != nil {
				return err
			}
			return f.Close(ctx)
		}
	}
	list := func(ctx context.Context) error {
		for _, err := range fs.ReadDir(ctx, "group") {
			if err != nil {
				return err
			}
		}
		return nil
	}
	chmod := func(ctx context.Context) error {
		return fs.SetAttr(ctx, "group/f", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o640})
	}
	lstat := func(ctx context.Context) error { _, err := fs.Lstat(ctx, "group/f"); return err }
	remove := func(ctx context.Context) error { return fs.Remove(ctx, "sticky/f") }
	for _, c := range []struct {
		what string
		do   func(context.Context) error
		want [3]syscall.Errno // owner, member, stranger
	}{
		{"lstat", lstat, [3]syscall.Errno{0, 0, syscall.EACCES}},
		{"list", list, [3]syscall.Errno{0, 0, syscall.EACCES}},
		{"read", open("group/f", unix.O_RDONLY), [3]syscall.Errno{0, 0, syscall.EACCES}},
		{"write", open("group/f", unix.O_WRONLY), [3]syscall.Errno{0, syscall.EACCES, syscall.EACCES}},
		{"chmod", chmod, [3]syscall.Errno{0, syscall.EPERM, syscall.EACCES}},
		{"create", open("top", unix.O_WRONLY|unix.O_CREAT), [3]syscall.Errno{syscall.EACCES, syscall.EACCES, syscall.EACCES}},
		{"remove from sticky", remove, [3]syscall.Errno{syscall.EPERM, syscall.EPERM, syscall.EPERM}},
	} {
		for i, cred := range []bridge.Cred{owner, member, stranger} {
			if got := bridge.Errno(c.do(withCred(t.Context(), cred))); got != c.want[i] {
				t.Errorf("%s by %d: %v, want %v", c.what, cred.UID, got, c.want[i])
			}
		}
		if fsuid() != 0 {
			t.Fatalf("after %s the thread is still %d", c.what, fsuid())
		}
	}
}

// TestMadeAs checks that what a user makes is his, with the mode asked for.
func TestMadeAs(t *testing.T) {
	needRoot(t)
	fs, dir := newFS(t)
	must(t, os.Chmod(dir, 0o777))
	ctx := withCred(t.Context(), bridge.Cred{UID: 1000, GID: 1001})
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o664}
	f, err := fs.Open(ctx, "file", unix.O_RDWR|unix.O_CREAT, mode)
	must(t, err)
	must(t, f.SetAttr(ctx, mode))
	if err := f.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetUID, UID: 5}); !errors.Is(err, syscall.EPERM) {
		t.Errorf("chown by handle: %v", err)
	}
	must(t, f.Close(ctx))
	must(t, fs.Mkdir(ctx, "dir", mode))
	must(t, fs.Mknod(ctx, "fifo", unix.S_IFIFO|0o664, 0, bridge.SetAttr{}))
	must(t, fs.Symlink(ctx, "x", "link", bridge.SetAttr{Valid: bridge.SetUID, UID: 1000}))
	for _, name := range []string{"file", "dir", "fifo", "link"} {
		a, err := fs.Lstat(t.Context(), name)
		if err != nil || a.UID != 1000 || a.GID != 1001 || !a.IsSymlink() && a.Perm() != 0o664 {
			t.Errorf("%s: %o %d:%d, %v", name, a.Mode, a.UID, a.GID, err)
		}
	}
	if err := fs.Mkdir(ctx, "other", bridge.SetAttr{Valid: bridge.SetUID, UID: 5}); !errors.Is(err, syscall.EPERM) {
		t.Errorf("mkdir for another: %v", err)
	}
}

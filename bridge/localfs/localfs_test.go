package localfs

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// newFS returns an FS over a new directory, and the directory.
func newFS(t testing.TB) (*FS, string) {
	t.Helper()
	dir := t.TempDir()
	return openFS(t, dir), dir
}

func openFS(t testing.TB, dir string) *FS {
	t.Helper()
	fs, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	return fs
}

// must ends the test if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErrno checks that err wraps the errno, or is nil for 0.
func wantErrno(t testing.TB, what string, err error, want syscall.Errno) {
	t.Helper()
	if got := bridge.Errno(err); got != want {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// put makes the file name with the content.
func put(t testing.TB, fs *FS, name, content string) {
	t.Helper()
	f, err := fs.Open(t.Context(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, bridge.SetAttr{})
	must(t, err)
	_, err = f.WriteAt(t.Context(), []byte(content), 0)
	must(t, err)
	must(t, f.Close(t.Context()))
}

// get returns the content of the file name.
func get(fs *FS, name string) (string, error) {
	ctx := context.Background()
	f, err := fs.Open(ctx, name, unix.O_RDONLY, bridge.SetAttr{})
	if err != nil {
		return "", err
	}
	defer f.Close(ctx)
	buf := make([]byte, 4096)
	n, err := f.ReadAt(ctx, buf, 0)
	if err != io.EOF {
		return "", err
	}
	return string(buf[:n]), nil
}

func mode(m uint32) bridge.SetAttr { return bridge.SetAttr{Valid: bridge.SetMode, Mode: m} }

func TestNew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o644))
	for path, want := range map[string]syscall.Errno{
		file:                         syscall.ENOTDIR,
		filepath.Join(dir, "absent"): syscall.ENOENT,
		"":                           syscall.ENOENT,
	} {
		fs, err := New(path)
		wantErrno(t, "New "+path, err, want)
		if err == nil {
			fs.Close()
		} else if path != "" && !strings.Contains(err.Error(), path) {
			t.Errorf("New %s: the error %q does not name it", path, err)
		}
	}
	must(t, os.Symlink(dir, filepath.Join(dir, "link")))
	openFS(t, filepath.Join(dir, "link"))
}

func TestClosed(t *testing.T) {
	fs, dir := newFS(t)
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644))
	f, err := fs.Open(t.Context(), "f", unix.O_RDONLY, bridge.SetAttr{})
	must(t, err)
	must(t, fs.Close())
	wantErrno(t, "second Close", fs.Close(), syscall.EBADF)
	_, err = fs.Lstat(t.Context(), "f")
	wantErrno(t, "Lstat after Close", err, syscall.EBADF)
	_, err = fs.Open(t.Context(), "f", unix.O_RDONLY, bridge.SetAttr{})
	wantErrno(t, "Open after Close", err, syscall.EBADF)
	wantErrno(t, "WatchDir after Close", fs.WatchDir("."), syscall.EBADF)

	n, err := f.ReadAt(t.Context(), make([]byte, 1), 0)
	if n != 1 || err != nil {
		t.Errorf("read of an open file after Close: %d, %v", n, err)
	}
	must(t, f.Close(t.Context()))
	wantErrno(t, "second Close of a file", f.Close(t.Context()), syscall.EBADF)
}

func TestCheckName(t *testing.T) {
	long := strings.Repeat("a/", bridge.DepthMax/2-1) + "a"
	for name, want := range map[string]syscall.Errno{
		".": 0, "a": 0, "a/b": 0, "\xff": 0, "...": 0, long: 0, " ": 0,
		long + "/b": syscall.ENAMETOOLONG,
		"":          syscall.EINVAL, "/": syscall.EINVAL, "/a": syscall.EINVAL, "a/": syscall.EINVAL,
		"a//b": syscall.EINVAL, "./a": syscall.EINVAL, "a/.": syscall.EINVAL, "..": syscall.EINVAL,
		"../a": syscall.EINVAL, "a/..": syscall.EINVAL, "a/../b": syscall.EINVAL, "a\x00": syscall.EINVAL,
	} {
		wantErrno(t, "checkName "+name, checkName(name), want)
	}
}

// TestDeep goes deeper than any path can name.
func TestDeep(t *testing.T) {
	fs, _ := newFS(t)
	ctx := t.Context()
	name := strings.Repeat("d", 250)
	for len(name) < 3*bridge.PathMax {
		must(t, fs.Mkdir(ctx, name, bridge.SetAttr{}))
		name += "/" + strings.Repeat("d", 250)
	}
	put(t, fs, name, "deep")
	if got, err := get(fs, name); got != "deep" || err != nil {
		t.Errorf("content of a name of %d bytes: %q, %v", len(name), got, err)
	}
	must(t, fs.SetAttr(ctx, name, mode(0o600)))
	a, err := fs.Lstat(ctx, name)
	if err != nil || a.Perm() != 0o600 {
		t.Errorf("attributes: %o, %v", a.Perm(), err)
	}
	must(t, fs.Symlink(ctx, ".", "link", bridge.SetAttr{}))
	_, err = fs.Lstat(ctx, "link/"+name)
	wantErrno(t, "through a symbolic link", err, syscall.ENOTDIR)
	_, err = fs.Lstat(ctx, name+"/x/"+name)
	wantErrno(t, "through a file", err, syscall.ENOTDIR)
	_, err = fs.Lstat(ctx, strings.Repeat("x", 2*bridge.PathMax))
	wantErrno(t, "an element that is too long", err, syscall.ENAMETOOLONG)
	must(t, fs.Rename(ctx, name, "top", 0))
	if got, err := get(fs, "top"); got != "deep" || err != nil {
		t.Errorf("content after rename: %q, %v", got, err)
	}
}

func TestReadDirLarge(t *testing.T) {
	fs, dir := newFS(t)
	want := make(map[string]bool)
	for i := range 600 {
		name := strings.Repeat(string(rune('a'+i%26)), 100) + string(rune('A'+i%50)) + strings.Repeat("x", i/50)
		want[name] = true
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	for e, err := range fs.ReadDir(t.Context(), ".") {
		must(t, err)
		if !want[e.Name] {
			t.Errorf("%q is listed and should not be, or twice", e.Name)
		}
		delete(want, e.Name)
		if !e.Attr.IsRegular() {
			t.Errorf("%q has the type %o", e.Name, e.Attr.Type())
		}
	}
	if len(want) > 0 {
		t.Errorf("%d entries are not listed", len(want))
	}
}

func TestReadDirLeft(t *testing.T) {
	fs, dir := newFS(t)
	for _, name := range []string{"a", "b", "c"} {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	before := openFDs(t)
	for _, err := range fs.ReadDir(t.Context(), ".") {
		must(t, err)
		break
	}
	if after := openFDs(t); after > before {
		t.Errorf("%d descriptors are open, %d before a listing that was left", after, before)
	}
}

// TestDescriptors checks that no operation leaves a descriptor open.
func TestDescriptors(t *testing.T) {
	fs, _ := newFS(t)
	must(t, fs.Mkdir(t.Context(), "d", bridge.SetAttr{}))
	must(t, fs.WatchDir("d")) // the one that stays
	before := openFDs(t)
	for range 3 {
		for _, name := range []string{"a", "d/a", "d", ".", "x/y", "d/../x"} {
			everyOperation(fs, name, "d/b")
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestFifoDoesNotBlock(t *testing.T) {
	fs, dir := newFS(t)
	ctx := t.Context()
	must(t, fs.Mkdir(ctx, "d", bridge.SetAttr{}))
	for _, name := range []string{"fifo", "d/fifo"} {
		must(t, fs.Mknod(ctx, name, unix.S_IFIFO|0o666, 0, bridge.SetAttr{}))
		for _, flags := range []bridge.OpenFlags{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT} {
			_, err := fs.Open(ctx, name, flags, bridge.SetAttr{})
			wantErrno(t, "open of a fifo", err, syscall.ENXIO)
		}
		err := fs.SetAttr(ctx, name, bridge.SetAttr{Valid: bridge.SetSize})
		wantErrno(t, "truncation of a fifo", err, syscall.EINVAL)
		must(t, fs.SetAttr(ctx, name, mode(0o620)))
	}
	r, err := os.OpenFile(filepath.Join(dir, "fifo"), os.O_RDWR, 0)
	must(t, err)
	defer r.Close()
	err = fs.SetAttr(ctx, "fifo", bridge.SetAttr{Valid: bridge.SetSize})
	wantErrno(t, "truncation of a fifo that is read", err, syscall.EINVAL)
}

func TestNotUTF8(t *testing.T) {
	fs, _ := newFS(t)
	put(t, fs, "\xfflatin", "x")
	var names []string
	for e, err := range fs.ReadDir(t.Context(), ".") {
		must(t, err)
		names = append(names, e.Name)
	}
	if !slices.Equal(names, []string{"\xfflatin"}) {
		t.Errorf("names: %q", names)
	}
}

func TestXattr(t *testing.T) {
	fs, _ := newFS(t)
	ctx := t.Context()
	put(t, fs, "f", "")
	must(t, fs.Symlink(ctx, "f", "link", bridge.SetAttr{}))
	err := fs.SetXattr(ctx, "f", "user.test", []byte("v"), 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		t.Skip("the file system has no extended attributes")
	}
	must(t, err)
	_, err = fs.GetXattr(ctx, "link", "user.test")
	if err == nil {
		t.Error("GetXattr followed a symbolic link")
	}
	wantErrno(t, "SetXattr of a link", fs.SetXattr(ctx, "link", "user.test", []byte("w"), 0), syscall.EPERM)
	v, err := fs.GetXattr(ctx, "f", "user.test")
	if string(v) != "v" || err != nil {
		t.Errorf("value: %q, %v", v, err)
	}
	large := strings.Repeat("x", 2000)
	must(t, fs.SetXattr(ctx, "f", "user.test", []byte(large), unix.XATTR_REPLACE))
	v, err = fs.GetXattr(ctx, "f", "user.test")
	if string(v) != large || err != nil {
		t.Errorf("value of %d bytes: got %d, %v", len(large), len(v), err)
	}
	names, err := fs.ListXattr(ctx, "f")
	if !slices.Contains(names, "user.test") || err != nil {
		t.Errorf("names: %q, %v", names, err)
	}
}

func TestCancelled(t *testing.T) {
	fs, _ := newFS(t)
	ctx, cancel := context.WithTimeout(t.Context(), -time.Second)
	defer cancel()
	_, err := fs.Lstat(ctx, "x")
	wantErrno(t, "Lstat past the deadline", err, syscall.ETIMEDOUT)
	_, err = fs.Open(ctx, "x", unix.O_RDWR|unix.O_CREAT, bridge.SetAttr{})
	wantErrno(t, "Open past the deadline", err, syscall.ETIMEDOUT)
	_, err = fs.Lstat(t.Context(), "x")
	wantErrno(t, "Lstat of what was not made", err, syscall.ENOENT)
}

func TestCopyRange(t *testing.T) {
	fs, _ := newFS(t)
	ctx := t.Context()
	put(t, fs, "from", "0123456789")
	from, err := fs.Open(ctx, "from", unix.O_RDONLY, bridge.SetAttr{})
	must(t, err)
	defer from.Close(ctx)
	to, err := fs.Open(ctx, "to", unix.O_RDWR|unix.O_CREAT, bridge.SetAttr{})
	must(t, err)
	defer to.Close(ctx)
	n, err := from.(bridge.CopyFile).CopyRange(ctx, 2, to, 1, 100)
	if n != 8 || err != nil {
		t.Errorf("CopyRange: %d, %v", n, err)
	}
	if got, err := get(fs, "to"); got != "\x0023456789" || err != nil {
		t.Errorf("content: %q, %v", got, err)
	}
}

// TestLease opens a file of which somebody has a lease, which he gives up when
// he is told.
func TestLease(t *testing.T) {
	fs, dir := newFS(t)
	put(t, fs, "f", "x")
	holder, err := unix.Open(filepath.Join(dir, "f"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(holder)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGIO)
	defer signal.Stop(told)
	if _, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		t.Skipf("no leases: %v", err)
	}
	done := make(chan error)
	go func() {
		<-told
		_, err := unix.FcntlInt(uintptr(holder), unix.F_SETLEASE, unix.F_UNLCK)
		done <- err
	}()
	f, err := fs.Open(t.Context(), "f", unix.O_WRONLY, bridge.SetAttr{})
	must(t, err)
	must(t, f.Close(t.Context()))
	must(t, <-done)
}

package localfs

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

const secret = "what is outside"

// newJail returns an FS over the directory "in" beside the directory "out",
// which has a file, a directory and a link, and from which nothing may be
// read and in which nothing may change.
func newJail(t testing.TB) (jail *FS, in, out string) {
	t.Helper()
	top := t.TempDir()
	in, out = filepath.Join(top, "in"), filepath.Join(top, "out")
	must(t, os.MkdirAll(filepath.Join(out, "sub"), 0o755))
	must(t, os.Mkdir(in, 0o755))
	for _, name := range []string{"f", "g", "sub/f"} {
		must(t, os.WriteFile(filepath.Join(out, name), []byte(secret), 0o644))
	}
	must(t, os.Symlink("f", filepath.Join(out, "link")))
	return openFS(t, in), in, out
}

// snapshot tells everything about what is beneath dir and could change, but
// for access times, since taking it reads.
func snapshot(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = string(data)
		}
		lines = append(lines, fmt.Sprint(path, st.Mode, st.Uid, st.Gid, st.Size, st.Nlink, st.Ino, st.Mtim, st.Ctim, content))
		return nil
	})
	must(t, err)
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// everyOperation does everything that a backend can do with name, and with
// name and other, and returns all that it learned: contents, targets, listings
// and values, to be searched for what should not be known.
func everyOperation(b *FS, name, other string) (learned []string) {
	ctx := context.Background()
	learn := func(s string, err error) {
		if err == nil {
			learned = append(learned, s)
		}
	}
	learn(get(b, name))
	learn(b.Readlink(ctx, name))
	for e, err := range b.ReadDir(ctx, name) {
		learn("entry "+e.Name, err)
	}
	if d, err := b.OpenDir(ctx, name); err == nil {
		for _, entry := range []string{"f", "..", "../out", "../out/f", "sub/f", "."} {
			a, err := d.Lstat(ctx, entry)
			learn(fmt.Sprint("inode ", a.ID.Ino, ";"), err)
		}
		learn("", d.Close())
	}
	value, err := b.GetXattr(ctx, name, "user.test")
	learn(string(value), err)
	_, _ = b.ListXattr(ctx, name)
	_, _ = b.StatFS(ctx, name)
	a, err := b.Lstat(ctx, name)
	learn(fmt.Sprint("inode ", a.ID.Ino, ";"), err)

	for _, flags := range []bridge.OpenFlags{unix.O_WRONLY | unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL} {
		f, err := b.Open(ctx, name, flags, mode(0o600))
		if err == nil {
			_, _ = f.WriteAt(ctx, []byte("mine"), 0)
			_ = f.Close(ctx)
		}
	}
	_ = b.SetAttr(ctx, name, bridge.SetAttr{Valid: bridge.SetSize, Size: 1})
	_ = b.SetAttr(ctx, name, mode(0o711))
	_ = b.SetAttr(ctx, name, bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID, UID: 1, GID: 1})
	_ = b.SetAttr(ctx, name, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Mtime: time.Unix(1, 1)})
	_ = b.SetXattr(ctx, name, "user.test", []byte("mine"), 0)
	_ = b.RemoveXattr(ctx, name, "user.test")
	_ = b.WatchDir(name)
	b.UnwatchDir(name)

	_ = b.Link(ctx, name, other)
	learn(get(b, other))
	_ = b.Remove(ctx, other)
	_ = b.Rename(ctx, name, other, bridge.RenameNoReplace)
	_ = b.Rename(ctx, other, name, bridge.RenameNoReplace)
	_ = b.Rename(ctx, other, name, bridge.RenameExchange)
	_ = b.Remove(ctx, name)
	_ = b.Rmdir(ctx, name)
	_ = b.Mkdir(ctx, name, mode(0o700))
	_ = b.Rmdir(ctx, name)
	_ = b.Mknod(ctx, name, unix.S_IFIFO|0o600, 0, bridge.SetAttr{})
	_ = b.Remove(ctx, name)
	_ = b.Symlink(ctx, "../out", name, bridge.SetAttr{Valid: bridge.SetUID, UID: 1})
	_ = b.Remove(ctx, name)
	return learned
}

// checkConfined checks that nothing outside was learned or changed.
func checkConfined(t *testing.T, what, out, before string, learned []string) {
	t.Helper()
	if after := snapshot(t, out); after != before {
		t.Errorf("%s: what is outside has changed from\n%s\nto\n%s", what, before, after)
	}
	inodes := inodesOf(t, out)
	for _, s := range learned {
		if s == secret || inodes[s] {
			t.Errorf("%s: learned %q", what, s)
		}
	}
}

// inodesOf returns, as everyOperation tells them, the inode numbers beneath dir.
func inodesOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	inodes := make(map[string]bool)
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		inodes[fmt.Sprint("inode ", st.Ino, ";")] = true
		return err
	}))
	return inodes
}

func TestConfinement(t *testing.T) {
	jail, in, out := newJail(t)
	must(t, os.Mkdir(filepath.Join(in, "d"), 0o755))
	links := map[string]string{
		"abs": out, "rel": "../out", "d/rel": "../../out", "absfile": filepath.Join(out, "f"),
		"relfile": "../out/f", "root": "/", "proc": "/proc/self/cwd", "dot": ".", "up": "..", "d/up": "../..",
	}
	for name, target := range links {
		must(t, os.Symlink(target, filepath.Join(in, name)))
	}
	before := snapshot(t, out)
	names := []string{
		"..", "../out/f", "d/../../out/f", "/" + out, out + "/f", "./../out", "d/..", "d/../..", "../in/../out/g",
		"abs/f", "rel/f", "d/rel/f", "abs/sub/f", "rel/link", "root/" + out[1:] + "/f", "up/out/f", "d/up/out/f",
		"dot/rel/f", "abs/..", "rel/new", "absfile/x", "proc/f", "\x00", "rel\x00/f", "",
	}
	for _, name := range names {
		learned := everyOperation(jail, name, "other")
		learned = append(learned, everyOperation(jail, "other", name)...)
		checkConfined(t, name, out, before, learned)
	}
	for name, target := range links {
		checkConfined(t, name, out, before, everyOperation(jail, name, "d/other"))
		_ = os.Remove(filepath.Join(in, name))
		must(t, os.Symlink(target, filepath.Join(in, name)))
		checkConfined(t, name, out, before, everyOperation(jail, "d/other", name))
	}
}

func TestLinkInTheMiddle(t *testing.T) {
	jail, in, _ := newJail(t)
	ctx := t.Context()
	must(t, os.Mkdir(filepath.Join(in, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(in, "d/f"), nil, 0o644))
	must(t, os.Symlink("d", filepath.Join(in, "l")))
	must(t, os.Symlink("f", filepath.Join(in, "d/l")))
	_, err := jail.Lstat(ctx, "l/f")
	wantErrno(t, "Lstat", err, syscall.ENOTDIR)
	for _, flags := range []bridge.OpenFlags{unix.O_RDONLY, unix.O_RDWR | unix.O_CREAT, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL} {
		_, err = jail.Open(ctx, "l/f", flags, bridge.SetAttr{})
		wantErrno(t, "Open", err, syscall.ENOTDIR)
		want := syscall.ELOOP
		if flags.Has(unix.O_EXCL) {
			want = syscall.EEXIST
		}
		_, err = jail.Open(ctx, "d/l", flags, bridge.SetAttr{})
		wantErrno(t, "Open of a link", err, want)
		_, err = jail.Open(ctx, "l", flags, bridge.SetAttr{})
		wantErrno(t, "Open of a link to a directory", err, want)
	}
	wantErrno(t, "SetAttr", jail.SetAttr(ctx, "l/f", mode(0)), syscall.ENOTDIR)
	wantErrno(t, "truncation", jail.SetAttr(ctx, "l/f", bridge.SetAttr{Valid: bridge.SetSize}), syscall.ENOTDIR)
	wantErrno(t, "chmod of a link", jail.SetAttr(ctx, "l", mode(0)), syscall.EOPNOTSUPP)
	wantErrno(t, "truncation of a link", jail.SetAttr(ctx, "d/l", bridge.SetAttr{Valid: bridge.SetSize}), syscall.ELOOP)
	wantErrno(t, "Mkdir", jail.Mkdir(ctx, "l/x", bridge.SetAttr{}), syscall.ENOTDIR)
	wantErrno(t, "Remove", jail.Remove(ctx, "l/f"), syscall.ENOTDIR)
	wantErrno(t, "Rename", jail.Rename(ctx, "l/f", "x", 0), syscall.ENOTDIR)
	wantErrno(t, "Rename to", jail.Rename(ctx, "d/f", "l/x", 0), syscall.ENOTDIR)
	wantErrno(t, "WatchDir", jail.WatchDir("l"), syscall.ENOTDIR)
	_, err = jail.GetXattr(ctx, "l/f", "user.x")
	wantErrno(t, "GetXattr", err, syscall.ENOTDIR)
	for _, err := range jail.ReadDir(ctx, "l") {
		wantErrno(t, "ReadDir", err, syscall.ENOTDIR)
	}
}

// TestSwap has somebody exchange a directory with a symbolic link to the
// outside all the time, and a file too, while everything is done in it.
func TestSwap(t *testing.T) {
	jail, in, out := newJail(t)
	must(t, os.Mkdir(filepath.Join(in, "d"), 0o755))
	must(t, os.Symlink(out, filepath.Join(in, "d.swap")))
	must(t, os.Symlink("../out/f", filepath.Join(in, "f.swap")))
	before := snapshot(t, out)
	dir, err := unix.Open(filepath.Join(in, "d"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(dir)

	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(in, "d"), unix.AT_FDCWD, filepath.Join(in, "d.swap"), unix.RENAME_EXCHANGE)
			_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(in, "f"), unix.AT_FDCWD, filepath.Join(in, "f.swap"), unix.RENAME_EXCHANGE)
		}
	})
	var learned []string
	for i := range 150 {
		// What the last round left may be of any type.
		_ = unix.Unlinkat(dir, "f", 0)
		_ = unix.Unlinkat(dir, "f", unix.AT_REMOVEDIR)
		if f, err := unix.Openat(dir, "f", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600); err == nil {
			_, _ = unix.Write(f, []byte("inside"))
			_ = unix.Close(f)
		}
		learned = append(learned, everyOperation(jail, "d/f", "d/other")...)
		learned = append(learned, everyOperation(jail, "d/sub/f", "stolen")...)
		learned = append(learned, everyOperation(jail, "stolen", "d/g")...)
		learned = append(learned, everyOperation(jail, fmt.Sprint("d/new", i), "d/link")...)
		if f, err := jail.Open(t.Context(), "f", unix.O_CREAT|unix.O_RDWR, bridge.SetAttr{}); err == nil {
			_ = f.Close(t.Context())
		}
		_ = jail.SetAttr(t.Context(), "f", bridge.SetAttr{Valid: bridge.SetSize | bridge.SetMode | bridge.SetUID, UID: 1})
		s, err := get(jail, "f")
		if err == nil {
			learned = append(learned, s)
		}
		for e := range jail.ReadDir(t.Context(), "d") {
			if e.Name == "sub" {
				t.Error("listed a directory that is outside")
			}
		}
	}
	close(stop)
	swapper.Wait()
	checkConfined(t, "swapped", out, before, learned)
}

// FuzzConfinement throws names at every operation.
func FuzzConfinement(f *testing.F) {
	for _, s := range []string{"a", "..", "../out/f", "l/f", "d/l/sub/f", "/", "d/../../out/g", "a\x00b", "l/..", "d//f", "./f", "abs", "d/.../x", "\xff/\xfe"} {
		f.Add(s, "other")
		f.Add("d/f", s)
	}
	f.Fuzz(func(t *testing.T, name, other string) {
		jail, in, out := newJail(t)
		must(t, os.Mkdir(filepath.Join(in, "d"), 0o755))
		must(t, os.WriteFile(filepath.Join(in, "d/f"), []byte("inside"), 0o644))
		must(t, os.Symlink("../out", filepath.Join(in, "l")))
		must(t, os.Symlink("../../out", filepath.Join(in, "d/l")))
		must(t, os.Symlink(out, filepath.Join(in, "abs")))
		before := snapshot(t, out)
		learned := everyOperation(jail, name, other)
		learned = append(learned, everyOperation(jail, other, name)...)
		checkConfined(t, fmt.Sprintf("%q and %q", name, other), out, before, learned)
		entries, err := os.ReadDir(filepath.Dir(in))
		must(t, err)
		if len(entries) != 2 {
			t.Errorf("%q and %q: there are %d entries beside the root, want 2", name, other, len(entries))
		}
	})
}

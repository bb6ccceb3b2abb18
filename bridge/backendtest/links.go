package backendtest

import (
	"strings"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

var symlinkTests = []test{
	{"Verbatim", testSymlinkVerbatim},
	{"Owner", testSymlinkOwner},
	{"Errors", testSymlinkErrors},
	{"NotFollowed", testSymlinkNotFollowed},
	{"Race", testSymlinkRace},
}

// wantTarget checks that name is a symbolic link to the target.
func (e *env) wantTarget(name, want string) {
	e.Helper()
	got, err := e.b.(bridge.SymlinkBackend).Readlink(e.ctx, name)
	e.need(err, "Readlink %q", name)
	if got != want {
		e.Errorf("target of %q is %s; want %s", name, brief(got), brief(want))
	}
	if a := e.lstat(name); !a.IsSymlink() || a.Size != int64(len(want)) {
		e.Errorf("%q has mode %#o, size %d; want a symbolic link of %d", name, a.Mode, a.Size, len(want))
	}
}

func testSymlinkVerbatim(e *env) {
	for i, target := range []string{
		"f", "/", "/etc/passwd", "..", ".", "../../../x", "a//b/", "./a/./b/..", " ", "-n", "a\nb",
		"tab\tquote\"back\\slash", "\xff\xfe\x80", "ünïcode/☃", "~user", "%s*?", "l",
		strings.Repeat("n", 255), strings.Repeat("long/", 200), "host:C:\\x",
	} {
		name := "l" + strings.Repeat("x", i)
		e.symlink(target, name)
		e.wantTarget(name, target)
	}
}

func testSymlinkOwner(e *env) {
	b, ok := e.b.(bridge.SymlinkBackend)
	if !ok {
		e.Skip("no symbolic links")
	}
	e.needOwner()
	err := b.Symlink(e.ctx, "nowhere", "l", bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID, UID: 12, GID: 34})
	e.need(err, "Symlink")
	if a := e.lstat("l"); a.UID != 12 || a.GID != 34 {
		e.Errorf("owner %d:%d; want 12:34", a.UID, a.GID)
	}
	e.wantTarget("l", "nowhere")
}

func testSymlinkErrors(e *env) {
	e.mkdir("d")
	e.put("f", "content")
	e.symlink("nowhere", "dangling")
	b := e.b.(bridge.SymlinkBackend)
	for _, name := range []string{"d", "f", "dangling", "."} {
		err := b.Symlink(e.ctx, "x", name, bridge.SetAttr{})
		e.wantErrno(err, "Symlink at the existing "+name, syscall.EEXIST)
	}
	e.wantErrno(b.Symlink(e.ctx, "x", "absent/l", bridge.SetAttr{}), "Symlink below nothing", syscall.ENOENT)
	e.wantErrno(b.Symlink(e.ctx, "x", "f/l", bridge.SetAttr{}), "Symlink below a file", syscall.ENOTDIR)
	for name, errno := range map[string]syscall.Errno{
		"d": syscall.EINVAL, "f": syscall.EINVAL, ".": syscall.EINVAL,
		"absent": syscall.ENOENT, "f/l": syscall.ENOTDIR,
	} {
		_, err := b.Readlink(e.ctx, name)
		e.wantErrno(err, "Readlink of "+name, errno)
	}
	e.wantTarget("dangling", "nowhere")
}

// No operation follows a link at the end of a name or in the middle.
func testSymlinkNotFollowed(e *env) {
	e.mkdir("d")
	e.mkdir("d/sub")
	e.put("d/f", "content")
	e.symlink("d", "l")
	b := e.b.(bridge.SymlinkBackend)
	calls := map[string]func(name string) error{
		"Lstat":   func(name string) error { _, err := e.b.Lstat(e.ctx, name); return err },
		"Mkdir":   func(name string) error { return e.b.Mkdir(e.ctx, name, mode(0o755)) },
		"SetAttr": func(name string) error { return e.b.SetAttr(e.ctx, name, mode(0o600)) },
		"Remove":  func(name string) error { return e.b.Remove(e.ctx, name) },
		"Rmdir":   func(name string) error { return e.b.Rmdir(e.ctx, name) },
		"Rename":  func(name string) error { return e.b.Rename(e.ctx, name, "new", 0) },
		"Symlink": func(name string) error { return b.Symlink(e.ctx, "x", name, bridge.SetAttr{}) },
	}
	for what, call := range calls {
		for _, name := range []string{"l/f", "l/sub", "l/new"} {
			e.wantErrno(call(name), what+" of "+name, syscall.ENOTDIR)
		}
	}
	e.wantErrno(e.b.Rmdir(e.ctx, "l"), "Rmdir of a link to a directory", syscall.ENOTDIR)
	e.wantContent("d/f", "content")
	e.lstat("d/sub")
	if n := len(e.names("d")); n != 2 {
		e.Errorf("%d names in d; want 2", n)
	}
	e.need(e.b.Remove(e.ctx, "l"), "Remove of the link")
	e.wantGone("l")
	e.wantContent("d/f", "content")
}

func testSymlinkRace(e *env) {
	b, ok := e.b.(bridge.SymlinkBackend)
	if !ok {
		e.Skip("no symbolic links")
	}
	errs := race(6, func(i int) error {
		return b.Symlink(e.ctx, strings.Repeat("x", i+1), "l", bridge.SetAttr{})
	})
	winner := e.wantOneWinner(errs, "Symlink in parallel", syscall.EEXIST)
	e.wantTarget("l", strings.Repeat("x", winner+1))
}

var linkTests = []test{
	{"Shares", testLinkShares},
	{"Errors", testLinkErrors},
	{"Symlink", testLinkSymlink},
	{"Race", testLinkRace},
}

// link makes a hard link, or has the test skipped.
func (e *env) link(old, new string) {
	e.Helper()
	b, ok := e.b.(bridge.LinkBackend)
	if !ok {
		e.Skip("no hard links")
	}
	e.need(b.Link(e.ctx, old, new), "Link %q to %q", old, new)
}

// wantLinks checks the number of links, if it is known.
func (e *env) wantLinks(name string, want uint32) {
	e.Helper()
	if got := e.lstat(name).Nlink; got != 0 && got != want {
		e.Errorf("%q has %d links; want %d", name, got, want)
	}
}

func testLinkShares(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.link("f", "d/g")
	e.wantLinks("f", 2)
	e.wantLinks("d/g", 2)
	if e.lstat("f").ID != e.lstat("d/g").ID && e.b.Traits().FileIDs {
		e.Error("two links have two ids")
	}
	e.writeAt(e.open("d/g", wronly), "CON", 0)
	e.wantContent("f", "CONtent")
	e.need(e.b.SetAttr(e.ctx, "f", stamp(0o600, 1e9, 1e9)), "SetAttr")
	e.wantPerm("d/g", 0o600)
	e.need(e.b.Remove(e.ctx, "f"), "Remove")
	e.wantGone("f")
	e.wantLinks("d/g", 1)
	e.wantContent("d/g", "CONtent")
	e.link("d/g", "f")
	e.put("new", "new")
	e.rename("new", "d/g")
	e.wantContent("f", "CONtent")
	e.wantLinks("f", 1)
}

func testLinkErrors(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.link("f", "g")
	b := e.b.(bridge.LinkBackend)
	for _, test := range []struct {
		old, new string
		want     syscall.Errno
	}{
		{"f", "g", syscall.EEXIST},
		{"f", "f", syscall.EEXIST},
		{"f", "d", syscall.EEXIST},
		{"f", ".", syscall.EEXIST},
		{"absent", "new", syscall.ENOENT},
		{"f", "absent/new", syscall.ENOENT},
		{"f", "g/new", syscall.ENOTDIR},
		{"f/x", "new", syscall.ENOTDIR},
		{"d", "new", syscall.EPERM},
	} {
		e.wantErrno(b.Link(e.ctx, test.old, test.new), "Link "+test.old+" to "+test.new, test.want)
	}
	e.wantGone("new")
	e.wantLinks("f", 2)
}

func testLinkSymlink(e *env) {
	e.put("f", "content")
	e.symlink("f", "l")
	e.symlink("nowhere", "dangling")
	e.link("l", "m")
	e.wantTarget("m", "f")
	e.link("dangling", "n")
	e.wantTarget("n", "nowhere")
	e.wantLinks("f", 1)
}

func testLinkRace(e *env) {
	e.put("f", "content")
	e.link("f", "first")
	b := e.b.(bridge.LinkBackend)
	errs := race(6, func(int) error { return b.Link(e.ctx, "f", "g") })
	e.wantOneWinner(errs, "Link in parallel", syscall.EEXIST)
	e.wantLinks("f", 3)
}

var mknodTests = []test{
	{"Fifo", testMknodFifo},
	{"Device", testMknodDevice},
	{"Errors", testMknodErrors},
}

// mknod makes a special file, or has the test skipped.
func (e *env) mknod(name string, mode, rdev uint32, attr bridge.SetAttr) {
	e.Helper()
	b, ok := e.b.(bridge.MknodBackend)
	if !ok {
		e.Skip("no special files")
	}
	err := b.Mknod(e.ctx, name, mode, rdev, attr)
	if e.opt.NoOwner && bridge.Errno(err) == syscall.EPERM {
		e.Skip(err)
	}
	e.need(err, "Mknod %q", name)
}

func testMknodFifo(e *env) {
	attr := bridge.SetAttr{}
	if !e.opt.NoOwner {
		attr = owned(0, 12, 34).Without(bridge.SetMode)
	}
	e.mknod("p", syscall.S_IFIFO|0o622, 0, attr)
	a := e.lstat("p")
	if a.Mode != syscall.S_IFIFO|0o622 {
		e.Errorf("mode %#o; want a fifo with 0622", a.Mode)
	}
	if !e.opt.NoOwner && (a.UID != 12 || a.GID != 34) {
		e.Errorf("owner %d:%d; want 12:34", a.UID, a.GID)
	}
	e.mknod("s", syscall.S_IFSOCK|0o700, 0, bridge.SetAttr{})
	if a := e.lstat("s"); a.Mode != syscall.S_IFSOCK|0o700 {
		e.Errorf("mode %#o; want a socket with 0700", a.Mode)
	}
	e.rename("p", "q")
	e.need(e.b.SetAttr(e.ctx, "q", mode(0o666)), "SetAttr")
	e.need(e.b.Remove(e.ctx, "q"), "Remove")
}

func testMknodDevice(e *env) {
	const null = 1<<8 | 3
	b, ok := e.b.(bridge.MknodBackend)
	if !ok {
		e.Skip("no special files")
	}
	err := b.Mknod(e.ctx, "null", syscall.S_IFCHR|0o666, null, bridge.SetAttr{})
	if bridge.Errno(err) == syscall.EPERM {
		e.Skip("may not make devices: ", err)
	}
	e.need(err, "Mknod")
	if a := e.lstat("null"); a.Mode != syscall.S_IFCHR|0o666 || a.Rdev != null {
		e.Errorf("mode %#o, rdev %#x; want a character device %#x with 0666", a.Mode, a.Rdev, null)
	}
}

func testMknodErrors(e *env) {
	e.put("f", "content")
	e.mknod("p", syscall.S_IFIFO|0o600, 0, bridge.SetAttr{})
	b := e.b.(bridge.MknodBackend)
	for name, errno := range map[string]syscall.Errno{
		"f": syscall.EEXIST, "p": syscall.EEXIST, "absent/p": syscall.ENOENT, "f/p": syscall.ENOTDIR,
	} {
		err := b.Mknod(e.ctx, name, syscall.S_IFIFO|0o600, 0, bridge.SetAttr{})
		e.wantErrno(err, "Mknod at "+name, errno)
	}
	e.wantOpenReturns("p")
}

// wantOpenReturns checks that opening a fifo, which nobody else has open, is
// an error at once and does not wait for somebody.
func (e *env) wantOpenReturns(name string) {
	e.Helper()
	done := make(chan error, 1)
	go func() {
		f, err := e.b.Open(e.ctx, name, rdonly, bridge.SetAttr{})
		if err == nil {
			f.Close(e.ctx)
		}
		done <- err
	}()
	select {
	case err := <-done:
		e.wantError(err, "Open of a fifo")
	case <-time.After(20 * time.Second):
		e.Fatal("Open of a fifo hangs")
	}
}

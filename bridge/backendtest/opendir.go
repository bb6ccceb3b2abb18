package backendtest

import (
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

var openDirTests = []test{
	{"Lstat", testOpenDirLstat},
	{"Names", testOpenDirNames},
	{"Moved", testOpenDirMoved},
}

// openDir opens a directory, or has the test skipped.
func (e *env) openDir(name string) bridge.Dir {
	e.Helper()
	b, ok := e.b.(bridge.DirBackend)
	if !ok {
		e.Skip("directories are not held open")
	}
	d, err := b.OpenDir(e.ctx, name)
	e.need(err, "OpenDir of %q", name)
	e.Cleanup(func() { d.Close() })
	return d
}

func testOpenDirLstat(e *env) {
	e.mkdir("d")
	e.mkdir("d/sub")
	e.put("d/f", "content")
	names := []string{"f", "sub"}
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("/", "d/link")
		names = append(names, "link")
	}
	d := e.openDir("d")
	for _, name := range names {
		got, err := d.Lstat(e.ctx, name)
		if want := e.lstat("d/" + name); err != nil || got != want {
			e.Errorf("entry %s: %+v, %v; want %+v", name, got, err, want)
		}
	}
	got, err := d.Attr(e.ctx)
	if want := e.lstat("d"); err != nil || got != want {
		e.Errorf("the directory: %+v, %v; want %+v", got, err, want)
	}
	// What changes is seen at once.
	e.need(e.b.Remove(e.ctx, "d/f"), "Remove")
	_, err = d.Lstat(e.ctx, "f")
	e.wantErrno(err, "Lstat of what was removed", syscall.ENOENT)
	e.put("d/f", "other")
	if got, err := d.Lstat(e.ctx, "f"); err != nil || got.Size != 5 {
		e.Errorf("what was made again: %+v, %v", got, err)
	}
}

func testOpenDirNames(e *env) {
	e.mkdir("d")
	e.mkdir("d/sub")
	e.put("f", "content")
	e.put("d/sub/f", "content")
	d := e.openDir("d")
	for _, name := range []string{"", ".", "..", "../f", "sub/f", "/", "\x00"} {
		_, err := d.Lstat(e.ctx, name)
		e.wantErrno(err, "Lstat of the entry "+brief(name), syscall.EINVAL)
	}
	_, err := d.Lstat(e.ctx, strings.Repeat("n", bridge.NameMax+1))
	e.wantErrno(err, "Lstat of a long name", syscall.ENAMETOOLONG)
	b := e.b.(bridge.DirBackend)
	_, err = b.OpenDir(e.ctx, "f")
	e.wantErrno(err, "OpenDir of a file", syscall.ENOTDIR)
	_, err = b.OpenDir(e.ctx, "absent")
	e.wantErrno(err, "OpenDir of nothing", syscall.ENOENT)
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("d", "link")
		_, err = b.OpenDir(e.ctx, "link")
		e.wantErrno(err, "OpenDir of a link", syscall.ENOTDIR)
	}
}

// testOpenDirMoved: it is the directory that is open, not its name.
func testOpenDirMoved(e *env) {
	e.mkdir("d")
	e.put("d/f", "content")
	d := e.openDir("d")
	e.need(e.b.Rename(e.ctx, "d", "moved", 0), "Rename")
	e.mkdir("d")
	if got, err := d.Lstat(e.ctx, "f"); err != nil || got != e.lstat("moved/f") {
		e.Errorf("the entry of a directory that was moved: %+v, %v", got, err)
	}
	e.need(e.b.Remove(e.ctx, "moved/f"), "Remove")
	e.need(e.b.Rmdir(e.ctx, "moved"), "Rmdir")
	_, err := d.Lstat(e.ctx, "f")
	e.wantErrno(err, "Lstat in a directory that was removed", syscall.ENOENT)
}

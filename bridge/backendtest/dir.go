package backendtest

import (
	"errors"
	"fmt"
	"syscall"

	"sftpbridge/bridge"
)

var dirTests = []test{
	{"MkdirHasAttr", testMkdirHasAttr},
	{"MkdirExists", testMkdirExists},
	{"MkdirRace", testMkdirRace},
	{"Lstat", testLstat},
	{"Remove", testRemove},
	{"Rmdir", testRmdir},
	{"Root", testRootStays},
	{"Deep", testDeep},
}

func testMkdirHasAttr(e *env) {
	for _, perm := range []uint32{0o777, 0o755, 0o700, 0o1777, 0o2775, 0o022} {
		name := fmt.Sprintf("d%04o", perm)
		e.need(e.b.Mkdir(e.ctx, name, mode(perm)), "Mkdir")
		if a := e.lstat(name); a.Mode != syscall.S_IFDIR|perm {
			e.Errorf("mode %#o; want a directory with %04o", a.Mode, perm)
		}
	}
	if e.opt.NoOwner {
		return
	}
	e.need(e.b.Mkdir(e.ctx, "d", owned(0o2770, 12, 34)), "Mkdir")
	e.wantOwner("d", 0o2770, 12, 34)
}

func testMkdirExists(e *env) {
	e.mkdir("d")
	e.put("f", "content")
	e.put("d/f", "content")
	names := []string{"d", "f", ".", "d/f"}
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("nowhere", "dangling")
		names = append(names, "dangling")
	}
	for _, name := range names {
		e.wantErrno(e.b.Mkdir(e.ctx, name, mode(0o700)), "Mkdir of the existing "+name, syscall.EEXIST)
	}
	e.wantPerm("d", 0o755)
	e.wantContent("f", "content")
	e.wantErrno(e.b.Mkdir(e.ctx, "absent/d", mode(0o755)), "Mkdir below nothing", syscall.ENOENT)
	e.wantErrno(e.b.Mkdir(e.ctx, "f/d", mode(0o755)), "Mkdir below a file", syscall.ENOTDIR)
	e.wantGone("nowhere")
}

func testMkdirRace(e *env) {
	errs := race(8, func(int) error { return e.b.Mkdir(e.ctx, "d", mode(0o755)) })
	e.wantOneWinner(errs, "Mkdir in parallel", syscall.EEXIST)
}

func testLstat(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	if a := e.lstat("f"); !a.IsRegular() || a.Size != 7 || a.Perm() != 0o644 {
		e.Errorf("file: %+v", a)
	}
	if a := e.lstat("d"); !a.IsDir() {
		e.Errorf("directory: %+v", a)
	}
	e.wantGone("absent")
	e.wantGone("absent/f")
	e.wantGone("d/absent")
	_, err := e.b.Lstat(e.ctx, "f/g")
	e.wantErrno(err, "Lstat below a file", syscall.ENOTDIR)
}

func testRemove(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.put("d/f", "content")
	e.need(e.b.Remove(e.ctx, "f"), "Remove")
	e.wantGone("f")
	e.wantErrno(e.b.Remove(e.ctx, "f"), "Remove it again", syscall.ENOENT)
	e.wantErrno(e.b.Remove(e.ctx, "d"), "Remove a directory", syscall.EISDIR)
	e.wantErrno(e.b.Remove(e.ctx, "d/f/g"), "Remove below a file", syscall.ENOTDIR)
	e.wantErrno(e.b.Remove(e.ctx, "absent/f"), "Remove below nothing", syscall.ENOENT)
	e.mkdir("empty")
	e.wantErrno(e.b.Remove(e.ctx, "empty"), "Remove an empty directory", syscall.EISDIR)
	e.lstat("empty")
	e.wantContent("d/f", "content")
}

func testRmdir(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.mkdir("d/sub")
	e.wantErrno(e.b.Rmdir(e.ctx, "d"), "Rmdir of a directory with one in it", syscall.ENOTEMPTY)
	e.need(e.b.Rmdir(e.ctx, "d/sub"), "Rmdir")
	e.put("d/f", "content")
	e.wantErrno(e.b.Rmdir(e.ctx, "d"), "Rmdir of a directory with a file in it", syscall.ENOTEMPTY)
	e.wantContent("d/f", "content")
	e.need(e.b.Remove(e.ctx, "d/f"), "Remove")
	e.need(e.b.Rmdir(e.ctx, "d"), "Rmdir")
	e.wantGone("d")
	e.wantErrno(e.b.Rmdir(e.ctx, "d"), "Rmdir again", syscall.ENOENT)
	e.wantErrno(e.b.Rmdir(e.ctx, "f"), "Rmdir of a file", syscall.ENOTDIR)
	e.wantErrno(e.b.Rmdir(e.ctx, "f/d"), "Rmdir below a file", syscall.ENOTDIR)
	e.wantErrno(e.b.Mkdir(e.ctx, "d/sub", mode(0o755)), "Mkdir in a removed directory", syscall.ENOENT)
}

// wantError checks that err wraps an errno, whichever.
func (e *env) wantError(err error, what string) {
	e.Helper()
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		e.Errorf("%s: %v; want an error that wraps an errno", what, err)
	}
}

func testRootStays(e *env) {
	e.mkdir("d")
	e.wantError(e.b.Rmdir(e.ctx, "."), "Rmdir of the root")
	e.wantError(e.b.Remove(e.ctx, "."), "Remove of the root")
	e.wantError(e.b.Rename(e.ctx, ".", "d/root", 0), "Rename of the root")
	e.wantError(e.b.Rename(e.ctx, "d", ".", 0), "Rename to the root")
	e.need(e.b.Rmdir(e.ctx, "d"), "Rmdir")
	e.wantError(e.b.Rmdir(e.ctx, "."), "Rmdir of the empty root")
	e.put("f", "content")
	e.wantContent("f", "content")
}

func testDeep(e *env) {
	name := "d"
	e.mkdir(name)
	for range 60 {
		name += "/directory"
		e.mkdir(name)
	}
	e.put(name+"/f", "content")
	e.need(e.b.Rename(e.ctx, "d", "e", 0), "Rename")
	e.wantContent("e"+name[1:]+"/f", "content")
	e.wantGone(name)
}

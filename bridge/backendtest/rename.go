package backendtest

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

var renameTests = []test{
	{"File", testRenameFile},
	{"Replace", testRenameReplace},
	{"Dir", testRenameDir},
	{"DirOverDir", testRenameDirOverDir},
	{"WrongType", testRenameWrongType},
	{"IntoItself", testRenameIntoItself},
	{"Onto", testRenameOnto},
	{"Errors", testRenameErrors},
	{"Symlink", testRenameSymlink},
	{"ReplaceIsAtomic", testRenameAtomic},
	{"NoReplace", testNoReplace},
	{"NoReplaceRace", testNoReplaceRace},
	{"Exchange", testExchange},
	{"ExchangeErrors", testExchangeErrors},
}

// rename renames without flags.
func (e *env) rename(from, to string) {
	e.Helper()
	e.need(e.b.Rename(e.ctx, from, to, 0), "Rename %q to %q", from, to)
}

func testRenameFile(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.need(e.b.SetAttr(e.ctx, "f", stamp(0o640, 1e9, 12e8)), "SetAttr")
	before := e.lstat("f")
	for _, step := range [][2]string{{"f", "g"}, {"g", "d/f"}, {"d/f", "d/h"}, {"d/h", "i"}} {
		e.rename(step[0], step[1])
		e.wantGone(step[0])
		e.wantContent(step[1], "content")
	}
	after := e.lstat("i")
	after.Ctime = before.Ctime
	if !sameAttr(before, after) {
		e.Errorf("renaming changed the attributes from %+v to %+v", before, after)
	}
}

func testRenameReplace(e *env) {
	e.mkdir("d")
	for i, to := range []string{"f", "d/f"} {
		e.put("new", "new content")
		e.put(to, "old")
		e.rename("new", to)
		e.wantGone("new")
		e.wantContent(to, "new content")
		if n := len(e.names(".")); n != 2 {
			e.Errorf("step %d: %d names in the root; want 2", i, n)
		}
	}
}

func testRenameDir(e *env) {
	e.mkdir("a")
	e.mkdir("a/sub")
	e.put("a/sub/f", "content")
	e.mkdir("b")
	e.rename("a", "c")
	e.wantContent("c/sub/f", "content")
	e.rename("c", "b/d")
	e.wantContent("b/d/sub/f", "content")
	e.rename("b/d/sub", "sub")
	e.wantContent("sub/f", "content")
	for _, gone := range []string{"a", "c", "a/sub/f", "b/d/sub"} {
		e.wantGone(gone)
	}
}

func testRenameDirOverDir(e *env) {
	e.mkdir("a")
	e.put("a/f", "content")
	e.mkdir("empty")
	e.rename("a", "empty")
	e.wantGone("a")
	e.wantContent("empty/f", "content")
	e.mkdir("full")
	e.put("full/g", "full")
	e.wantErrno(e.b.Rename(e.ctx, "empty", "full", 0), "rename over a directory that is not empty",
		syscall.ENOTEMPTY, syscall.EEXIST)
	e.wantContent("full/g", "full")
	e.wantContent("empty/f", "content")
}

func testRenameWrongType(e *env) {
	e.mkdir("d")
	e.put("f", "content")
	e.wantErrno(e.b.Rename(e.ctx, "d", "f", 0), "rename a directory over a file", syscall.ENOTDIR)
	e.wantErrno(e.b.Rename(e.ctx, "f", "d", 0), "rename a file over a directory", syscall.EISDIR)
	e.wantContent("f", "content")
	if !e.lstat("d").IsDir() {
		e.Error("d is no directory any more")
	}
}

func testRenameIntoItself(e *env) {
	e.mkdir("d")
	e.mkdir("d/sub")
	e.put("d/sub/f", "content")
	for _, to := range []string{"d/new", "d/sub/new"} {
		e.wantErrno(e.b.Rename(e.ctx, "d", to, 0), "rename d to "+to, syscall.EINVAL)
	}
	e.wantErrno(e.b.Rename(e.ctx, "d/sub", "d", 0), "rename d/sub to d", syscall.ENOTEMPTY)
	e.wantContent("d/sub/f", "content")
	e.mkdir("moved")
	e.rename("moved", "d/sub/moved")
	e.wantErrno(e.b.Rename(e.ctx, "d", "d/sub/moved/new", 0), "rename d below what was moved there", syscall.EINVAL)
	e.rename("d/sub/moved", "moved")
	e.rename("d", "moved/d")
	e.wantContent("moved/d/sub/f", "content")
}

// Renaming a file to itself, or to another name that it has, does nothing.
func testRenameOnto(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.rename("f", "f")
	e.rename("d", "d")
	e.wantContent("f", "content")
	e.lstat("d")
	if b, ok := e.b.(bridge.LinkBackend); ok {
		e.need(b.Link(e.ctx, "f", "d/g"), "Link")
		e.rename("f", "d/g")
		e.wantContent("f", "content")
		e.wantContent("d/g", "content")
	}
}

func testRenameErrors(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	for _, test := range []struct {
		from, to string
		want     syscall.Errno
	}{
		{"absent", "new", syscall.ENOENT},
		{"absent", "f", syscall.ENOENT},
		{"absent", "absent", syscall.ENOENT},
		{"f", "absent/f", syscall.ENOENT},
		{"absent/f", "new", syscall.ENOENT},
		{"f", "f/g", syscall.ENOTDIR},
		{"f/g", "new", syscall.ENOTDIR},
		{"d", "f/d", syscall.ENOTDIR},
	} {
		err := e.b.Rename(e.ctx, test.from, test.to, 0)
		e.wantErrno(err, fmt.Sprintf("rename %s to %s", test.from, test.to), test.want)
	}
	e.wantErrno(e.b.Rename(e.ctx, "f", "new", 1<<20), "rename with unknown flags", syscall.EINVAL)
	e.wantContent("f", "content")
	e.wantGone("new")
}

// It is the link that is renamed or replaced, not its target.
func testRenameSymlink(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.symlink("f", "l")
	e.rename("l", "m")
	e.wantGone("l")
	e.wantTarget("m", "f")
	e.put("g", "other")
	e.rename("g", "m")
	e.wantContent("m", "other")
	e.wantContent("f", "content")
	e.symlink("d", "ld")
	e.wantErrno(e.b.Rename(e.ctx, "d", "ld", 0), "rename a directory over a link to it", syscall.ENOTDIR)
	e.wantErrno(e.b.Rename(e.ctx, "m", "ld/m", 0), "rename below a link", syscall.ENOTDIR)
	e.rename("m", "ld")
	e.wantContent("ld", "other")
	if n := len(e.names("d")); n != 0 {
		e.Errorf("there are %d names in d; want none", n)
	}
}

// While a name is replaced over and over, it is always there, and whoever opens
// it has one of the files completely.
func testRenameAtomic(e *env) {
	const rounds = 40
	e.put("f", "content 0")
	errs := race(3, func(i int) error {
		for n := range rounds {
			var err error
			if i == 0 {
				err = e.replace("f", fmt.Sprint("content ", n%10))
			} else {
				err = e.readReplaced("f", "content ")
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			e.Error(err)
		}
	}
}

// readReplaced checks that name has the content that replace gave it.
func (e *env) readReplaced(name, prefix string) error {
	f, err := e.b.Open(e.ctx, name, rdonly, bridge.SetAttr{})
	if err != nil {
		return err
	}
	got, rerr := readAll(e.ctx, f)
	if err := errors.Join(rerr, f.Close(e.ctx)); err != nil {
		return err
	}
	if !strings.HasPrefix(got, prefix) || len(got) != len(prefix)+1 {
		return fmt.Errorf("content of the replaced file is %s", brief(got))
	}
	return nil
}

// replace writes a new file and renames it to name.
func (e *env) replace(name, content string) error {
	f, err := e.b.Open(e.ctx, "tmp", wronly|creat|trunc, mode(0o644))
	if err != nil {
		return err
	}
	_, werr := f.WriteAt(e.ctx, []byte(content), 0)
	if err := errors.Join(werr, f.Close(e.ctx)); err != nil {
		return err
	}
	return e.b.Rename(e.ctx, "tmp", name, 0)
}

// renameFlag renames with a flag, and has the test skipped if the backend
// lacks it, which is EINVAL.
func (e *env) renameFlag(from, to string, flags bridge.RenameFlags) {
	e.Helper()
	err := e.b.Rename(e.ctx, from, to, flags)
	if errors.Is(err, syscall.EINVAL) {
		e.Skipf("rename flags %d: %v", flags, err)
	}
	e.need(err, "Rename %q to %q with flags %d", from, to, flags)
}

// renameFlags returns the flags that the backend has.
func (e *env) renameFlags() bridge.RenameFlags {
	e.Helper()
	var flags bridge.RenameFlags
	for _, f := range []bridge.RenameFlags{bridge.RenameNoReplace, bridge.RenameExchange} {
		err := e.b.Rename(e.ctx, "absent", "missing", f)
		if !errors.Is(err, syscall.EINVAL) {
			flags |= f
		}
	}
	return flags
}

func testNoReplace(e *env) {
	e.put("f", "content")
	e.renameFlag("f", "g", bridge.RenameNoReplace)
	e.wantGone("f")
	e.wantContent("g", "content")
	e.mkdir("d")
	e.mkdir("sub")
	e.put("d/f", "in d")
	e.put("h", "other")
	existing := []string{"h", "d", "d/f", "g"}
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("nowhere", "dangling")
		existing = append(existing, "dangling")
	}
	for _, to := range existing {
		err := e.b.Rename(e.ctx, "g", to, bridge.RenameNoReplace)
		e.wantErrno(err, "rename a file to the existing "+to, syscall.EEXIST)
		err = e.b.Rename(e.ctx, "sub", to, bridge.RenameNoReplace)
		e.wantErrno(err, "rename a directory to the existing "+to, syscall.EEXIST)
	}
	e.wantContent("g", "content")
	e.wantContent("h", "other")
	e.wantContent("d/f", "in d")
	e.lstat("sub")
	e.wantErrno(e.b.Rename(e.ctx, "absent", "new", bridge.RenameNoReplace), "rename nothing", syscall.ENOENT)
	e.renameFlag("d", "e", bridge.RenameNoReplace)
	e.renameFlag("g", "e/g", bridge.RenameNoReplace)
	e.wantContent("e/f", "in d")
	e.wantContent("e/g", "content")
}

func testNoReplaceRace(e *env) {
	e.put("probe", "")
	e.renameFlag("probe", "probed", bridge.RenameNoReplace)
	for round := range 5 {
		to := fmt.Sprint("target", round)
		from := func(i int) string { return fmt.Sprintf("from%d-%d", round, i) }
		for i := range 8 {
			e.put(from(i), from(i))
		}
		errs := race(8, func(i int) error {
			return e.b.Rename(e.ctx, from(i), to, bridge.RenameNoReplace)
		})
		winner := e.wantOneWinner(errs, "rename without replacing in parallel", syscall.EEXIST)
		e.wantContent(to, from(winner))
		for i := range 8 {
			if i != winner {
				e.wantContent(from(i), from(i))
			}
		}
		e.wantGone(from(winner))
	}
}

func testExchange(e *env) {
	e.put("f", "one")
	e.put("g", "two")
	e.renameFlag("f", "g", bridge.RenameExchange)
	e.wantContent("f", "two")
	e.wantContent("g", "one")
	e.mkdir("d")
	e.put("d/sub", "in d")
	e.mkdir("e")
	e.put("e/full", "in e")
	e.renameFlag("d", "e", bridge.RenameExchange)
	e.wantContent("e/sub", "in d")
	e.wantContent("d/full", "in e")
	e.renameFlag("f", "d", bridge.RenameExchange)
	e.wantContent("d", "two")
	e.wantContent("f/full", "in e")
	e.renameFlag("e", "f/full", bridge.RenameExchange)
	e.wantContent("e", "in e")
	e.wantContent("f/full/sub", "in d")
	e.renameFlag("e", "e", bridge.RenameExchange)
	e.wantContent("e", "in e")
}

func testExchangeErrors(e *env) {
	e.put("f", "one")
	e.put("g", "two")
	e.renameFlag("f", "g", bridge.RenameExchange)
	e.mkdir("d")
	e.mkdir("d/sub")
	for _, test := range []struct {
		from, to string
		flags    bridge.RenameFlags
		want     syscall.Errno
	}{
		{"f", "absent", bridge.RenameExchange, syscall.ENOENT},
		{"absent", "f", bridge.RenameExchange, syscall.ENOENT},
		{"d", "d/sub", bridge.RenameExchange, syscall.EINVAL},
		{"d/sub", "d", bridge.RenameExchange, syscall.EINVAL},
		{"f", "g", bridge.RenameExchange | bridge.RenameNoReplace, syscall.EINVAL},
	} {
		err := e.b.Rename(e.ctx, test.from, test.to, test.flags)
		e.wantErrno(err, fmt.Sprintf("rename %s to %s with %d", test.from, test.to, test.flags), test.want)
	}
	e.wantContent("f", "two")
	e.wantContent("g", "one")
	e.lstat("d/sub")
}

package backendtest

import (
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

var nameTests = []test{
	{"Odd", testOddNames},
	{"OddDirs", testOddDirs},
	{"Case", testNameCase},
	{"TooLong", testNameTooLong},
	{"Invalid", testNameInvalid},
}

// oddNames are names that somebody might take for something else.
var oddNames = []string{
	"a space", " leading", "trailing ", "new\nline", "tab\t", "-leading-dash", "--", "...", ".hidden", "a..b",
	"ünïcode", "e\u0301 and \u00e9", "日本語", "☃", "\u202eright to left", "back\\slash", `"quotes'`, "*?[x]", "$HOME", "~", "a:b",
	"%2F", "#x", "\x01\x1b[31m", "\x7f", "\xff\xfe\x80 no utf-8", "ends with \xc3",
	strings.Repeat("n", 255), strings.Repeat("\xff", 255), strings.Repeat("é", 127) + "x",
}

func testOddNames(e *env) {
	e.mkdir("d")
	for _, dir := range []string{"", "d/"} {
		for _, name := range oddNames {
			e.put(dir+name, "content of "+name)
		}
		for _, name := range oddNames {
			e.wantContent(dir+name, "content of "+name)
		}
	}
	names := e.names("d")
	for _, name := range oddNames {
		if names[name] != 1 {
			e.Errorf("%q was listed %d times", name, names[name])
		}
		e.rename("d/"+name, "renamed")
		e.rename("renamed", "d/"+name)
	}
	if len(names) != len(oddNames) {
		e.Errorf("%d names were listed; want %d", len(names), len(oddNames))
	}
	for _, name := range oddNames {
		e.need(e.b.Remove(e.ctx, name), "Remove %q", name)
	}
	if names := e.names("."); len(names) != 1 {
		e.Errorf("after removal there are %v", names)
	}
}

func testOddDirs(e *env) {
	for _, name := range oddNames {
		e.mkdir(name)
		e.put(name+"/"+name, name)
		e.wantContent(name+"/"+name, name)
		if names := e.names(name); len(names) != 1 || names[name] != 1 {
			e.Errorf("%q has %v in it", name, names)
		}
		e.need(e.b.Remove(e.ctx, name+"/"+name), "Remove")
		e.need(e.b.Rmdir(e.ctx, name), "Rmdir %q", name)
	}
}

// Names that are not the same bytes are not the same.
func testNameCase(e *env) {
	names := []string{"name", "Name", "NAME", "é", "e\u0301", "É"}
	for _, name := range names {
		e.put(name, "content of "+name)
	}
	for _, name := range names {
		e.wantContent(name, "content of "+name)
	}
}

func testNameTooLong(e *env) {
	long := strings.Repeat("n", 256)
	e.put("f", "content")
	e.mkdir("d")
	for _, name := range []string{long, "d/" + long, long + "/f"} {
		for what, err := range e.tryName(name) {
			e.wantErrno(err, what+" of a name of 256 bytes", syscall.ENAMETOOLONG)
		}
	}
	if names := e.names("."); len(names) != 2 {
		e.Errorf("there are %v; want f and d", names)
	}
	e.wantContent("f", "content")
}

// tryName has each operation work on the name, and returns the errors.
func (e *env) tryName(name string) map[string]error {
	errs := map[string]error{
		"Mkdir":       e.b.Mkdir(e.ctx, name, mode(0o755)),
		"SetAttr":     e.b.SetAttr(e.ctx, name, mode(0o700)),
		"Remove":      e.b.Remove(e.ctx, name),
		"Rmdir":       e.b.Rmdir(e.ctx, name),
		"Rename from": e.b.Rename(e.ctx, name, "new", 0),
		"Rename to":   e.b.Rename(e.ctx, "f", name, 0),
	}
	_, errs["Lstat"] = e.b.Lstat(e.ctx, name)
	f, err := e.b.Open(e.ctx, name, rdwr|creat, mode(0o644))
	if err == nil {
		f.Close(e.ctx)
	}
	errs["Open"] = err
	for _, err := range e.b.ReadDir(e.ctx, name) {
		errs["ReadDir"] = err
		break
	}
	if b, ok := e.b.(bridge.SymlinkBackend); ok {
		errs["Symlink"] = b.Symlink(e.ctx, "x", name, bridge.SetAttr{})
		_, errs["Readlink"] = b.Readlink(e.ctx, name)
	}
	if b, ok := e.b.(bridge.LinkBackend); ok {
		errs["Link"] = b.Link(e.ctx, "f", name)
	}
	return errs
}

// Names that are no names below the root lead nowhere, least of all out of it.
func testNameInvalid(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	for _, name := range []string{
		"", "..", "../x", "d/..", "d/../f", "/f", "/", "/etc", "d//f", "d/", "./f", "d/.", "nul\x00", "d/\x00",
	} {
		for what, err := range e.tryName(name) {
			e.wantError(err, what+" of the invalid name "+brief(name))
		}
	}
	if names := e.names("."); len(names) != 2 {
		e.Errorf("there are %v; want f and d", names)
	}
	e.wantContent("f", "content")
}

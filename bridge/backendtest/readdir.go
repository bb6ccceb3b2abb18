package backendtest

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"sftpbridge/bridge"
)

var readDirTests = []test{
	{"Empty", testReadDirEmpty},
	{"Entries", testReadDirEntries},
	{"Many", testReadDirMany},
	{"Stop", testReadDirStop},
	{"RemoveWhileListing", testReadDirRemove},
	{"CreateWhileListing", testReadDirCreate},
	{"Errors", testReadDirErrors},
	{"Cancel", testReadDirCancel},
}

func testReadDirEmpty(e *env) {
	e.mkdir("d")
	for _, dir := range []string{"d", "d"} {
		if names := e.names(dir); len(names) > 0 {
			e.Errorf("an empty directory has %v", names)
		}
	}
	if names := e.names("."); len(names) != 1 || names["d"] != 1 {
		e.Errorf("the root has %v; want d", names)
	}
}

func testReadDirEntries(e *env) {
	e.mkdir("d")
	e.mkdir("d/sub")
	e.put("d/sub/hidden", "")
	e.put("d/f", "content")
	e.put("d/.dot", "")
	want := map[string]uint32{"sub": syscall.S_IFDIR, "f": syscall.S_IFREG, ".dot": syscall.S_IFREG}
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("f", "d/link")
		want["link"] = syscall.S_IFLNK
	}
	seen := make(map[string]bool)
	for d, err := range e.b.ReadDir(e.ctx, "d") {
		e.need(err, "ReadDir")
		typ, ok := want[d.Name]
		if !ok || seen[d.Name] {
			e.Errorf("unexpected entry %q", d.Name)
			continue
		}
		seen[d.Name] = true
		if d.Attr.Mode != 0 && d.Attr.Type() != typ {
			e.Errorf("entry %q has type %#o; want %#o", d.Name, d.Attr.Type(), typ)
		}
		if a := e.lstat("d/" + d.Name); d.Full && !sameAttr(a, d.Attr) {
			e.Errorf("entry %q has %+v; Lstat has %+v", d.Name, d.Attr, a)
		}
	}
	if len(seen) != len(want) {
		e.Errorf("listed %v; want %v", seen, want)
	}
}

// fill makes n empty files in the directory, and returns their names.
func (e *env) fill(dir string, n int) []string {
	e.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("file-%05d", i)
	}
	const workers = 16
	errs := race(workers, func(w int) error {
		for i := w; i < n; i += workers {
			f, err := e.b.Open(e.ctx, dir+"/"+names[i], wronly|creat|excl, mode(0o644))
			if err != nil {
				return err
			}
			if err := f.Close(e.ctx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		e.need(err, "create")
	}
	return names
}

// many is the number of entries of a large directory, which takes many calls of
// getdents(2) to list: fewer where each costs
// a round trip.
func (e *env) many() int {
	if e.b.Traits().Slow {
		return 1_500
	}
	return 4_000
}

func testReadDirMany(e *env) {
	e.mkdir("d")
	want := e.fill("d", e.many())
	errs := race(3, func(int) error {
		got := make(map[string]int)
		for d, err := range e.b.ReadDir(e.ctx, "d") {
			if err != nil {
				return err
			}
			got[d.Name]++
		}
		for _, name := range want {
			if got[name] != 1 {
				return fmt.Errorf("%s was listed %d times", name, got[name])
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("%d entries; want %d", len(got), len(want))
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			e.Error(err)
		}
	}
}

// A listing may be left early, any number of times and in parallel.
func testReadDirStop(e *env) {
	e.mkdir("d")
	names := e.fill("d", 300)
	var wg sync.WaitGroup
	for stop := range 50 {
		wg.Go(func() {
			n := 0
			for _, err := range e.b.ReadDir(e.ctx, "d") {
				if err != nil {
					e.Error(err)
				}
				if n++; n > stop {
					break
				}
			}
		})
	}
	wg.Wait()
	if got := e.names("d"); len(got) != len(names) {
		e.Errorf("then %d entries; want %d", len(got), len(names))
	}
}

// Who removes what a listing gives has removed everything in the end.
func testReadDirRemove(e *env) {
	e.mkdir("d")
	names := e.fill("d", 1_000)
	seen := make(map[string]int)
	for d, err := range e.b.ReadDir(e.ctx, "d") {
		e.need(err, "ReadDir")
		if seen[d.Name]++; seen[d.Name] > 1 {
			e.Fatalf("%s was listed twice", d.Name)
		}
		e.need(e.b.Remove(e.ctx, "d/"+d.Name), "Remove")
	}
	if len(seen) != len(names) {
		e.Errorf("%d entries were listed; want %d", len(seen), len(names))
	}
	e.need(e.b.Rmdir(e.ctx, "d"), "Rmdir")
}

// What was there before and stays is listed once, whatever comes meanwhile.
func testReadDirCreate(e *env) {
	e.mkdir("d")
	names := e.fill("d", 500)
	seen := make(map[string]int)
	n := 0
	for d, err := range e.b.ReadDir(e.ctx, "d") {
		e.need(err, "ReadDir")
		seen[d.Name]++
		if n++; n < 200 {
			e.create(fmt.Sprint("d/new", n), mode(0o644))
		}
	}
	for _, name := range names {
		if seen[name] != 1 {
			e.Errorf("%s was listed %d times", name, seen[name])
		}
	}
}

func testReadDirErrors(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.mkdir("gone")
	e.need(e.b.Rmdir(e.ctx, "gone"), "Rmdir")
	want := map[string]syscall.Errno{
		"absent": syscall.ENOENT, "absent/d": syscall.ENOENT, "gone": syscall.ENOENT,
		"f": syscall.ENOTDIR, "f/d": syscall.ENOTDIR,
	}
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("d", "l")
		e.mkdir("d/sub")
		want["l"], want["l/sub"] = syscall.ENOTDIR, syscall.ENOTDIR
	}
	for name, errno := range want {
		n := 0
		for _, err := range e.b.ReadDir(e.ctx, name) {
			e.wantErrno(err, "ReadDir of "+name, errno)
			n++
		}
		if n != 1 {
			e.Errorf("ReadDir of %s yielded %d times; want one error", name, n)
		}
	}
}

// A listing whose context ends stops with an error, if it had not ended.
func testReadDirCancel(e *env) {
	e.mkdir("d")
	names := e.fill("d", 300)
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	n := 0
	var last error
	for _, err := range e.b.ReadDir(ctx, "d") {
		cancel()
		if last = err; err == nil {
			n++
		}
	}
	if last != nil {
		e.wantErrno(last, "ReadDir of a cancelled context", syscall.EINTR)
	} else if n != len(names) {
		e.Errorf("ReadDir ended without an error after %d of %d entries", n, len(names))
	}
}

// sameAttr reports whether a and b are the same but for access times.
func sameAttr(a, b bridge.Attr) bool {
	if !a.Mtime.Equal(b.Mtime) || !a.Ctime.Equal(b.Ctime) {
		return false
	}
	a.Atime, a.Mtime, a.Ctime = b.Atime, b.Mtime, b.Ctime
	return a == b
}

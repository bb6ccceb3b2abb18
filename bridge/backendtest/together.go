package backendtest

import (
	"context"
	"strings"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

// togetherTests are of what some backends do at once that others do step by
// step.
var togetherTests = []test{
	{"MkdirAttr", testMkdirAttr},
	{"OpenRead", testOpenRead},
	{"OpenReadErrors", testOpenReadErrors},
	{"Ordered", testOrdered},
	{"OrderedClose", testOrderedClose},
	{"ReadAhead", testReadAhead},
}

func testMkdirAttr(e *env) {
	b, ok := e.b.(bridge.MkdirAttrBackend)
	if !ok {
		e.Skip("does not tell what it made")
	}
	a, err := b.MkdirAttr(e.ctx, "d", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o751})
	e.need(err, "MkdirAttr")
	if got := e.lstat("d"); a.Mode != 0 && (a.Mode != got.Mode || a.UID != got.UID || a.GID != got.GID) {
		e.Errorf("MkdirAttr tells %+v, Lstat %+v", a, got)
	}
	_, err = b.MkdirAttr(e.ctx, "d", bridge.SetAttr{})
	e.wantErrno(err, "MkdirAttr of what is there", syscall.EEXIST)
	_, err = b.MkdirAttr(e.ctx, "absent/d", bridge.SetAttr{})
	e.wantErrno(err, "MkdirAttr in nothing", syscall.ENOENT)
}

func (e *env) needOpenRead() bridge.ReadOpenBackend {
	e.Helper()
	b, ok := e.b.(bridge.ReadOpenBackend)
	if !ok {
		e.Skip("does not read as it opens")
	}
	return b
}

func testOpenRead(e *env) {
	b := e.needOpenRead()
	long := strings.Repeat("0123456789", 10_000)
	e.put("f", "content")
	e.put("empty", "")
	e.put("long", long)
	for range 3 { // the first time it may not know how
		for _, file := range []struct {
			name, content string
			size          int
		}{{"f", "content", 7}, {"f", "content", 100}, {"f", "content", 3}, {"empty", "", 10}, {"long", long, len(long)}, {"f", "content", 0}} {
			buf := make([]byte, file.size)
			f, n, err := b.OpenRead(e.ctx, file.name, buf)
			e.need(err, "OpenRead of %s", file.name)
			if n > file.size || n >= 0 && !strings.HasPrefix(file.content, string(buf[:n])) {
				e.Errorf("OpenRead of %d bytes of %s: %d, %s", file.size, file.name, n, brief(string(buf[:max(n, 0)])))
			}
			if got := e.content(f); got != file.content {
				e.Errorf("%s, opened by OpenRead, has %s", file.name, brief(got))
			}
			e.need(f.Close(e.ctx), "Close")
		}
	}
}

func testOpenReadErrors(e *env) {
	b := e.needOpenRead()
	e.mkdir("d")
	for name, want := range map[string]syscall.Errno{"absent": syscall.ENOENT, "d": syscall.EISDIR, ".": syscall.EISDIR, "d/../d": syscall.EINVAL} {
		_, _, err := b.OpenRead(e.ctx, name, make([]byte, 10))
		e.wantErrno(err, "OpenRead of "+name, want)
	}
	e.symlink("d", "link")
	_, _, err := b.OpenRead(e.ctx, "link", make([]byte, 10))
	e.wantErrno(err, "OpenRead of a link", syscall.ELOOP)
}

// needOrdered makes a file that carries out what it is told in order. The caller
// closes it.
func (e *env) needOrdered(name string) (bridge.File, bridge.OrderedFile) {
	e.Helper()
	f, err := e.b.Open(e.ctx, name, syscall.O_RDWR|syscall.O_CREAT, mode(0o644))
	e.need(err, "Open %q", name)
	o, ok := f.(bridge.OrderedFile)
	if !ok {
		f.Close(e.ctx)
		e.Skip("keeps no order")
	}
	return f, o
}

// start has o begin a write and a change of times behind it, and returns what
// waits for both. What o cannot begin is done then.
func (e *env) start(f bridge.File, o bridge.OrderedFile, content string, off int64, when time.Time) func() {
	e.Helper()
	set := bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: when, Mtime: when}
	written := o.StartWrite([]byte(content), off)
	var changed func(context.Context) error
	if written != nil {
		changed = o.StartSetAttr(set)
	}
	return func() {
		e.Helper()
		if written != nil {
			e.need(written(e.ctx), "a started write")
		} else {
			e.writeAt(f, content, off)
		}
		if changed != nil {
			e.need(changed(e.ctx), "a started change")
		} else {
			e.need(f.SetAttr(e.ctx, set), "SetAttr")
		}
	}
}

func testOrdered(e *env) {
	f, o := e.needOrdered("f")
	for i := range 30 {
		when := time.Unix(1e9+int64(i), 0)
		e.start(f, o, "0123456789", int64(5*i), when)()
		e.wantTimes("f", when, when)
	}
	if got, want := e.content(f), strings.Repeat("01234", 29)+"0123456789"; got != want {
		e.Errorf("written in parts: %s", brief(got))
	}
	e.need(f.Close(e.ctx), "Close")
}

func testOrderedClose(e *env) {
	for range 10 {
		f, o := e.needOrdered("f")
		when := time.Unix(1e9, 0)
		wait := e.start(f, o, "content", 0, when)
		o.StartClose()
		wait()
		e.need(f.Close(e.ctx), "Close")
		e.wantContent("f", "content")
		if got := e.lstat("f").Mtime; !got.Equal(when) {
			e.Errorf("mtime %v, want %v", got, when)
		}
		e.need(e.b.Remove(e.ctx, "f"), "Remove")
	}
}

func testReadAhead(e *env) {
	e.put("f", "0123456789")
	f, err := e.b.Open(e.ctx, "f", syscall.O_RDONLY, bridge.SetAttr{})
	e.need(err, "Open")
	defer f.Close(e.ctx)
	a, ok := f.(bridge.AheadFile)
	if !ok {
		e.Skip("does not give up reads")
	}
	unwanted := make(chan struct{})
	buf := make([]byte, 4)
	if n, err := a.ReadAhead(e.ctx, unwanted, buf, 3); err != nil || string(buf[:n]) != "3456" {
		e.Errorf("ReadAhead: %q, %v", buf[:n], err)
	}
	close(unwanted)
	_, err = a.ReadAhead(e.ctx, unwanted, buf, 3)
	e.wantErrno(err, "ReadAhead of what nobody wants", syscall.ECANCELED)
}

package backendtest

import (
	"context"
	"io"
	"syscall"

	"sftpbridge/bridge"
)

var contextTests = []test{
	{"Cancelled", testCancelled},
	{"CancelledFile", testCancelledFile},
	{"CancelledClose", testCancelledClose},
}

// A call with a context that has ended fails, and nothing has changed, or it
// does all that it should.
func testCancelled(e *env) {
	e.put("f", "content")
	e.put("g", "other")
	e.mkdir("d")
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	exists := func(name string) bool { _, err := e.b.Lstat(e.ctx, name); return err == nil }
	calls := []struct {
		what string
		call func() error
		done func() bool // the call has had its effect
	}{
		{"Lstat", func() error { _, err := e.b.Lstat(ctx, "f"); return err }, nil},
		{"Open", func() error {
			f, err := e.b.Open(ctx, "new", rdwr|creat, mode(0o640))
			if err == nil {
				f.Close(e.ctx)
			}
			return err
		}, func() bool { return exists("new") }},
		{"Mkdir", func() error { return e.b.Mkdir(ctx, "dir", mode(0o750)) }, func() bool { return exists("dir") }},
		{"SetAttr", func() error { return e.b.SetAttr(ctx, "f", mode(0o600)) },
			func() bool { return e.lstat("f").Perm() == 0o600 }},
		{"Remove", func() error { return e.b.Remove(ctx, "g") }, func() bool { return !exists("g") }},
		{"Rmdir", func() error { return e.b.Rmdir(ctx, "d") }, func() bool { return !exists("d") }},
		{"Rename", func() error { return e.b.Rename(ctx, "f", "h", 0) },
			func() bool { return exists("h") && !exists("f") }},
	}
	for _, c := range calls {
		err := c.call()
		if err != nil {
			e.wantErrno(err, c.what+" with a cancelled context", syscall.EINTR)
		}
		if c.done != nil && c.done() != (err == nil) {
			e.Errorf("%s with a cancelled context: %v, and done is %v", c.what, err, c.done())
		}
	}
	for _, name := range []string{"f", "h"} {
		if exists(name) {
			e.wantContent(name, "content")
		}
	}
}

func testCancelledFile(e *env) {
	f := e.open("f", rdwr|creat)
	e.writeAt(f, "content", 0)
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	p := make([]byte, 7)
	if n, err := f.ReadAt(ctx, p, 0); err == nil && string(p[:n]) != "content" {
		e.Errorf("ReadAt = %q, %v", p[:n], err)
	} else if err != nil && err != io.EOF {
		e.wantErrno(err, "ReadAt with a cancelled context", syscall.EINTR)
	}
	n, err := f.WriteAt(ctx, []byte("CONTENT"), 0)
	if err != nil {
		e.wantErrno(err, "WriteAt with a cancelled context", syscall.EINTR)
	}
	e.wantContent("f", "CONTENT"[:n]+"content"[n:])
	if err := f.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetSize, Size: 3}); err != nil {
		e.wantErrno(err, "SetAttr with a cancelled context", syscall.EINTR)
	} else if a := e.attr(f); a.Size != 3 {
		e.Errorf("size %d; want 3", a.Size)
	}
	e.need(f.SetAttr(e.ctx, size(1)), "SetAttr after all that")
	e.wantContent("f", ("CONTENT"[:n] + "content"[n:])[:1])
}

// Close closes whatever the context says: nobody could call it again. If it
// could not tell whether all is well, it says so.
func testCancelledClose(e *env) {
	f, err := e.b.Open(e.ctx, "f", rdwr|creat, mode(0o644))
	e.need(err, "Open")
	e.writeAt(f, "content", 0)
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	if err := f.Close(ctx); err != nil {
		e.wantErrno(err, "Close with a cancelled context", syscall.EINTR)
	}
	e.wantContent("f", "content")
}

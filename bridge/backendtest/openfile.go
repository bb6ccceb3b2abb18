package backendtest

import (
	"fmt"
	"io"
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

var openFileTests = []test{
	{"Renamed", testOpenRenamed},
	{"DirRenamed", testOpenDirRenamed},
	{"Removed", testOpenRemoved},
	{"Replaced", testOpenReplaced},
	{"RemovedWithDir", testOpenRemovedWithDir},
	{"Many", testOpenMany},
	{"CloseKeepsOthers", testCloseKeepsOthers},
	{"BufferIsNotKept", testBufferIsNotKept},
	{"FD", testFD},
}

// wantWorking checks that f is a file with the content that can be read,
// written and changed.
func (e *env) wantWorking(f bridge.File, content string) {
	e.Helper()
	if got := e.content(f); got != content {
		e.Errorf("the open file has %s; want %s", brief(got), brief(content))
	}
	if a := e.attr(f); a.Size != int64(len(content)) || !a.IsRegular() {
		e.Errorf("its size is %d, mode %#o; want %d bytes", a.Size, a.Mode, len(content))
	}
	e.writeAt(f, "XY", int64(len(content)))
	if got := e.content(f); got != content+"XY" {
		e.Errorf("after a write it has %s; want %s", brief(got), brief(content+"XY"))
	}
	e.need(f.SetAttr(e.ctx, mode(0o606)), "SetAttr of the open file")
	e.need(f.SetAttr(e.ctx, size(int64(len(content)))), "SetAttr of the open file's size")
	if a := e.attr(f); a.Size != int64(len(content)) || a.Perm() != 0o606 {
		e.Errorf("then size %d, mode %04o; want %d, 0606", a.Size, a.Perm(), len(content))
	}
	e.need(f.Sync(e.ctx), "Sync of the open file")
}

func testOpenRenamed(e *env) {
	e.put("f", "content")
	f := e.open("f", rdwr)
	e.need(e.b.Rename(e.ctx, "f", "g", 0), "Rename")
	e.put("f", "another")
	e.wantWorking(f, "content")
	e.wantContent("f", "another")
	e.wantPerm("f", 0o644)
	e.wantContent("g", "content")
	e.wantPerm("g", 0o606)
}

func testOpenDirRenamed(e *env) {
	e.mkdir("a")
	e.mkdir("a/b")
	e.put("a/b/f", "content")
	f := e.open("a/b/f", rdwr)
	e.need(e.b.Rename(e.ctx, "a", "c", 0), "Rename")
	e.mkdir("a")
	e.mkdir("a/b")
	e.put("a/b/f", "another")
	e.wantWorking(f, "content")
	e.wantContent("a/b/f", "another")
	e.wantContent("c/b/f", "content")
}

func testOpenRemoved(e *env) {
	e.put("f", "content")
	f := e.open("f", rdwr)
	e.need(e.b.Remove(e.ctx, "f"), "Remove")
	e.wantGone("f")
	e.wantWorking(f, "content")
	e.put("f", "another")
	e.wantWorking(f, "content")
	e.wantContent("f", "another")
	e.wantPerm("f", 0o644)
}

func testOpenReplaced(e *env) {
	e.put("f", "content")
	e.put("new", strings.Repeat("another", 10_000))
	f, n := e.open("f", rdwr), e.open("new", rdonly)
	e.need(e.b.Rename(e.ctx, "new", "f", 0), "Rename")
	e.wantWorking(f, "content")
	e.wantPerm("f", 0o644)
	e.wantContent("f", strings.Repeat("another", 10_000))
	if got := e.content(n); got != strings.Repeat("another", 10_000) {
		e.Errorf("the renamed file has %s", brief(got))
	}
}

func testOpenRemovedWithDir(e *env) {
	e.mkdir("d")
	e.put("d/f", "content")
	f := e.open("d/f", rdwr)
	e.need(e.b.Remove(e.ctx, "d/f"), "Remove")
	e.need(e.b.Rmdir(e.ctx, "d"), "Rmdir")
	e.wantWorking(f, "content")
	_, err := e.b.Open(e.ctx, "d/f", wronly|creat, mode(0o644))
	e.wantErrno(err, "create in the removed directory", syscall.ENOENT)
}

func testOpenMany(e *env) {
	const n = 60
	files := make([]bridge.File, n)
	for i := range files {
		files[i] = e.open(fmt.Sprint("f", i), rdwr|creat)
		e.writeAt(files[i], fmt.Sprint("content ", i), 0)
	}
	for i := range n / 2 {
		e.need(e.b.Rename(e.ctx, fmt.Sprint("f", i), fmt.Sprint("f", i+n/2), 0), "Rename")
	}
	for i, f := range files {
		if got, want := e.content(f), fmt.Sprint("content ", i); got != want {
			e.Errorf("file %d has %q; want %q", i, got, want)
		}
	}
}

func testCloseKeepsOthers(e *env) {
	f := e.open("f", rdwr|creat)
	g, err := e.b.Open(e.ctx, "f", rdwr, bridge.SetAttr{})
	e.need(err, "open")
	e.writeAt(g, "content", 0)
	e.need(e.b.Remove(e.ctx, "f"), "Remove")
	e.need(g.Close(e.ctx), "Close")
	p := make([]byte, 7)
	if n, err := f.ReadAt(e.ctx, p, 0); string(p[:n]) != "content" || err != nil && err != io.EOF {
		e.Errorf("ReadAt = %q, %v", p[:n], err)
	}
}

// What was given to WriteAt may be used for something else afterwards.
func testBufferIsNotKept(e *env) {
	f := e.open("f", rdwr|creat)
	p := []byte(strings.Repeat("x", 200_000))
	if n, err := f.WriteAt(e.ctx, p, 0); n != len(p) || err != nil {
		e.Fatalf("WriteAt = %d, %v", n, err)
	}
	clear(p)
	e.wantContent("f", strings.Repeat("x", 200_000))
}

// A file descriptor reads what ReadAt reads, also without a name.
func testFD(e *env) {
	e.put("f", "content")
	f := e.open("f", rdonly)
	fd, ok := f.(bridge.FDFile)
	if !ok {
		e.Skip("no file descriptors")
	}
	e.need(e.b.Remove(e.ctx, "f"), "Remove")
	p := make([]byte, 100)
	if n, err := syscall.Pread(fd.FD(), p, 0); n != 7 || err != nil || string(p[:7]) != "content" {
		e.Errorf("pread = %q, %v", p[:max(n, 0)], err)
	}
}

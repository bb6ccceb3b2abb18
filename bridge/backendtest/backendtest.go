// Package backendtest is the contract of a bridge.Backend as one suite of
// tests and benchmarks, which every backend runs:
//
//	func TestBackend(t *testing.T) {
//		backendtest.Run(t, func(t *testing.T) bridge.Backend {
//			return memfs.New()
//		}, backendtest.Options{})
//	}
//
// What a backend can do is found out by itself: by the optional interfaces
// that it and its files implement, by its Traits, and by attributes that it
// says are unknown (Nlink 0, no Ctime, negative Blocks). Options are for what
// it cannot say.
package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"sftpbridge/bridge"
)

// Options say what a backend cannot do for no fault of its own. The zero value
// is for one that can do everything.
type Options struct {
	// NoOwner says that files cannot be given to other users and groups, as
	// for a local directory of a process that is not root.
	NoOwner bool
	// NoEarlyTimes says that times before 1970 cannot be kept, as in version
	// 3 of the SFTP protocol. To set them must be an error then.
	NoEarlyTimes bool
}

// Run runs the suite. Each test gets a new and empty backend from open and
// closes it; what open registers with t.Cleanup runs after that.
func Run(t *testing.T, open func(t *testing.T) bridge.Backend, opt Options) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"Open", openTests},
		{"Data", dataTests},
		{"OpenFile", openFileTests},
		{"Attr", attrTests},
		{"Dir", dirTests},
		{"ReadDir", readDirTests},
		{"OpenDir", openDirTests},
		{"Names", nameTests},
		{"Rename", renameTests},
		{"Symlink", symlinkTests},
		{"Link", linkTests},
		{"Mknod", mknodTests},
		{"StatFS", statFSTests},
		{"Xattr", xattrTests},
		{"Copy", copyTests},
		{"Together", togetherTests},
		{"Allocate", allocateTests},
		{"Seek", seekTests},
		{"Context", contextTests},
		{"Stress", stressTests},
		{"Random", randomTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					test.run(newEnv(t, open, opt))
				})
			}
		})
	}
}

// A test is one of the suite.
type test struct {
	name string
	run  func(e *env)
}

// An env is what one test has to do with. Its methods fail the test when
// something goes wrong that the test takes for granted.
type env struct {
	*testing.T
	b   bridge.Backend
	opt Options
	ctx context.Context
}

func newEnv(t *testing.T, open func(t *testing.T) bridge.Backend, opt Options) *env {
	b := open(t)
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close of the backend: %v", err)
		}
	})
	return &env{T: t, b: b, opt: opt, ctx: context.Background()}
}

// need ends the test if err is one.
func (e *env) need(err error, what string, args ...any) {
	e.Helper()
	if err != nil {
		e.Fatalf(what+": %v", append(args, err)...)
	}
}

// wantErrno checks that err wraps an errno, which is one of want.
func (e *env) wantErrno(err error, what string, want ...syscall.Errno) {
	e.Helper()
	var got syscall.Errno
	if !errors.As(err, &got) {
		e.Errorf("%s: %v; want an error that wraps %v", what, err, want)
		return
	}
	if !slices.Contains(want, got) {
		e.Errorf("%s: %v (%d); want %v", what, err, int(got), want)
	}
}

// mode is a SetAttr with permissions alone.
func mode(perm uint32) bridge.SetAttr {
	return bridge.SetAttr{Valid: bridge.SetMode, Mode: perm}
}

// size is a SetAttr with a size alone.
func size(n int64) bridge.SetAttr {
	return bridge.SetAttr{Valid: bridge.SetSize, Size: n}
}

// open opens name until the end of the test.
func (e *env) open(name string, flags bridge.OpenFlags) bridge.File {
	e.Helper()
	f, err := e.b.Open(e.ctx, name, flags, mode(0o644))
	e.need(err, "Open %q with flags %#x", name, flags)
	e.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			e.Errorf("Close of %q: %v", name, err)
		}
	})
	return f
}

// put makes the file name, which is not there yet, with the content.
func (e *env) put(name, content string) {
	e.Helper()
	f, err := e.b.Open(e.ctx, name, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, mode(0o644))
	e.need(err, "create %q", name)
	e.writeAt(f, content, 0)
	e.need(f.Close(e.ctx), "close %q", name)
}

// writeAt writes all of content at off.
func (e *env) writeAt(f bridge.File, content string, off int64) {
	e.Helper()
	n, err := f.WriteAt(e.ctx, []byte(content), off)
	if n != len(content) || err != nil {
		e.Fatalf("WriteAt of %d bytes at %d = %d, %v", len(content), off, n, err)
	}
}

// content returns all that f has.
func (e *env) content(f bridge.File) string {
	e.Helper()
	s, err := readAll(e.ctx, f)
	e.need(err, "read")
	return s
}

// readAll returns all that f has, for a goroutine that may not end the test.
func readAll(ctx context.Context, f bridge.File) (string, error) {
	var all []byte
	buf := make([]byte, 300_000)
	for {
		n, err := f.ReadAt(ctx, buf, int64(len(all)))
		all = append(all, buf[:n]...)
		switch {
		case err == io.EOF:
			return string(all), nil
		case err != nil:
			return "", err
		case n < len(buf):
			return "", fmt.Errorf("ReadAt = %d of %d bytes without an error", n, len(buf))
		}
	}
}

// get returns the content of the file name.
func (e *env) get(name string) string {
	e.Helper()
	f, err := e.b.Open(e.ctx, name, syscall.O_RDONLY, bridge.SetAttr{})
	e.need(err, "open %q", name)
	s := e.content(f)
	e.need(f.Close(e.ctx), "close %q", name)
	return s
}

// wantContent checks the content of the file name.
func (e *env) wantContent(name, want string) {
	e.Helper()
	if got := e.get(name); got != want {
		e.Errorf("content of %q is %s; want %s", name, brief(got), brief(want))
	}
}

// brief returns s for a message, quoted and not too long.
func brief(s string) string {
	const most = 60
	if len(s) <= most {
		return strconv.Quote(s)
	}
	return strconv.Quote(s[:most]) + "…"
}

func (e *env) mkdir(name string) {
	e.Helper()
	e.need(e.b.Mkdir(e.ctx, name, mode(0o755)), "Mkdir %q", name)
}

func (e *env) lstat(name string) bridge.Attr {
	e.Helper()
	a, err := e.b.Lstat(e.ctx, name)
	e.need(err, "Lstat %q", name)
	return a
}

// attr returns the attributes of an open file.
func (e *env) attr(f bridge.File) bridge.Attr {
	e.Helper()
	a, err := f.Attr(e.ctx)
	e.need(err, "Attr")
	return a
}

// wantGone checks that there is no name.
func (e *env) wantGone(name string) {
	e.Helper()
	_, err := e.b.Lstat(e.ctx, name)
	e.wantErrno(err, "Lstat of the absent "+brief(name), syscall.ENOENT)
}

// symlink makes a symbolic link, or has the test skipped.
func (e *env) symlink(target, name string) {
	e.Helper()
	b, ok := e.b.(bridge.SymlinkBackend)
	if !ok {
		e.Skip("no symbolic links")
	}
	e.need(b.Symlink(e.ctx, target, name, bridge.SetAttr{}), "Symlink %q", name)
}

// names returns the names in the directory, each as often as it was listed.
func (e *env) names(dir string) map[string]int {
	e.Helper()
	names := make(map[string]int)
	for d, err := range e.b.ReadDir(e.ctx, dir) {
		e.need(err, "ReadDir %q", dir)
		names[d.Name]++
	}
	return names
}

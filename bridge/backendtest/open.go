package backendtest

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

const (
	rdonly = bridge.OpenFlags(syscall.O_RDONLY)
	wronly = bridge.OpenFlags(syscall.O_WRONLY)
	rdwr   = bridge.OpenFlags(syscall.O_RDWR)
	creat  = bridge.OpenFlags(syscall.O_CREAT)
	excl   = bridge.OpenFlags(syscall.O_EXCL)
	trunc  = bridge.OpenFlags(syscall.O_TRUNC)
	apnd   = bridge.OpenFlags(syscall.O_APPEND)
)

var openTests = []test{
	{"CreateHasAttr", testCreateHasAttr},
	{"CreateHasOwner", testCreateHasOwner},
	{"CreateHasTimes", testCreateHasTimes},
	{"CreateIsEmpty", testCreateIsEmpty},
	{"ExistingKeepsAttr", testExistingKeepsAttr},
	{"Exclusive", testExclusive},
	{"Truncate", testOpenTruncate},
	{"NotRegular", testOpenNotRegular},
	{"Symlink", testOpenSymlink},
	{"BadPath", testOpenBadPath},
	{"ExclusiveRace", testExclusiveRace},
	{"CreateRace", testCreateRace},
}

// create makes the file name with attr and closes it.
func (e *env) create(name string, attr bridge.SetAttr) {
	e.Helper()
	f, err := e.b.Open(e.ctx, name, rdwr|creat|excl, attr)
	e.need(err, "create %q", name)
	e.need(f.Close(e.ctx), "close %q", name)
}

func testCreateHasAttr(e *env) {
	for _, perm := range []uint32{0o666, 0o777, 0o600, 0o444, 0o000, 0o4755, 0o2771, 0o1666, 0o022} {
		name := fmt.Sprintf("f%04o", perm)
		f, err := e.b.Open(e.ctx, name, rdwr|creat, mode(perm))
		e.need(err, "create with mode %04o", perm)
		if got := e.attr(f).Mode; got != syscall.S_IFREG|perm {
			e.Errorf("mode of the open file is %#o; want that of creation, %04o", got, perm)
		}
		if got := e.lstat(name).Mode; got != syscall.S_IFREG|perm {
			e.Errorf("mode %#o; want a regular file with %04o", got, perm)
		}
		// Writing may clear set-id bits, as it does for who is not root.
		e.writeAt(f, "written whatever the mode", 0)
		e.need(f.Close(e.ctx), "close")
		if got := e.lstat(name); got.Perm()&0o1777 != perm&0o1777 || got.Size != 25 {
			e.Errorf("then mode %04o, size %d; want %04o and 25 bytes", got.Perm(), got.Size, perm)
		}
	}
}

func testCreateHasOwner(e *env) {
	e.needOwner()
	e.create("f", owned(0o6755, 1234, 4321))
	e.wantOwner("f", 0o6755, 1234, 4321)
	e.create("g", bridge.SetAttr{Valid: bridge.SetMode | bridge.SetGID, Mode: 0o640, GID: 77})
	if a := e.lstat("g"); a.GID != 77 {
		e.Errorf("group %d; want 77", a.GID)
	}
}

func testCreateHasTimes(e *env) {
	set := bridge.SetAttr{
		Valid: bridge.SetMode | bridge.SetAtime | bridge.SetMtime, Mode: 0o644,
		Atime: time.Unix(1_000_000_000, 0), Mtime: time.Unix(1_100_000_000, 0),
	}
	e.create("f", set)
	e.wantTimes("f", set.Atime, set.Mtime)
}

func testCreateIsEmpty(e *env) {
	attr := mode(0o644)
	attr.Valid |= bridge.SetSize
	attr.Size = 100
	e.create("f", attr)
	a := e.lstat("f")
	if a.Size != 0 || !a.IsRegular() {
		e.Errorf("new file: %+v; want an empty regular one", a)
	}
	if a.Nlink > 1 {
		e.Errorf("new file has %d links", a.Nlink)
	}
	e.wantContent("f", "")
	f, err := e.b.Open(e.ctx, "g", rdonly|creat, mode(0o604))
	e.need(err, "create for reading")
	e.need(f.Close(e.ctx), "close")
	e.wantPerm("g", 0o604)
}

func testExistingKeepsAttr(e *env) {
	e.put("f", "content")
	e.need(e.b.SetAttr(e.ctx, "f", stamp(0o640, 1e9, 1e9)), "SetAttr")
	other := stamp(0o777, 5e8, 5e8)
	other.Valid |= bridge.SetSize
	f, err := e.b.Open(e.ctx, "f", rdwr|creat, other)
	e.need(err, "open")
	e.need(f.Close(e.ctx), "close")
	if a := e.lstat("f"); a.Perm() != 0o640 || a.Mtime.Unix() != 1e9 {
		e.Errorf("opening changed the mode to %04o or the time to %v", a.Perm(), a.Mtime)
	}
	e.wantContent("f", "content")
}

func testExclusive(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	names := []string{"f", "d"}
	if _, ok := e.b.(bridge.SymlinkBackend); ok {
		e.symlink("f", "l")
		e.symlink("nowhere", "dangling")
		names = append(names, "l", "dangling")
	}
	for _, name := range names {
		_, err := e.b.Open(e.ctx, name, rdwr|creat|excl, mode(0o644))
		e.wantErrno(err, "exclusive creation of the existing "+name, syscall.EEXIST)
		_, err = e.b.Open(e.ctx, name, wronly|creat|excl|trunc, mode(0o644))
		e.wantErrno(err, "exclusive creation of the existing "+name, syscall.EEXIST)
	}
	e.wantContent("f", "content")
	e.wantGone("nowhere")
}

func testOpenTruncate(e *env) {
	e.put("f", strings.Repeat("content", 50_000))
	e.need(e.b.SetAttr(e.ctx, "f", mode(0o604)), "SetAttr")
	for _, flags := range []bridge.OpenFlags{rdwr | trunc, wronly | creat | trunc, wronly | trunc | apnd} {
		f := e.open("f", flags)
		if a := e.lstat("f"); a.Size != 0 || a.Perm() != 0o604 {
			e.Errorf("flags %#x: size %d, mode %04o; want an empty file of mode 0604", flags, a.Size, a.Perm())
		}
		e.writeAt(f, "again", 0)
	}
	e.wantContent("f", "again")
	_, err := e.b.Open(e.ctx, "absent", wronly|trunc, mode(0o644))
	e.wantErrno(err, "truncate an absent file", syscall.ENOENT)
	e.wantGone("absent")
}

func testOpenNotRegular(e *env) {
	e.mkdir("d")
	for _, name := range []string{"d", "."} {
		for _, flags := range []bridge.OpenFlags{rdonly, wronly, rdwr | creat, rdwr | trunc} {
			_, err := e.b.Open(e.ctx, name, flags, mode(0o644))
			e.wantErrno(err, fmt.Sprintf("open directory %q with %#x", name, flags), syscall.EISDIR)
		}
	}
}

func testOpenSymlink(e *env) {
	e.put("f", "content")
	e.mkdir("d")
	e.put("d/f", "in d")
	e.symlink("f", "l")
	e.symlink("nowhere", "dangling")
	e.symlink("d", "ld")
	for _, name := range []string{"l", "dangling"} {
		for _, flags := range []bridge.OpenFlags{rdonly, wronly, rdwr | creat, wronly | trunc, wronly | creat | trunc} {
			_, err := e.b.Open(e.ctx, name, flags, mode(0o644))
			e.wantErrno(err, fmt.Sprintf("open the symbolic link %s with %#x", name, flags), syscall.ELOOP)
		}
	}
	e.wantContent("f", "content")
	e.wantGone("nowhere")
	_, err := e.b.Open(e.ctx, "ld/f", rdonly, bridge.SetAttr{})
	e.wantErrno(err, "open below a symbolic link", syscall.ENOTDIR)
	_, err = e.b.Open(e.ctx, "ld/new", wronly|creat, mode(0o644))
	e.wantErrno(err, "create below a symbolic link", syscall.ENOTDIR)
	e.wantGone("d/new")
}

func testOpenBadPath(e *env) {
	e.put("f", "")
	for _, flags := range []bridge.OpenFlags{rdonly, rdwr | creat} {
		_, err := e.b.Open(e.ctx, "absent/f", flags, mode(0o644))
		e.wantErrno(err, "open below an absent directory", syscall.ENOENT)
		_, err = e.b.Open(e.ctx, "f/g", flags, mode(0o644))
		e.wantErrno(err, "open below a file", syscall.ENOTDIR)
	}
	_, err := e.b.Open(e.ctx, "absent", rdonly, bridge.SetAttr{})
	e.wantErrno(err, "open an absent file", syscall.ENOENT)
}

// race runs n goroutines and returns their errors.
func race(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// wantOneWinner checks that one error is nil and the others have the errno.
func (e *env) wantOneWinner(errs []error, what string, errno syscall.Errno) (winner int) {
	e.Helper()
	winner = -1
	won := 0
	for i, err := range errs {
		if err == nil {
			winner = i
			won++
			continue
		}
		e.wantErrno(err, what, errno)
	}
	if won != 1 {
		e.Fatalf("%s: %d won; want one", what, won)
	}
	return winner
}

func testExclusiveRace(e *env) {
	for round := range 5 {
		name := fmt.Sprint("f", round)
		errs := race(8, func(int) error {
			f, err := e.b.Open(e.ctx, name, wronly|creat|excl, mode(0o644))
			if err != nil {
				return err
			}
			return f.Close(e.ctx)
		})
		e.wantOneWinner(errs, "exclusive creation in parallel", syscall.EEXIST)
	}
}

func testCreateRace(e *env) {
	errs := race(8, func(i int) error {
		f, err := e.b.Open(e.ctx, "f", wronly|creat, mode(0o644))
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(e.ctx, []byte{byte('0' + i)}, int64(i)); err != nil {
			return err
		}
		return f.Close(e.ctx)
	})
	for _, err := range errs {
		e.need(err, "create in parallel")
	}
	e.wantContent("f", "01234567")
	if names := e.names("."); len(names) != 1 || names["f"] != 1 {
		e.Errorf("there are %v; want one f", names)
	}
}

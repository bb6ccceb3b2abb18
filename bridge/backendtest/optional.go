package backendtest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

var statFSTests = []test{{"StatFS", testStatFS}}

func testStatFS(e *env) {
	b, ok := e.b.(bridge.StatFSBackend)
	if !ok {
		e.Skip("no statfs")
	}
	e.mkdir("d")
	e.put("d/f", "content")
	for _, name := range []string{".", "d", "d/f"} {
		s, err := b.StatFS(e.ctx, name)
		e.need(err, "StatFS of %q", name)
		if s.BlockSize == 0 || s.FragSize == 0 || s.NameMax == 0 || s.Blocks == 0 {
			e.Errorf("StatFS of %q has zeros: %+v", name, s)
		}
		if s.BlocksFree > s.Blocks || s.BlocksAvl > s.BlocksFree || s.FilesFree > s.Files {
			e.Errorf("StatFS of %q has more free than there is: %+v", name, s)
		}
	}
	_, err := b.StatFS(e.ctx, "absent")
	e.wantErrno(err, "StatFS of nothing", syscall.ENOENT)
}

var xattrTests = []test{
	{"Set", testXattrSet},
	{"Flags", testXattrFlags},
	{"Errors", testXattrErrors},
	{"WithFile", testXattrWithFile},
}

// needXattr returns the backend if it keeps extended attributes of its files,
// or has the test skipped.
func (e *env) needXattr() bridge.XattrBackend {
	e.Helper()
	b, ok := e.b.(bridge.XattrBackend)
	if !ok {
		e.Skip("no extended attributes")
	}
	e.put("probe", "")
	err := b.SetXattr(e.ctx, "probe", "user.probe", nil, 0)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		e.Skip(err)
	}
	e.need(err, "SetXattr")
	e.need(e.b.Remove(e.ctx, "probe"), "Remove")
	return b
}

func testXattrSet(e *env) {
	b := e.needXattr()
	e.put("f", "content")
	e.mkdir("d")
	for _, name := range []string{"f", "d"} {
		values := map[string]string{
			"user.empty": "", "user.text": "value", "user.bytes": "\x00\xff\x00",
			"user.long": strings.Repeat("v", 1000), "user." + strings.Repeat("n", 200): "long name",
		}
		for attr, value := range values {
			e.need(b.SetXattr(e.ctx, name, attr, []byte(value), 0), "SetXattr %s", attr)
		}
		e.need(b.SetXattr(e.ctx, name, "user.text", []byte("changed"), 0), "SetXattr again")
		values["user.text"] = "changed"
		for attr, want := range values {
			got, err := b.GetXattr(e.ctx, name, attr)
			if err != nil || string(got) != want {
				e.Errorf("GetXattr %s = %s, %v; want %s", attr, brief(string(got)), err, brief(want))
			}
		}
		if got := e.xattrs(name); len(got) != len(values) {
			e.Errorf("ListXattr = %q; want %d names", got, len(values))
		}
		e.need(b.RemoveXattr(e.ctx, name, "user.text"), "RemoveXattr")
		if got := e.xattrs(name); slices.Contains(got, "user.text") || len(got) != len(values)-1 {
			e.Errorf("after removal ListXattr = %q", got)
		}
	}
}

// xattrs returns the names of the attributes that begin with "user.".
func (e *env) xattrs(name string) []string {
	e.Helper()
	names, err := e.b.(bridge.XattrBackend).ListXattr(e.ctx, name)
	e.need(err, "ListXattr")
	return slices.DeleteFunc(names, func(s string) bool { return !strings.HasPrefix(s, "user.") })
}

func testXattrFlags(e *env) {
	const create, replace = 1, 2
	b := e.needXattr()
	e.put("f", "content")
	err := b.SetXattr(e.ctx, "f", "user.a", []byte("1"), replace)
	e.wantErrno(err, "replace an attribute that is not there", syscall.ENODATA)
	e.need(b.SetXattr(e.ctx, "f", "user.a", []byte("2"), create), "SetXattr")
	err = b.SetXattr(e.ctx, "f", "user.a", []byte("3"), create)
	e.wantErrno(err, "create an attribute that is there", syscall.EEXIST)
	if got, err := b.GetXattr(e.ctx, "f", "user.a"); string(got) != "2" || err != nil {
		e.Errorf("GetXattr = %q, %v; want 2", got, err)
	}
	e.need(b.SetXattr(e.ctx, "f", "user.a", []byte("4"), replace), "SetXattr")
	if got, err := b.GetXattr(e.ctx, "f", "user.a"); string(got) != "4" || err != nil {
		e.Errorf("GetXattr = %q, %v; want 4", got, err)
	}
}

func testXattrErrors(e *env) {
	b := e.needXattr()
	e.put("f", "content")
	_, err := b.GetXattr(e.ctx, "f", "user.absent")
	e.wantErrno(err, "GetXattr of none", syscall.ENODATA)
	e.wantErrno(b.RemoveXattr(e.ctx, "f", "user.absent"), "RemoveXattr of none", syscall.ENODATA)
	for name, errno := range map[string]syscall.Errno{"absent": syscall.ENOENT, "f/g": syscall.ENOTDIR} {
		_, err := b.GetXattr(e.ctx, name, "user.a")
		e.wantErrno(err, "GetXattr of "+name, errno)
		_, err = b.ListXattr(e.ctx, name)
		e.wantErrno(err, "ListXattr of "+name, errno)
		e.wantErrno(b.SetXattr(e.ctx, name, "user.a", nil, 0), "SetXattr of "+name, errno)
		e.wantErrno(b.RemoveXattr(e.ctx, name, "user.a"), "RemoveXattr of "+name, errno)
	}
	if names := e.xattrs("f"); len(names) != 0 {
		e.Errorf("ListXattr = %q; want none", names)
	}
}

// Attributes are of the file, not of its name; a link's are not its target's.
func testXattrWithFile(e *env) {
	b := e.needXattr()
	e.put("f", "content")
	value := []byte("value")
	e.need(b.SetXattr(e.ctx, "f", "user.a", value, 0), "SetXattr")
	value[0] = 'x' // is not kept
	e.rename("f", "g")
	if got, err := b.GetXattr(e.ctx, "g", "user.a"); string(got) != "value" || err != nil {
		e.Errorf("after renaming GetXattr = %q, %v", got, err)
	}
	e.symlink("g", "l")
	if got, err := b.GetXattr(e.ctx, "l", "user.a"); err == nil {
		e.Errorf("GetXattr of a link to the file = %q", got)
	}
}

var copyTests = []test{
	{"Range", testCopyRange},
	{"AtEnd", testCopyAtEnd},
	{"SameFile", testCopySameFile},
}

// copyRange copies, or has the test skipped if the backend has it left to the
// tree.
func (e *env) copyRange(from bridge.File, off int64, to bridge.File, toOff, n int64) int64 {
	e.Helper()
	c, ok := from.(bridge.CopyFile)
	if !ok {
		e.Skip("no copying")
	}
	var done int64
	for done < n {
		got, err := c.CopyRange(e.ctx, off+done, to, toOff+done, n-done)
		if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EXDEV) {
			e.Skip(err)
		}
		e.need(err, "CopyRange of %d at %d to %d", n, off, toOff)
		if got == 0 {
			break
		}
		done += got
	}
	return done
}

func testCopyRange(e *env) {
	want := noise(4, 1_000_000)
	e.put("from", want)
	e.put("to", strings.Repeat("x", 500_000))
	from, to := e.open("from", rdonly), e.open("to", rdwr)
	if n := e.copyRange(from, 100_001, to, 400_000, 300_000); n != 300_000 {
		e.Errorf("CopyRange = %d; want 300000", n)
	}
	e.wantContent("to", strings.Repeat("x", 400_000)+want[100_001:400_001])
	if n := e.copyRange(from, 5, to, 0, 10); n != 10 {
		e.Errorf("CopyRange = %d; want 10", n)
	}
	e.wantContent("to", want[5:15]+strings.Repeat("x", 399_990)+want[100_001:400_001])
	e.wantContent("from", want)
}

func testCopyAtEnd(e *env) {
	e.put("from", "0123456789")
	from, to := e.open("from", rdonly), e.open("to", rdwr|creat)
	if n := e.copyRange(from, 4, to, 0, 100); n != 6 {
		e.Errorf("CopyRange over the end = %d; want 6", n)
	}
	if n := e.copyRange(from, 10, to, 0, 100); n != 0 {
		e.Errorf("CopyRange at the end = %d; want 0", n)
	}
	if n := e.copyRange(from, 0, to, 8, 2); n != 2 {
		e.Errorf("CopyRange = %d; want 2", n)
	}
	e.wantContent("to", "456789\x00\x0001")
}

func testCopySameFile(e *env) {
	e.put("f", "0123456789")
	f := e.open("f", rdwr)
	if n := e.copyRange(f, 0, f, 5, 5); n != 5 {
		e.Errorf("CopyRange within a file = %d; want 5", n)
	}
	e.wantContent("f", "0123401234")
}

var allocateTests = []test{
	{"Extend", testAllocateExtend},
	{"PunchHole", testAllocatePunch},
	{"ZeroRange", testAllocateZero},
}

// allocate allocates, or has the test skipped if the backend has no such mode.
func (e *env) allocate(f bridge.File, mode uint32, off, n int64) {
	e.Helper()
	a, ok := f.(bridge.AllocateFile)
	if !ok {
		e.Skip("no allocation")
	}
	err := a.Allocate(e.ctx, mode, off, n)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		e.Skip(err)
	}
	e.need(err, "Allocate mode %#x, %d at %d", mode, n, off)
}

func testAllocateExtend(e *env) {
	f := e.open("f", rdwr|creat)
	e.writeAt(f, "content", 0)
	e.allocate(f, 0, 0, 100_000)
	e.wantContent("f", "content"+strings.Repeat("\x00", 99_993))
	e.allocate(f, 1, 50_000, 100_000)
	if a := e.attr(f); a.Size != 100_000 {
		e.Errorf("size %d after allocation that keeps it; want 100000", a.Size)
	}
	e.allocate(f, 0, 10, 20)
	if a := e.attr(f); a.Size != 100_000 || a.Blocks >= 0 && a.Blocks < 100_000/512 {
		e.Errorf("size %d, blocks %d; want 100000 bytes that are allocated", a.Size, a.Blocks)
	}
	for _, bad := range [][2]int64{{0, 0}, {-1, 10}, {5, -1}} {
		err := f.(bridge.AllocateFile).Allocate(e.ctx, 0, bad[0], bad[1])
		e.wantErrno(err, "Allocate with a bad range", syscall.EINVAL)
	}
}

func testAllocatePunch(e *env) {
	const keepSize, punch = 1, 2
	f := e.open("f", rdwr|creat)
	content := bytes.Repeat([]byte("x"), 400_000)
	e.writeAt(f, string(content), 0)
	e.allocate(f, punch|keepSize, 100_001, 200_000)
	clear(content[100_001:300_001])
	e.wantContent("f", string(content))
	e.allocate(f, punch|keepSize, 399_000, 1_000_000)
	clear(content[399_000:])
	e.wantContent("f", string(content))
}

func testAllocateZero(e *env) {
	const keepSize, zero = 1, 16
	f := e.open("f", rdwr|creat)
	content := bytes.Repeat([]byte("x"), 200_000)
	e.writeAt(f, string(content), 0)
	e.allocate(f, zero, 50_001, 70_000)
	clear(content[50_001:120_001])
	e.wantContent("f", string(content))
	e.allocate(f, zero|keepSize, 199_999, 1_000)
	content[199_999] = 0
	e.wantContent("f", string(content))
	e.allocate(f, zero, 199_999, 1_001)
	e.wantContent("f", string(content)+strings.Repeat("\x00", 1000))
}

var seekTests = []test{{"DataAndHoles", testSeek}}

// What Seek says is data may be a hole, but what it says is a hole is one.
func testSeek(e *env) {
	const seekData, seekHole = 3, 4
	const data, end, total = 2 << 20, 3 << 20, 5 << 20
	f := e.open("f", rdwr|creat)
	s, ok := f.(bridge.SeekFile)
	if !ok {
		e.Skip("no seeking")
	}
	e.writeAt(f, strings.Repeat("x", end-data), data)
	e.need(f.SetAttr(e.ctx, size(total)), "SetAttr")
	for _, test := range []struct {
		off      int64
		whence   int
		min, max int64
	}{
		{0, seekData, 0, data},
		{data + 5, seekData, data + 5, data + 5},
		{0, seekHole, 0, total},
		{data, seekHole, end, total},
		{data + 77, seekHole, end, total},
		{total - 1, seekHole, total - 1, total},
	} {
		got, err := s.Seek(e.ctx, test.off, test.whence)
		if err != nil || got < test.min || got > test.max || test.whence == seekHole && data <= got && got < end {
			e.Errorf("Seek(%d, %d) = %d, %v; want %d to %d", test.off, test.whence, got, err, test.min, test.max)
		}
	}
	for _, off := range []int64{total, total + 1, -1} {
		for _, whence := range []int{seekData, seekHole} {
			_, err := s.Seek(e.ctx, off, whence)
			e.wantErrno(err, "Seek outside of the file", syscall.ENXIO, syscall.EINVAL)
		}
	}
}

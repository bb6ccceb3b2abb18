package backendtest

import (
	"strings"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

var attrTests = []test{
	{"Mode", testSetMode},
	{"Owner", testSetOwner},
	{"All", testSetAll},
	{"Size", testSetSize},
	{"Times", testSetTimes},
	{"TimesNow", testSetTimesNow},
	{"TimesFar", testSetTimesFar},
	{"Nothing", testSetNothing},
	{"ByFile", testSetByFile},
	{"Dir", testSetDir},
	{"Root", testSetRoot},
	{"Symlink", testSetSymlink},
	{"Errors", testSetErrors},
	{"ChangeTimes", testChangeTimes},
	{"IDs", testIDs},
}

// needOwner has the test skipped if files cannot be given away.
func (e *env) needOwner() {
	e.Helper()
	if e.opt.NoOwner {
		e.Skip("owners cannot be set")
	}
}

// owned is a SetAttr with a mode and an owner.
func owned(perm, uid, gid uint32) bridge.SetAttr {
	return bridge.SetAttr{
		Valid: bridge.SetMode | bridge.SetUID | bridge.SetGID,
		Mode:  perm, UID: uid, GID: gid,
	}
}

// stamp is a SetAttr with a mode and times in seconds.
func stamp(perm uint32, atime, mtime int64) bridge.SetAttr {
	return bridge.SetAttr{
		Valid: bridge.SetMode | bridge.SetAtime | bridge.SetMtime,
		Mode:  perm, Atime: time.Unix(atime, 0), Mtime: time.Unix(mtime, 0),
	}
}

func (e *env) wantPerm(name string, want uint32) {
	e.Helper()
	if got := e.lstat(name).Perm(); got != want {
		e.Errorf("mode of %q is %04o; want %04o", name, got, want)
	}
}

func (e *env) wantOwner(name string, perm, uid, gid uint32) {
	e.Helper()
	a := e.lstat(name)
	if a.Perm() != perm || a.UID != uid || a.GID != gid {
		e.Errorf("%q has mode %04o, owner %d:%d; want %04o, %d:%d", name, a.Perm(), a.UID, a.GID, perm, uid, gid)
	}
}

// wantTimes checks the times of name, as finely as the backend keeps them.
func (e *env) wantTimes(name string, atime, mtime time.Time) {
	e.Helper()
	a := e.lstat(name)
	for _, t := range []struct {
		what      string
		got, want time.Time
	}{{"atime", a.Atime, atime}, {"mtime", a.Mtime, mtime}} {
		want := t.want
		if !e.b.Traits().Subsecond {
			want = time.Unix(want.Unix(), 0)
		}
		if !t.got.Equal(want) {
			e.Errorf("%s of %q is %v; want %v", t.what, name, t.got.UTC(), want.UTC())
		}
	}
}

func testSetMode(e *env) {
	e.put("f", "content")
	for _, perm := range []uint32{0o777, 0o000, 0o4711, 0o2755, 0o1644, 0o640} {
		e.need(e.b.SetAttr(e.ctx, "f", mode(perm)), "SetAttr")
		e.wantPerm("f", perm)
	}
	if a := e.lstat("f"); !a.IsRegular() || a.Size != 7 {
		e.Errorf("then the file is %+v", a)
	}
}

func testSetOwner(e *env) {
	e.needOwner()
	e.put("f", "content")
	set := func(f bridge.SetFields, id uint32) {
		e.Helper()
		e.need(e.b.SetAttr(e.ctx, "f", bridge.SetAttr{Valid: f, UID: id, GID: id}), "SetAttr")
	}
	e.need(e.b.SetAttr(e.ctx, "f", owned(0o640, 10, 20)), "SetAttr")
	e.wantOwner("f", 0o640, 10, 20)
	set(bridge.SetUID, 30)
	e.wantOwner("f", 0o640, 30, 20)
	set(bridge.SetGID, 40)
	e.wantOwner("f", 0o640, 30, 40)
	set(bridge.SetUID|bridge.SetGID, 1<<31+5)
	e.wantOwner("f", 0o640, 1<<31+5, 1<<31+5)
}

// Of changes asked for together, none undoes another: giving a file away does
// not clear its set-id bits, nor truncation its times.
func testSetAll(e *env) {
	e.put("f", "content")
	set := stamp(0o6755, 1_000_000_000, 1_100_000_000)
	set.Valid |= bridge.SetSize
	set.Size = 3
	if !e.opt.NoOwner {
		set.Valid |= bridge.SetUID | bridge.SetGID
		set.UID, set.GID = 11, 22
	}
	check := func(name, content string) {
		e.Helper()
		e.wantPerm(name, 0o6755)
		e.wantTimes(name, set.Atime, set.Mtime)
		if a := e.lstat(name); set.Has(bridge.SetUID) && (a.UID != 11 || a.GID != 22) {
			e.Errorf("owner %d:%d; want 11:22", a.UID, a.GID)
		}
		if a := e.lstat(name); a.Size != int64(len(content)) {
			e.Errorf("size %d; want %d", a.Size, len(content))
		}
	}
	e.need(e.b.SetAttr(e.ctx, "f", set), "SetAttr by name")
	check("f", "con")
	e.put("g", "content")
	g := e.open("g", rdwr)
	e.need(g.SetAttr(e.ctx, set), "SetAttr by file")
	check("g", "con")
	e.wantContent("g", "con")
}

func testSetSize(e *env) {
	e.put("f", strings.Repeat("x", 100_000))
	f := e.open("f", rdwr)
	for _, n := range []int64{100_000, 70_001, 70_001, 0, 5, 200_000} {
		e.need(e.b.SetAttr(e.ctx, "f", size(n)), "SetAttr")
		if a := e.lstat("f"); a.Size != n {
			e.Errorf("size %d; want %d", a.Size, n)
		}
	}
	e.wantContent("f", strings.Repeat("\x00", 200_000))
	e.need(f.SetAttr(e.ctx, size(3)), "SetAttr by file")
	e.wantContent("f", "\x00\x00\x00")
}

func testSetTimes(e *env) {
	e.put("f", "content")
	at, mt := time.Unix(1_000_000_000, 123_456_789), time.Unix(1_200_000_000, 987_654_321)
	set := bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: at, Mtime: mt}
	e.need(e.b.SetAttr(e.ctx, "f", set), "SetAttr of both")
	e.wantTimes("f", at, mt)
	mt = time.Unix(1_300_000_000, 5)
	e.need(e.b.SetAttr(e.ctx, "f", bridge.SetAttr{Valid: bridge.SetMtime, Mtime: mt}), "SetAttr of mtime")
	e.wantTimes("f", at, mt)
	at = time.Unix(1_400_000_000, 7)
	e.need(e.b.SetAttr(e.ctx, "f", bridge.SetAttr{Valid: bridge.SetAtime, Atime: at}), "SetAttr of atime")
	e.wantTimes("f", at, mt)
	e.need(e.b.SetAttr(e.ctx, "f", mode(0o600)), "SetAttr of the mode")
	e.wantTimes("f", at, mt)
}

// recent reports whether t is the present time, for a clock that is not ours
// on a machine that is busy.
func recent(t time.Time) bool {
	d := time.Since(t)
	return -time.Hour < d && d < time.Hour
}

func testSetTimesNow(e *env) {
	e.put("f", "content")
	old := stamp(0o644, 1e9, 1e9)
	e.need(e.b.SetAttr(e.ctx, "f", old), "SetAttr")
	set := bridge.SetAttr{Valid: bridge.SetMtime | bridge.SetMtimeNow}
	e.need(e.b.SetAttr(e.ctx, "f", set), "SetAttr")
	if a := e.lstat("f"); !recent(a.Mtime) || a.Atime.Unix() != 1e9 {
		e.Errorf("mtime set to now: mtime %v, atime %v", a.Mtime, a.Atime)
	}
	e.need(e.b.SetAttr(e.ctx, "f", old), "SetAttr")
	set = bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetAtimeNow | bridge.SetMtime, Mtime: time.Unix(12e8, 0)}
	e.need(e.b.SetAttr(e.ctx, "f", set), "SetAttr")
	if a := e.lstat("f"); !recent(a.Atime) || a.Mtime.Unix() != 12e8 {
		e.Errorf("atime set to now: mtime %v, atime %v", a.Mtime, a.Atime)
	}
}

// Times outside of what 31 bits hold are kept.
func testSetTimesFar(e *env) {
	e.put("f", "content")
	for _, sec := range []int64{-1, -1_000_000_000, 1<<31 + 7, 0} {
		t := time.Unix(sec, 0)
		set := bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: t, Mtime: t}
		err := e.b.SetAttr(e.ctx, "f", set)
		if sec < 0 && e.opt.NoEarlyTimes {
			if err == nil {
				e.Errorf("setting %v, which cannot be kept, is no error", t.UTC())
			}
			continue
		}
		e.need(err, "SetAttr of %v", t.UTC())
		e.wantTimes("f", t, t)
	}
}

func testSetNothing(e *env) {
	e.put("f", "content")
	e.need(e.b.SetAttr(e.ctx, "f", stamp(0o640, 1e9, 1e9)), "SetAttr")
	e.need(e.b.SetAttr(e.ctx, "f", bridge.SetAttr{Mode: 0o777, Size: 1}), "SetAttr of nothing")
	e.wantPerm("f", 0o640)
	e.wantContent("f", "content")
	if a := e.lstat("f"); a.Mtime.Unix() != 1e9 {
		e.Errorf("mtime %v", a.Mtime)
	}
}

// What is set through an open file is seen by name, and the other way round.
func testSetByFile(e *env) {
	e.put("f", "content")
	f := e.open("f", rdonly)
	set := stamp(0o1600, 1e9, 12e8)
	e.need(f.SetAttr(e.ctx, set), "SetAttr of a file open for reading")
	e.wantPerm("f", 0o1600)
	e.wantTimes("f", set.Atime, set.Mtime)
	if !e.opt.NoOwner {
		e.need(f.SetAttr(e.ctx, owned(0o4600, 5, 6)), "SetAttr of owner and mode")
		e.wantOwner("f", 0o4600, 5, 6)
	}
	e.need(e.b.SetAttr(e.ctx, "f", mode(0o604)), "SetAttr by name")
	if a := e.attr(f); a.Perm() != 0o604 || a.Size != 7 {
		e.Errorf("the open file has mode %04o, size %d", a.Perm(), a.Size)
	}
	w := e.open("f", wronly)
	e.need(w.SetAttr(e.ctx, size(3)), "SetAttr of the size")
	if a := e.attr(f); a.Size != 3 {
		e.Errorf("the other open file has size %d", a.Size)
	}
}

func testSetDir(e *env) {
	e.mkdir("d")
	set := stamp(0o1770, 1e9, 12e8)
	e.need(e.b.SetAttr(e.ctx, "d", set), "SetAttr of a directory")
	e.wantPerm("d", 0o1770)
	e.wantTimes("d", set.Atime, set.Mtime)
	if !e.opt.NoOwner {
		e.need(e.b.SetAttr(e.ctx, "d", owned(0o2750, 5, 6)), "SetAttr of owner and mode")
		e.wantOwner("d", 0o2750, 5, 6)
	}
	if !e.lstat("d").IsDir() {
		e.Error("it is no directory any more")
	}
	e.wantErrno(e.b.SetAttr(e.ctx, "d", size(0)), "SetAttr of a directory's size", syscall.EISDIR)
}

func testSetRoot(e *env) {
	if a := e.lstat("."); !a.IsDir() {
		e.Fatalf("the root has mode %#o", a.Mode)
	}
	e.need(e.b.SetAttr(e.ctx, ".", mode(0o711)), "SetAttr of the root")
	e.wantPerm(".", 0o711)
	e.need(e.b.SetAttr(e.ctx, ".", mode(0o755)), "SetAttr of the root")
}

// What is set of a symbolic link is set of the link or not at all.
func testSetSymlink(e *env) {
	e.put("f", "content")
	e.need(e.b.SetAttr(e.ctx, "f", stamp(0o640, 1e9, 1e9)), "SetAttr")
	before := e.lstat("f")
	e.symlink("f", "l")
	t := time.Unix(12e8, 0)
	tests := map[string]bridge.SetAttr{
		"mode":  mode(0o777),
		"size":  size(1),
		"times": {Valid: bridge.SetAtime | bridge.SetMtime, Atime: t, Mtime: t},
	}
	if !e.opt.NoOwner {
		tests["owner"] = bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID, UID: 8, GID: 9}
	}
	for what, set := range tests {
		err := e.b.SetAttr(e.ctx, "l", set)
		a := e.lstat("l")
		switch {
		case err != nil:
			e.wantErrno(err, "SetAttr of a link's "+what, syscall.ELOOP, syscall.EOPNOTSUPP)
		case what == "times" && !a.Mtime.Equal(t):
			e.Errorf("mtime of the link is %v; want %v", a.Mtime, t)
		case what == "owner" && (a.UID != 8 || a.GID != 9):
			e.Errorf("owner of the link is %d:%d; want 8:9", a.UID, a.GID)
		case what == "size":
			e.Error("SetAttr of a link's size did not fail")
		}
	}
	after := e.lstat("f")
	if after.Mode != before.Mode || after.UID != before.UID || after.GID != before.GID ||
		after.Size != before.Size || !after.Mtime.Equal(before.Mtime) {
		e.Errorf("the target of the link was changed from %+v to %+v", before, after)
	}
}

func testSetErrors(e *env) {
	e.put("f", "content")
	e.wantErrno(e.b.SetAttr(e.ctx, "absent", mode(0o600)), "SetAttr of nothing", syscall.ENOENT)
	e.wantErrno(e.b.SetAttr(e.ctx, "absent/f", size(1)), "SetAttr below nothing", syscall.ENOENT)
	e.wantErrno(e.b.SetAttr(e.ctx, "f/g", mode(0o600)), "SetAttr below a file", syscall.ENOTDIR)
	e.wantErrno(e.b.SetAttr(e.ctx, "f", size(-1)), "SetAttr of a negative size", syscall.EINVAL)
	e.wantContent("f", "content")
	f := e.open("f", rdonly)
	if err := f.SetAttr(e.ctx, size(0)); err == nil {
		e.Error("truncation of a file that is open for reading only is no error")
	}
	e.wantContent("f", "content")
}

// Changes of content and of names show in the times.
func testChangeTimes(e *env) {
	e.mkdir("d")
	e.put("d/f", "content")
	f := e.open("d/f", rdwr)
	old := bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: time.Unix(1e9, 0), Mtime: time.Unix(1e9, 0)}
	changes := []struct {
		what, changed string
		change        func() error
	}{
		{"writing", "d/f", func() error { _, err := f.WriteAt(e.ctx, []byte("x"), 0); return err }},
		{"truncation", "d/f", func() error { return f.SetAttr(e.ctx, size(1)) }},
		{"creation of a directory", "d", func() error { return e.b.Mkdir(e.ctx, "d/sub", mode(0o755)) }},
		{"renaming", "d", func() error { return e.b.Rename(e.ctx, "d/sub", "d/dir", 0) }},
		{"removal of a directory", "d", func() error { return e.b.Rmdir(e.ctx, "d/dir") }},
		{"removal of a file", "d", func() error { return e.b.Remove(e.ctx, "d/f") }},
	}
	for _, c := range changes {
		e.need(e.b.SetAttr(e.ctx, c.changed, old), "SetAttr")
		before := e.lstat(c.changed)
		e.need(c.change(), "%s", c.what)
		after := e.lstat(c.changed)
		if !recent(after.Mtime) {
			e.Errorf("%s left the mtime of %s at %v", c.what, c.changed, after.Mtime)
		}
		if after.Ctime.Before(before.Ctime) {
			e.Errorf("%s put the ctime of %s back", c.what, c.changed)
		}
	}
	if a := e.lstat("d"); !a.Ctime.IsZero() && !recent(a.Ctime) {
		e.Errorf("ctime %v", a.Ctime)
	}
}

// An identity is of one file for life, whatever its name.
func testIDs(e *env) {
	if !e.b.Traits().FileIDs {
		e.Skip("no file ids")
	}
	e.put("f", "content")
	e.put("g", "content")
	e.mkdir("d")
	f := e.open("f", rdonly)
	id := e.lstat("f").ID
	if id == (bridge.FileID{}) || id == e.lstat("g").ID || id == e.lstat("d").ID || id == e.lstat(".").ID {
		e.Errorf("the id %v is not of one file", id)
	}
	e.need(e.b.Rename(e.ctx, "f", "d/f", 0), "Rename")
	if got := e.lstat("d/f").ID; got != id {
		e.Errorf("renaming changed the id from %v to %v", id, got)
	}
	if got := e.attr(f).ID; got != id {
		e.Errorf("the open file has the id %v; want %v", got, id)
	}
	for d, err := range e.b.ReadDir(e.ctx, "d") {
		e.need(err, "ReadDir")
		if d.Full && d.Attr.ID != id {
			e.Errorf("the entry has the id %v; want %v", d.Attr.ID, id)
		}
	}
}

package bridge_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// Some users. Alice and bob are both in the group 2000.
var (
	root  = &bridge.Cred{UID: 0, GID: 0}
	alice = &bridge.Cred{UID: 1001, GID: 1001, Groups: []uint32{2000}}
	bob   = &bridge.Cred{UID: 1002, GID: 1002, Groups: []uint32{2000}}
	eve   = &bridge.Cred{UID: 1003, GID: 1003}
)

// aFile, aDir and aFifo return attributes of alice's, of the group 2000.
func aFile(perm uint32) bridge.Attr {
	return bridge.Attr{Mode: syscall.S_IFREG | perm, UID: 1001, GID: 2000}
}

func aDir(perm uint32) bridge.Attr {
	return bridge.Attr{Mode: syscall.S_IFDIR | perm, UID: 1001, GID: 2000}
}

func aFifo(perm uint32) bridge.Attr {
	return bridge.Attr{Mode: syscall.S_IFIFO | perm, UID: 1001, GID: 2000}
}

// A kernelCase is a system call with what the permission rules say of it.
type kernelCase struct {
	kernelCall
	name string
	want error
	// attr, if any, are mode, owner and group of attrOf after a success.
	attr   *bridge.Attr
	attrOf string
}

// lstatAttr returns what the kernel says of a file.
func lstatAttr(t *testing.T, name string) bridge.Attr {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return bridge.Attr{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size}
}

// A kernelLab makes files and collects cases about them for one user.
type kernelLab struct {
	t         *testing.T
	dir       string
	c         *bridge.Cred
	protected bridge.Protected
	n         int
	cases     []kernelCase
}

// make makes a file with the type, permissions and owner of a, and returns
// its name and its attributes.
func (l *kernelLab) make(parent string, a bridge.Attr) (string, bridge.Attr) {
	l.t.Helper()
	l.n++
	name := filepath.Join(parent, fmt.Sprint("f", l.n))
	err := error(nil)
	switch a.Type() {
	case syscall.S_IFDIR:
		err = os.Mkdir(name, 0o700)
	case syscall.S_IFIFO:
		err = unix.Mkfifo(name, 0o600)
	case syscall.S_IFSOCK:
		err = unix.Mknod(name, syscall.S_IFSOCK|0o600, 0)
	case syscall.S_IFLNK:
		err = errors.Join(os.Symlink("/", name), unix.Lchown(name, int(a.UID), int(a.GID)))
		if err != nil {
			l.t.Fatal(err)
		}
		return name, lstatAttr(l.t, name)
	default:
		err = os.WriteFile(name, []byte("content"), 0o600)
	}
	err = errors.Join(err, unix.Lchown(name, int(a.UID), int(a.GID)), unix.Chmod(name, a.Perm()))
	if err != nil {
		l.t.Fatal(err)
	}
	return name, lstatAttr(l.t, name)
}

func (l *kernelLab) add(name string, call kernelCall, want error, after *bridge.Attr, attrOf string) {
	l.cases = append(l.cases, kernelCase{kernelCall: call, name: name, want: want, attr: after, attrOf: attrOf})
}

func (l *kernelLab) addAccess() {
	for perm := range uint32(0o1000) {
		for _, a := range []bridge.Attr{aFile(perm), aDir(perm)} {
			name, a := l.make(l.dir, a)
			for mask := range uint32(8) {
				l.add(fmt.Sprintf("access %o of %#o", mask, a.Mode),
					kernelCall{Op: "access", Path: name, A: int64(mask)}, bridge.CheckAccess(l.c, a, mask), nil, "")
			}
		}
	}
}

func (l *kernelLab) addDelete() {
	for _, perm := range []uint32{0o777, 0o1777, 0o755, 0o1755, 0o1770, 0o775, 0o776, 0o1773, 0o300, 0o1372, 0o773} {
		for _, owner := range []uint32{0, 1001, 1002} {
			for _, victimOwner := range []uint32{0, 1001, 1002, 1003} {
				d := aDir(perm)
				d.UID = owner
				parent, d := l.make(l.dir, d)
				v := aFile(0)
				v.UID = victimOwner
				victim, v := l.make(parent, v)
				l.add(fmt.Sprintf("unlink of %d's file in %d's %#o", victimOwner, owner, d.Mode),
					kernelCall{Op: "unlink", Path: victim}, bridge.CheckDelete(l.c, d, v), nil, "")
			}
		}
	}
}

// setAttrModes are modes that the rules for attributes tell apart.
var setAttrModes = []uint32{0, 0o600, 0o666, 0o606, 0o660, 0o066, 0o020, 0o002, 0o755, 0o777,
	0o4666, 0o2666, 0o2676, 0o2660, 0o4755, 0o6755, 0o6777, 0o6767, 0o2040}

func (l *kernelLab) addLink() {
	for _, perm := range setAttrModes {
		for _, a := range []bridge.Attr{aFile(perm), aFifo(perm)} {
			for _, owner := range []uint32{0, 1001} {
				a.UID = owner
				name, a := l.make(l.dir, a)
				l.add(fmt.Sprintf("link of %d's %#o", owner, a.Mode), kernelCall{Op: "link", Path: name, Path2: name + ".new"}, l.protected.CheckLink(l.c, a), nil, "")
			}
		}
	}
}

// addInSticky adds what do makes of directories of all kinds and files of typ in
// them.
func (l *kernelLab) addInSticky(typ uint32, do func(name, what string, dir, file bridge.Attr)) {
	for _, perm := range []uint32{0o777, 0o1777, 0o1775, 0o1770, 0o1755, 0o1707, 0o3777, 0o1773, 0o1703} {
		for _, owner := range []uint32{0, 1001, 1002} {
			for _, fileOwner := range []uint32{0, 1001, 1002, 1003} {
				d := aDir(perm)
				d.UID = owner
				parent, d := l.make(l.dir, d)
				name, a := l.make(parent, bridge.Attr{Mode: typ | 0o666, UID: fileOwner, GID: 3000})
				do(name, fmt.Sprintf("of %d's %#o in %d's %#o", fileOwner, a.Mode, owner, d.Mode), d, a)
			}
		}
	}
}

func (l *kernelLab) addFollow() {
	l.addInSticky(syscall.S_IFLNK, func(name, what string, dir, link bridge.Attr) {
		search := bridge.CheckAccess(l.c, dir, bridge.MayExec)
		follow := search
		if search == nil {
			follow = l.protected.CheckFollow(l.c, dir, link)
		}
		l.add("stat "+what, kernelCall{Op: "stat", Path: name}, follow, nil, "")
		l.add("stat with a slash "+what, kernelCall{Op: "stat", Path: name + "//"}, follow, nil, "")
		l.add("open "+what, kernelCall{Op: "open", Path: name, A: unix.O_RDONLY}, follow, nil, "")
		l.add("lstat "+what, kernelCall{Op: "lstat", Path: name}, search, nil, "")
		l.add("stat below "+what, kernelCall{Op: "stat", Path: name + "/."}, search, nil, "")
	})
}

func (l *kernelLab) addReuse() {
	for _, typ := range []uint32{syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK} {
		l.addInSticky(typ, func(name, what string, dir, file bridge.Attr) {
			err := bridge.CheckAccess(l.c, dir, bridge.MayExec)
			if err == nil {
				err = l.protected.CheckReuse(l.c, dir, file)
			}
			if err == nil && typ == syscall.S_IFSOCK {
				err = syscall.ENXIO
			}
			l.add("create "+what, kernelCall{Op: "open", Path: name, A: unix.O_RDONLY | unix.O_CREAT}, err, nil, "")
		})
	}
}

func (l *kernelLab) addSetAttr() {
	const now, omit = unix.UTIME_NOW, unix.UTIME_OMIT
	when := time.Unix(0, 5)
	changes := []struct {
		name string
		call kernelCall
		set  bridge.SetAttr
	}{
		{"chmod 7777", kernelCall{Op: "chmod", A: 0o7777, B: 0}, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o7777}},
		{"chmod 0640", kernelCall{Op: "chmod", A: 0o640, B: 0}, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o640}},
		{"chown 1001", kernelCall{Op: "chown", A: 1001, B: -1}, bridge.SetAttr{Valid: bridge.SetUID, UID: 1001}},
		{"chown 1002", kernelCall{Op: "chown", A: 1002, B: -1}, bridge.SetAttr{Valid: bridge.SetUID, UID: 1002}},
		{"chgrp 1001", kernelCall{Op: "chown", A: -1, B: 1001}, bridge.SetAttr{Valid: bridge.SetGID, GID: 1001}},
		{"chgrp 2000", kernelCall{Op: "chown", A: -1, B: 2000}, bridge.SetAttr{Valid: bridge.SetGID, GID: 2000}},
		{"chgrp 3000", kernelCall{Op: "chown", A: -1, B: 3000}, bridge.SetAttr{Valid: bridge.SetGID, GID: 3000}},
		{"chown 1001:1001", kernelCall{Op: "chown", A: 1001, B: 1001}, bridge.SetAttr{Valid: bridge.SetUID | bridge.SetGID, UID: 1001, GID: 1001}},
		{"truncate 3", kernelCall{Op: "truncate", A: 3, B: 0}, bridge.SetAttr{Valid: bridge.SetSize, Size: 3}},
		{"truncate -1", kernelCall{Op: "truncate", A: -1, B: 0}, bridge.SetAttr{Valid: bridge.SetSize, Size: -1}},
		{"times", kernelCall{Op: "utimes", A: 5, B: 5}, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: when, Mtime: when}},
		{"now", kernelCall{Op: "utimes", A: now, B: now}, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime | bridge.SetAtimeNow | bridge.SetMtimeNow}},
		{"atime now", kernelCall{Op: "utimes", A: now, B: omit}, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetAtimeNow}},
		{"atime now and mtime", kernelCall{Op: "utimes", A: now, B: 5}, bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime | bridge.SetAtimeNow, Mtime: when}},
	}
	for _, ch := range changes {
		for _, perm := range setAttrModes {
			for _, a := range []bridge.Attr{aFile(perm), aDir(perm), aFifo(perm)} {
				for _, gid := range []uint32{2000, 3000} {
					a.GID = gid
					name, a := l.make(l.dir, a)
					ch.call.Path = name
					after := bridge.SetAttrEffect(l.c, a, ch.set).Apply(a, when)
					l.add(fmt.Sprintf("%s of %#o, group %d", ch.name, a.Mode, gid),
						ch.call, bridge.CheckSetAttr(l.c, a, ch.set, false), &after, name)
				}
			}
		}
	}
}

func (l *kernelLab) addWrite() {
	for _, perm := range setAttrModes {
		for _, gid := range []uint32{2000, 3000} {
			a := aFile(perm)
			a.GID = gid
			name, a := l.make(l.dir, a)
			after := a
			mode, _ := bridge.WriteClears(l.c, a)
			after.Mode = a.Type() | mode
			l.add(fmt.Sprintf("write to %#o, group %d", a.Mode, gid),
				kernelCall{Op: "open", Path: name, A: unix.O_WRONLY}, bridge.CheckAccess(l.c, a, bridge.MayWrite), &after, name)
		}
	}
}

func (l *kernelLab) addCreate() {
	for _, perm := range []uint32{0o777, 0o2777, 0o2770, 0o3777, 0o755, 0o766} {
		for _, mode := range []uint32{0, 0o644, 0o755, 0o2755, 0o2745, 0o6777, 0o1777} {
			for op, typ := range map[string]uint32{"open": syscall.S_IFREG, "mkdir": syscall.S_IFDIR} {
				parent, d := l.make(l.dir, aDir(perm))
				name := filepath.Join(parent, "new")
				set := bridge.NewAttr(l.c, d, typ|mode)
				call := kernelCall{Op: op, Path: name, A: int64(mode)}
				if op == "open" {
					call.A, call.B = unix.O_CREAT|unix.O_EXCL|unix.O_RDONLY, int64(mode)
				}
				after := bridge.Attr{Mode: typ | set.Mode, UID: set.UID, GID: set.GID}
				l.add(fmt.Sprintf("%s %#o in %#o", op, mode, d.Mode),
					call, bridge.CheckAccess(l.c, d, bridge.MayWrite|bridge.MayExec), &after, name)
			}
		}
	}
}

// TestPermAgainstKernel compares the permission rules with what the kernel does
// for processes of several users on a tmpfs: the errno, and mode, owner and
// group afterwards.
func TestPermAgainstKernel(t *testing.T) {
	for _, c := range []*bridge.Cred{root, alice, bob, eve, {UID: 1001, GID: 1001}} {
		t.Run(fmt.Sprint(c.UID, c.Groups), func(t *testing.T) {
			l := &kernelLab{t: t, dir: kernelDir(t), c: c, protected: kernelProtected(t)}
			l.addAccess()
			l.addDelete()
			l.addLink()
			l.addFollow()
			l.addReuse()
			l.addSetAttr()
			l.addWrite()
			l.addCreate()
			l.compare(startKernelChild(t, kernelUser{Cred: *c}))
		})
	}
}

func (l *kernelLab) compare(child *kernelChild) {
	l.t.Helper()
	calls := make([]kernelCall, len(l.cases))
	for i := range l.cases {
		calls[i] = l.cases[i].kernelCall
	}
	answers := child.call(calls...)
	for i, kc := range l.cases {
		if got := answers[i].Errno; got != bridge.Errno(kc.want) {
			l.t.Errorf("%s: the kernel says %v, the rules %v", kc.name, got, kc.want)
			continue
		}
		if kc.want != nil || kc.attr == nil {
			continue
		}
		got := lstatAttr(l.t, kc.attrOf)
		if got.Mode != kc.attr.Mode || got.UID != kc.attr.UID || got.GID != kc.attr.GID {
			l.t.Errorf("%s: the kernel left %#o %d:%d, the rules say %#o %d:%d", kc.name,
				got.Mode, got.UID, got.GID, kc.attr.Mode, kc.attr.UID, kc.attr.GID)
		}
	}
}

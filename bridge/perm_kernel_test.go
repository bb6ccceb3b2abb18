package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A kernelCall is a system call that a child process makes as some user.
type kernelCall struct {
	Op   string
	Path string
	A, B int64
}

// A kernelCase is a system call with what the permission rules say of it.
type kernelCase struct {
	kernelCall
	name string
	want error
	// attr, if any, are mode, owner and group of attrOf after a success.
	attr   *Attr
	attrOf string
}

func (kc kernelCall) do() error {
	switch kc.Op {
	case "access":
		return unix.Access(kc.Path, uint32(kc.A))
	case "unlink":
		return unix.Unlink(kc.Path)
	case "link":
		return unix.Link(kc.Path, kc.Path+".new")
	case "chmod":
		return unix.Chmod(kc.Path, uint32(kc.A))
	case "chown":
		return unix.Chown(kc.Path, int(kc.A), int(kc.B))
	case "truncate":
		return unix.Truncate(kc.Path, kc.A)
	case "utimes": // nanoseconds of atime and mtime, or UTIME_NOW and UTIME_OMIT
		return unix.UtimesNanoAt(unix.AT_FDCWD, kc.Path, []unix.Timespec{{Nsec: kc.A}, {Nsec: kc.B}}, 0)
	case "write":
		fd, err := unix.Open(kc.Path, unix.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("x"))
		return err
	case "open":
		fd, err := unix.Open(kc.Path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, uint32(kc.A))
		if err == nil {
			err = unix.Close(fd)
		}
		return err
	case "mkdir":
		return unix.Mkdir(kc.Path, uint32(kc.A))
	}
	return fmt.Errorf("no operation %q", kc.Op)
}

// TestKernelChild is no test but the child process: it makes the calls that it
// reads from its standard input and writes their errnos to descriptor 3.
func TestKernelChild(t *testing.T) {
	if os.Getenv("BRIDGE_KERNEL_CHILD") == "" {
		t.Skip("only for TestPermAgainstKernel")
	}
	unix.Umask(0)
	var calls []kernelCall
	if err := json.NewDecoder(os.Stdin).Decode(&calls); err != nil {
		t.Fatal(err)
	}
	errnos := make([]syscall.Errno, len(calls))
	for i, kc := range calls {
		if err := kc.do(); err != nil && !errors.As(err, &errnos[i]) {
			t.Fatal(err)
		}
	}
	if err := json.NewEncoder(os.NewFile(3, "errnos")).Encode(errnos); err != nil {
		t.Fatal(err)
	}
}

// runAs makes the calls in a child process with the credentials c.
func runAs(t *testing.T, c *Cred, cases []kernelCase) []syscall.Errno {
	t.Helper()
	calls := make([]kernelCall, len(cases))
	for i := range cases {
		calls[i] = cases[i].kernelCall
	}
	input, err := json.Marshal(calls)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.CreateTemp(t.TempDir(), "errnos")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	// The path of the test binary may be closed to the user; this one is not.
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernelChild$")
	cmd.Dir = "/"
	cmd.Env = []string{"BRIDGE_KERNEL_CHILD=1", "GORACE=atexit_sleep_ms=0"}
	cmd.Stdin = strings.NewReader(string(input))
	cmd.ExtraFiles = []*os.File{out}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: c.Groups},
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("child: %v\n%s", err, text)
	}
	if _, err := out.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	var errnos []syscall.Errno
	if err := json.NewDecoder(out).Decode(&errnos); err != nil {
		t.Fatal(err)
	}
	return errnos
}

// lstatAttr returns what the kernel says of a file.
func lstatAttr(t *testing.T, name string) Attr {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	return Attr{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size}
}

// A kernelLab makes files and collects cases about them for one user.
type kernelLab struct {
	t     *testing.T
	dir   string
	c     *Cred
	n     int
	cases []kernelCase
}

// make makes a file with the type, permissions and owner of a, and returns
// its name and its attributes.
func (l *kernelLab) make(parent string, a Attr) (string, Attr) {
	l.t.Helper()
	l.n++
	name := filepath.Join(parent, fmt.Sprint("f", l.n))
	err := error(nil)
	switch a.Type() {
	case syscall.S_IFDIR:
		err = os.Mkdir(name, 0o700)
	case syscall.S_IFIFO:
		err = unix.Mkfifo(name, 0o600)
	default:
		err = os.WriteFile(name, []byte("content"), 0o600)
	}
	err = errors.Join(err, unix.Lchown(name, int(a.UID), int(a.GID)), unix.Chmod(name, a.Perm()))
	if err != nil {
		l.t.Fatal(err)
	}
	return name, lstatAttr(l.t, name)
}

func (l *kernelLab) add(name string, call kernelCall, want error, after *Attr, attrOf string) {
	l.cases = append(l.cases, kernelCase{kernelCall: call, name: name, want: want, attr: after, attrOf: attrOf})
}

func (l *kernelLab) addAccess() {
	for perm := range uint32(0o1000) {
		for _, a := range []Attr{aFile(perm), aDir(perm)} {
			name, a := l.make(l.dir, a)
			for mask := range uint32(8) {
				l.add(fmt.Sprintf("access %o of %#o", mask, a.Mode),
					kernelCall{"access", name, int64(mask), 0}, CheckAccess(l.c, a, mask), nil, "")
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
					kernelCall{"unlink", victim, 0, 0}, CheckDelete(l.c, d, v), nil, "")
			}
		}
	}
}

// setAttrModes are modes that the rules for attributes tell apart.
var setAttrModes = []uint32{0, 0o600, 0o666, 0o606, 0o660, 0o066, 0o020, 0o002, 0o755, 0o777,
	0o4666, 0o2666, 0o2676, 0o2660, 0o4755, 0o6755, 0o6777, 0o6767, 0o2040}

func (l *kernelLab) addLink() {
	if text, err := os.ReadFile("/proc/sys/fs/protected_hardlinks"); err != nil || string(text) != "1\n" {
		l.t.Log("links are not compared: fs.protected_hardlinks is not 1")
		return
	}
	for _, perm := range setAttrModes {
		for _, a := range []Attr{aFile(perm), aFifo(perm), aDir(perm)} {
			for _, owner := range []uint32{0, 1001} {
				a.UID = owner
				name, a := l.make(l.dir, a)
				l.add(fmt.Sprintf("link of %d's %#o", owner, a.Mode), kernelCall{"link", name, 0, 0}, CheckLink(l.c, a), nil, "")
			}
		}
	}
}

func (l *kernelLab) addSetAttr() {
	const now, omit = unix.UTIME_NOW, unix.UTIME_OMIT
	when := time.Unix(0, 5)
	changes := []struct {
		name string
		call kernelCall
		set  SetAttr
	}{
		{"chmod 7777", kernelCall{"chmod", "", 0o7777, 0}, SetAttr{Valid: SetMode, Mode: 0o7777}},
		{"chmod 0640", kernelCall{"chmod", "", 0o640, 0}, SetAttr{Valid: SetMode, Mode: 0o640}},
		{"chown 1001", kernelCall{"chown", "", 1001, -1}, SetAttr{Valid: SetUID, UID: 1001}},
		{"chown 1002", kernelCall{"chown", "", 1002, -1}, SetAttr{Valid: SetUID, UID: 1002}},
		{"chgrp 1001", kernelCall{"chown", "", -1, 1001}, SetAttr{Valid: SetGID, GID: 1001}},
		{"chgrp 2000", kernelCall{"chown", "", -1, 2000}, SetAttr{Valid: SetGID, GID: 2000}},
		{"chgrp 3000", kernelCall{"chown", "", -1, 3000}, SetAttr{Valid: SetGID, GID: 3000}},
		{"chown 1001:1001", kernelCall{"chown", "", 1001, 1001}, SetAttr{Valid: SetUID | SetGID, UID: 1001, GID: 1001}},
		{"truncate 3", kernelCall{"truncate", "", 3, 0}, SetAttr{Valid: SetSize, Size: 3}},
		{"truncate -1", kernelCall{"truncate", "", -1, 0}, SetAttr{Valid: SetSize, Size: -1}},
		{"times", kernelCall{"utimes", "", 5, 5}, SetAttr{Valid: SetAtime | SetMtime, Atime: when, Mtime: when}},
		{"now", kernelCall{"utimes", "", now, now}, SetAttr{Valid: SetAtime | SetMtime | SetAtimeNow | SetMtimeNow}},
		{"atime now", kernelCall{"utimes", "", now, omit}, SetAttr{Valid: SetAtime | SetAtimeNow}},
		{"atime now and mtime", kernelCall{"utimes", "", now, 5}, SetAttr{Valid: SetAtime | SetMtime | SetAtimeNow, Mtime: when}},
	}
	for _, ch := range changes {
		for _, perm := range setAttrModes {
			for _, a := range []Attr{aFile(perm), aDir(perm), aFifo(perm)} {
				for _, gid := range []uint32{2000, 3000} {
					a.GID = gid
					name, a := l.make(l.dir, a)
					ch.call.Path = name
					after := SetAttrEffect(l.c, a, ch.set).Apply(a, when)
					l.add(fmt.Sprintf("%s of %#o, group %d", ch.name, a.Mode, gid),
						ch.call, CheckSetAttr(l.c, a, ch.set, false), &after, name)
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
			mode, _ := WriteClears(l.c, a)
			after.Mode = a.Type() | mode
			l.add(fmt.Sprintf("write to %#o, group %d", a.Mode, gid),
				kernelCall{"write", name, 0, 0}, CheckAccess(l.c, a, MayWrite), &after, name)
		}
	}
}

func (l *kernelLab) addCreate() {
	for _, perm := range []uint32{0o777, 0o2777, 0o2770, 0o3777, 0o755, 0o766} {
		for _, mode := range []uint32{0, 0o644, 0o755, 0o2755, 0o2745, 0o6777, 0o1777} {
			for op, typ := range map[string]uint32{"open": syscall.S_IFREG, "mkdir": syscall.S_IFDIR} {
				parent, d := l.make(l.dir, aDir(perm))
				name := filepath.Join(parent, "new")
				set := NewAttr(l.c, d, typ|mode)
				after := Attr{Mode: typ | set.Mode, UID: set.UID, GID: set.GID}
				l.add(fmt.Sprintf("%s %#o in %#o", op, mode, d.Mode),
					kernelCall{op, name, int64(mode), 0}, CheckAccess(l.c, d, MayWrite|MayExec), &after, name)
			}
		}
	}
}

// TestPermAgainstKernel compares the permission rules with what the kernel does
// for processes of several users on a tmpfs: the errno, and mode, owner and
// group afterwards.
func TestPermAgainstKernel(t *testing.T) {
	var st unix.Statfs_t
	if os.Getuid() != 0 || unix.Statfs("/dev/shm", &st) != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skip("needs root, and a tmpfs at /dev/shm")
	}
	for _, c := range []*Cred{permRoot, permAlice, permBob, permEve, {UID: 1001, GID: 1001}} {
		t.Run(fmt.Sprint(c.UID, c.Groups), func(t *testing.T) {
			dir, err := os.MkdirTemp("/dev/shm", "bridge-perm-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			l := &kernelLab{t: t, dir: dir, c: c}
			l.addAccess()
			l.addDelete()
			l.addLink()
			l.addSetAttr()
			l.addWrite()
			l.addCreate()
			l.compare(runAs(t, c, l.cases))
		})
	}
}

func (l *kernelLab) compare(errnos []syscall.Errno) {
	l.t.Helper()
	if len(errnos) != len(l.cases) {
		l.t.Fatalf("%d answers to %d calls", len(errnos), len(l.cases))
	}
	for i, kc := range l.cases {
		if got := errnos[i]; got != Errno(kc.want) {
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

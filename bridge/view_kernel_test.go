package bridge_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// TestViewAgainstKernel has several users do the same random things to a tree
// in memory, through views, and to a tmpfs, through the kernel, chrooted to the
// directory that is the root of the views. Each answer and the trees that come
// of it have to be the same.
func TestViewAgainstKernel(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("fast ", seed), func(t *testing.T) { compareWithKernel(t, seed, memfs.New()) })
		t.Run(fmt.Sprint("slow ", seed), func(t *testing.T) { compareWithKernel(t, seed+1000, slow{memfs.New()}) })
	}
}

// A viewLab is a tree in memory and one on a tmpfs.
type viewLab struct {
	t        *testing.T
	rng      *rand.Rand
	dir      string // the jail on the tmpfs
	names    []string
	views    []*bridge.View
	children []*kernelChild
	known    []string // paths that were there a while ago
	links    bool     // hard links can be compared
}

func compareWithKernel(t *testing.T, seed uint64, b bridge.Backend) {
	const steps = 1000
	l := newViewLab(t, seed, newTreeWith(t, b, bridge.Options{Protected: kernelProtected(t)}))
	done := make(map[string]int)
	for i := range steps {
		kc := l.randomCall()
		who := l.rng.IntN(len(l.views))
		want := l.children[who].call(kc)[0]
		got, err := viewCall(t.Context(), l.views[who], kc)
		if !l.sameAnswer(l.views[who], kc, got, err, want) {
			t.Fatalf("step %d, %s, %+v:\nthe view says %v %q %+v,\nthe kernel %v %q %+v", i, l.names[who], kc,
				err, got.Text, got.Stat, want.Errno, want.Text, want.Stat)
		}
		if err == nil {
			done[kc.Op]++
		}
		if i%25 == 0 || i == steps-1 {
			l.compareTrees(i)
		}
	}
	t.Log("succeeded: ", done)
}

func newViewLab(t *testing.T, seed uint64, tree *bridge.Tree) *viewLab {
	t.Helper()
	l := &viewLab{
		t:     t,
		rng:   rand.New(rand.NewPCG(seed, 0)),
		dir:   filepath.Join(kernelDir(t), "jail"),
		links: tree.Traits().FileIDs,
	}
	if err := errors.Join(os.Mkdir(l.dir, 0o700), os.Chmod(l.dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	admin := newView(t, tree, &bridge.Avatar{Cred: *root})
	must(t, admin.MakeDirectory(t.Context(), "/jail", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o777}))
	must(t, admin.MakeDirectory(t.Context(), "/outside", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o777}))
	for i, c := range []*bridge.Cred{root, alice, bob, eve} {
		l.names = append(l.names, []string{"root", "alice", "bob", "eve"}[i])
		l.views = append(l.views, newView(t, tree, &bridge.Avatar{Cred: *c, Root: "/jail"}))
		l.children = append(l.children, startKernelChild(t, kernelUser{Root: l.dir, Cred: *c}))
	}
	return l
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func (l *viewLab) randomPath() string {
	if len(l.known) > 0 && l.rng.IntN(2) == 0 {
		return pick(l.rng, l.known...) + pick(l.rng, "", "", "", "/a", "/b", "/c", "/", "/..")
	}
	return l.madeUpPath()
}

// madeUpPath returns a path that may make no sense.
func (l *viewLab) madeUpPath() string {
	var b strings.Builder
	if l.rng.IntN(3) == 0 {
		b.WriteString("/")
	}
	for i := range 1 + l.rng.IntN(4) {
		if i > 0 {
			b.WriteString(pick(l.rng, "/", "/", "/", "//"))
		}
		b.WriteString(pick(l.rng, "a", "a", "b", "b", "c", "d", "e", "..", "."))
	}
	if l.rng.IntN(8) == 0 {
		b.WriteString("/")
	}
	if l.rng.IntN(200) == 0 {
		b.WriteString("/" + strings.Repeat("n", 250+l.rng.IntN(8)))
	}
	if l.rng.IntN(300) == 0 {
		return strings.Repeat("./", 2046) + pick(l.rng, "a", "aa", "a/", "../b", "a/b/c")
	}
	return b.String()
}

func (l *viewLab) randomMode() int64 {
	mode := pick[uint32](l.rng, 0o777, 0o777, 0o777, 0o777, 0o777, 0o777, 0o755, 0o775, 0o770, 0o700, 0o333, 0o555, 0o000, 0o666)
	return int64(mode | pick[uint32](l.rng, 0, 0, 0, 0o2000, 0o4000, 0o6000, 0o1000, 0o3000))
}

func (l *viewLab) randomCall() kernelCall {
	kc := kernelCall{Path: l.randomPath()}
	if l.rng.IntN(10) == 0 {
		return kernelCall{Op: "chmod", Path: "/", A: 0o777}
	}
	switch kc.Op = pick(l.rng, "mkdir", "mkdir", "mkdir", "open", "open", "open", "open", "symlink", "symlink", "rename",
		"rename", "link", "unlink", "rmdir", "chmod", "chown", "lchown", "truncate", "utimes", "stat", "lstat", "readlink"); kc.Op {
	case "link":
		kc.Path2 = l.randomPath()
		if !l.links {
			kc.Op = "stat"
		}
	case "symlink":
		kc.Path2 = l.randomPath()
		if l.rng.IntN(50) == 0 {
			kc.Path2 = ""
		}
	case "rename":
		kc.Path2 = l.randomPath()
		kc.A = pick(l.rng, int64(0), int64(unix.RENAME_NOREPLACE))
	case "mkdir", "chmod":
		kc.A = l.randomMode()
	case "open":
		kc.A = int64(pick(l.rng, unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR) |
			pick(l.rng, 0, unix.O_CREAT, unix.O_CREAT, unix.O_CREAT|unix.O_EXCL) | pick(l.rng, 0, 0, unix.O_TRUNC))
		kc.B = l.randomMode()
	case "chown", "lchown":
		kc.A = pick[int64](l.rng, -1, -1, 1001, 1002)
		kc.B = pick[int64](l.rng, 1001, 2000)
	case "truncate":
		kc.A = pick[int64](l.rng, 0, 3, 100000, -1)
	case "utimes":
		kc.A = pick[int64](l.rng, 7, unix.UTIME_NOW, unix.UTIME_OMIT)
		kc.B = pick[int64](l.rng, 7, unix.UTIME_NOW)
	}
	return kc
}

// viewCall does what a system call does through a view.
func viewCall(ctx context.Context, v *bridge.View, kc kernelCall) (answer kernelAnswer, err error) {
	set := bridge.SetAttr{Valid: bridge.SetMode, Mode: uint32(kc.A)}
	switch kc.Op {
	case "mkdir":
		err = v.MakeDirectory(ctx, kc.Path, set)
	case "open":
		err = viewOpen(ctx, v, kc)
	case "symlink":
		err = v.MakeLink(ctx, kc.Path, kc.Path2)
	case "link":
		err = v.HardLink(ctx, kc.Path, kc.Path2)
	case "rename":
		if kc.A == unix.RENAME_NOREPLACE {
			err = v.RenameFile(ctx, kc.Path, kc.Path2)
		} else {
			err = v.PosixRename(ctx, kc.Path, kc.Path2)
		}
	case "unlink":
		err = v.RemoveFile(ctx, kc.Path)
	case "rmdir":
		err = v.RemoveDirectory(ctx, kc.Path)
	case "chmod":
		err = v.SetAttrs(ctx, kc.Path, set)
	case "chown":
		err = v.SetAttrs(ctx, kc.Path, kc.owner())
	case "lchown":
		err = v.SetLinkAttrs(ctx, kc.Path, kc.owner())
	case "truncate":
		err = v.SetAttrs(ctx, kc.Path, bridge.SetAttr{Valid: bridge.SetSize, Size: kc.A})
	case "utimes":
		err = v.SetAttrs(ctx, kc.Path, kc.times())
	case "readlink":
		answer.Text, err = v.ReadLink(ctx, kc.Path)
	case "stat", "lstat":
		var a bridge.Attr
		a, err = v.GetAttrs(ctx, kc.Path, kc.Op == "stat")
		answer.Stat = statOf(a)
	}
	return answer, err
}

func viewOpen(ctx context.Context, v *bridge.View, kc kernelCall) error {
	attr := bridge.SetAttr{Valid: bridge.SetMode, Mode: uint32(kc.B)}
	f, err := v.OpenFile(ctx, kc.Path, bridge.OpenFlags(kc.A), attr)
	if err != nil {
		return err
	}
	if bridge.OpenFlags(kc.A).Writes() {
		err = f.WriteChunk(ctx, []byte("x"), 0)
	}
	return errors.Join(err, f.Close(ctx))
}

// owner and times return the change of attributes that a call asks for.
func (kc kernelCall) owner() bridge.SetAttr {
	set := bridge.SetAttr{Valid: bridge.SetGID, UID: uint32(kc.A), GID: uint32(kc.B)}
	if kc.A >= 0 {
		set.Valid |= bridge.SetUID
	}
	return set
}

func (kc kernelCall) times() bridge.SetAttr {
	set := bridge.SetAttr{Valid: bridge.SetAtime | bridge.SetMtime, Atime: time.Unix(0, kc.A), Mtime: time.Unix(0, kc.B)}
	switch kc.A {
	case unix.UTIME_NOW:
		set.Valid |= bridge.SetAtimeNow
	case unix.UTIME_OMIT:
		set.Valid &^= bridge.SetAtime
	}
	if kc.B == unix.UTIME_NOW {
		set.Valid |= bridge.SetMtimeNow
	}
	return set
}

// sameAnswer compares what the view and the kernel answered. A directory can
// be opened for reading in Linux, but not through SFTP.
func (l *viewLab) sameAnswer(v *bridge.View, kc kernelCall, got kernelAnswer, err error, want kernelAnswer) bool {
	errno := bridge.Errno(err)
	if kc.Op == "open" && errno == syscall.EISDIR && (want.Errno == 0 || want.Errno == syscall.EACCES) {
		a, err := v.GetAttrs(l.t.Context(), kc.Path, true)
		return err == nil && a.IsDir()
	}
	if errno != want.Errno || got.Text != want.Text {
		return false
	}
	if err != nil || want.Stat == nil {
		return true
	}
	return l.describe(got.Stat) == l.describe(want.Stat)
}

// describe tells of what can be compared: not the size of a directory, nor the
// number of links where the backend does not know it.
func (l *viewLab) describe(st *unix.Stat_t) string {
	size, nlink := st.Size, st.Nlink
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		size = 0
	}
	if !l.links {
		nlink = 0
	}
	return fmt.Sprintf("%#o %d %d:%d %d bytes", st.Mode, nlink, st.Uid, st.Gid, size)
}

// statOf returns the attributes a in the terms of the kernel.
func statOf(a bridge.Attr) *unix.Stat_t {
	return &unix.Stat_t{Mode: a.Mode, Nlink: uint64(a.Nlink), Uid: a.UID, Gid: a.GID, Size: a.Size}
}

// compareTrees compares all names, attributes and targets of links.
func (l *viewLab) compareTrees(step int) {
	l.t.Helper()
	got, want := make(map[string]string), make(map[string]string)
	must(l.t, l.list("/", got))
	must(l.t, filepath.WalkDir(l.dir, func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		target, _ := os.Readlink(path)
		want["/"+strings.TrimPrefix(strings.TrimPrefix(path, l.dir), "/")] = l.describe(&st) + target
		return err
	}))
	l.known = slices.Sorted(maps.Keys(want))
	if maps.Equal(got, want) {
		return
	}
	for _, name := range l.known {
		if got[name] != want[name] {
			l.t.Errorf("%s is %q in the view, %q for the kernel", name, got[name], want[name])
		}
	}
	l.t.Fatalf("step %d: the trees differ: %d and %d names", step, len(got), len(want))
}

// list puts what root sees at and below a directory into m.
func (l *viewLab) list(dir string, m map[string]string) error {
	ctx, v := l.t.Context(), l.views[0]
	d, err := v.OpenDirectory(ctx, dir)
	if err != nil {
		return err
	}
	defer d.Close()
	for e, err := range d.Entries(ctx) {
		if err != nil {
			return err
		}
		name := dir + e.Name
		if e.Name == "." {
			name = strings.TrimSuffix(dir, "/")
			if name == "" {
				name = "/"
			}
		} else if e.Name == ".." {
			continue
		}
		a := e.Attr
		text := l.describe(statOf(a))
		if a.IsSymlink() {
			target, err := v.ReadLink(ctx, name)
			if err != nil {
				return err
			}
			text += target
		}
		m[name] = text
		if a.IsDir() && e.Name != "." {
			if err := l.list(name+"/", m); err != nil {
				return err
			}
		}
	}
	return nil
}

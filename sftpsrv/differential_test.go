package sftpsrv

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
)

const sftpServer = "/usr/lib/openssh/sftp-server"

// A step is a request that both servers get. The handle that it opens goes by
// the name that is its opens; hnd is one that was opened.
type step struct {
	name   string
	typ    sshfx.PacketType
	fields []any
	opens  string
	ours   string // what we answer where we differ on purpose
}

type hnd string

func req(name string, typ sshfx.PacketType, fields ...any) step {
	return step{name: name, typ: typ, fields: fields}
}

func (s step) as(handle string) step  { s.opens = handle; return s }
func (s step) but(answer string) step { s.ours = answer; return s }

const (
	none  = uint32(0)
	rd    = uint32(sshfx.FlagRead)
	wr    = uint32(sshfx.FlagWrite)
	creat = uint32(sshfx.FlagCreate)
	trunc = uint32(sshfx.FlagTruncate)
	excl  = uint32(sshfx.FlagExclusive)
	app   = uint32(sshfx.FlagAppend)
	perm  = uint32(sshfx.AttrPermissions)
	size  = uint32(sshfx.AttrSize)
	times = uint32(sshfx.AttrACModTime)
	owner = uint32(sshfx.AttrUIDGID)
)

// script is in the order in which it is sent. Where a step has an answer of
// our own, the reason is beside it.
var script = []step{
	req("realpath .", sshfx.PacketTypeRealPath, "."),
	req("realpath empty", sshfx.PacketTypeRealPath, ""),
	req("realpath absent", sshfx.PacketTypeRealPath, "absent"),
	req("realpath absent/x", sshfx.PacketTypeRealPath, "absent/x"),
	req("realpath dots", sshfx.PacketTypeRealPath, "./dir/../dir/./sub/.."),
	req("realpath link", sshfx.PacketTypeRealPath, "dirlink"),
	req("stat file", sshfx.PacketTypeStat, "file"),
	req("lstat link", sshfx.PacketTypeLStat, "link"),
	req("stat link", sshfx.PacketTypeStat, "link"),
	req("stat dangling", sshfx.PacketTypeStat, "dangling"),
	req("lstat dangling", sshfx.PacketTypeLStat, "dangling"),
	req("stat loop", sshfx.PacketTypeStat, "loop"),
	req("stat absent", sshfx.PacketTypeStat, "absent"),
	req("stat below a file", sshfx.PacketTypeStat, "file/x"),
	req("stat of a long name", sshfx.PacketTypeStat, strings.Repeat("x", 300)),
	req("stat dir", sshfx.PacketTypeStat, "dir"),
	req("readlink", sshfx.PacketTypeReadLink, "link"),
	req("readlink file", sshfx.PacketTypeReadLink, "file"),
	req("readlink absent", sshfx.PacketTypeReadLink, "absent"),

	req("open", sshfx.PacketTypeOpen, "file", rd, none).as("f"),
	req("read", sshfx.PacketTypeRead, hnd("f"), uint64(2), uint32(3)),
	req("read over the end", sshfx.PacketTypeRead, hnd("f"), uint64(8), uint32(100)),
	req("read at the end", sshfx.PacketTypeRead, hnd("f"), uint64(10), uint32(100)),
	req("read past the end", sshfx.PacketTypeRead, hnd("f"), uint64(100), uint32(1)),
	req("read nothing", sshfx.PacketTypeRead, hnd("f"), uint64(0), uint32(0)),
	req("read at a negative offset", sshfx.PacketTypeRead, hnd("f"), uint64(1<<63), uint32(1)),
	req("write to a reader", sshfx.PacketTypeWrite, hnd("f"), uint64(0), "x"),
	req("fstat", sshfx.PacketTypeFStat, hnd("f")),
	req("readdir of a file", sshfx.PacketTypeReadDir, hnd("f")),
	req("close", sshfx.PacketTypeClose, hnd("f")),
	req("close again", sshfx.PacketTypeClose, hnd("f")),
	req("read closed", sshfx.PacketTypeRead, hnd("f"), uint64(0), uint32(1)),
	req("fstat closed", sshfx.PacketTypeFStat, hnd("f")),

	req("open absent", sshfx.PacketTypeOpen, "absent", rd, none),
	req("open below a file", sshfx.PacketTypeOpen, "file/x", rd, none),
	// OpenSSH opens the directory, and its reads then fail.
	req("open dir", sshfx.PacketTypeOpen, "dir", rd, none).but("status 4"),
	req("open dir to write", sshfx.PacketTypeOpen, "dir", wr, none),
	req("create", sshfx.PacketTypeOpen, "new", wr|creat, none).as("n"),
	req("write", sshfx.PacketTypeWrite, hnd("n"), uint64(5), "hello"),
	req("read from a writer", sshfx.PacketTypeRead, hnd("n"), uint64(0), uint32(1)),
	req("fstat written", sshfx.PacketTypeFStat, hnd("n")),
	req("fsetstat size", sshfx.PacketTypeFSetStat, hnd("n"), size, uint64(7)),
	req("fsetstat mode and times", sshfx.PacketTypeFSetStat, hnd("n"), perm|times, uint32(0o100640), uint32(1e9), uint32(1e9+7)),
	req("remove open file", sshfx.PacketTypeRemove, "new"),
	req("fstat removed", sshfx.PacketTypeFStat, hnd("n")),
	req("write removed", sshfx.PacketTypeWrite, hnd("n"), uint64(0), "x"),
	req("close removed", sshfx.PacketTypeClose, hnd("n")),

	req("create with mode", sshfx.PacketTypeOpen, "moded", wr|creat|excl, perm, uint32(0o107777)).as("m"),
	req("close", sshfx.PacketTypeClose, hnd("m")),
	req("its mode", sshfx.PacketTypeStat, "moded"),
	req("exclusive", sshfx.PacketTypeOpen, "moded", wr|creat|excl, none),
	req("exclusive through a dangling link", sshfx.PacketTypeOpen, "dangling", wr|creat|excl, none),
	req("create through a dangling link", sshfx.PacketTypeOpen, "dangling", wr|creat, none).as("d"),
	req("close", sshfx.PacketTypeClose, hnd("d")),
	req("append", sshfx.PacketTypeOpen, "file", wr|app, none).as("a"),
	req("append at 0", sshfx.PacketTypeWrite, hnd("a"), uint64(0), "+"),
	req("close", sshfx.PacketTypeClose, hnd("a")),
	req("truncate", sshfx.PacketTypeOpen, "moded", wr|trunc, none).as("t"),
	req("empty write", sshfx.PacketTypeWrite, hnd("t"), uint64(9), ""),
	req("close", sshfx.PacketTypeClose, hnd("t")),

	req("mkdir", sshfx.PacketTypeMkdir, "made", none),
	req("mkdir with mode", sshfx.PacketTypeMkdir, "made/private", perm, uint32(0o700)),
	req("its mode", sshfx.PacketTypeStat, "made/private"),
	req("mkdir again", sshfx.PacketTypeMkdir, "made", none),
	req("mkdir below a file", sshfx.PacketTypeMkdir, "file/d", none),
	req("mkdir in nothing", sshfx.PacketTypeMkdir, "absent/d", none),
	req("rmdir full", sshfx.PacketTypeRmdir, "made"),
	req("rmdir file", sshfx.PacketTypeRmdir, "file"),
	req("rmdir absent", sshfx.PacketTypeRmdir, "absent"),
	req("rmdir", sshfx.PacketTypeRmdir, "made/private"),
	req("remove dir", sshfx.PacketTypeRemove, "made"),
	req("remove absent", sshfx.PacketTypeRemove, "absent"),

	req("setstat size", sshfx.PacketTypeSetStat, "moded", size, uint64(100)),
	req("setstat all", sshfx.PacketTypeSetStat, "moded", size|perm|times|owner, uint64(3), uint32(7), uint32(8), uint32(0o600), uint32(1000), uint32(2000)),
	req("after it", sshfx.PacketTypeStat, "moded"),
	req("setstat absent", sshfx.PacketTypeSetStat, "absent", perm, uint32(0o600)),
	req("setstat size of dir", sshfx.PacketTypeSetStat, "dir", size, uint64(3)),
	req("setstat through link", sshfx.PacketTypeSetStat, "link", perm, uint32(0o611)),
	req("setstat nothing", sshfx.PacketTypeSetStat, "file", none),
	req("setstat extended", sshfx.PacketTypeSetStat, "file", uint32(1<<31), uint32(1), "a@b", "c"),

	req("symlink", sshfx.PacketTypeSymlink, "some/target", "sym"),
	req("readlink", sshfx.PacketTypeReadLink, "sym"),
	req("symlink exists", sshfx.PacketTypeSymlink, "x", "sym"),
	req("symlink in nothing", sshfx.PacketTypeSymlink, "x", "absent/sym"),
	req("rename", sshfx.PacketTypeRename, "moded", "made/renamed"),
	req("rename onto", sshfx.PacketTypeRename, "made/renamed", "file"),
	req("rename absent", sshfx.PacketTypeRename, "absent", "x"),
	req("rename dir onto", sshfx.PacketTypeRename, "made", "dir"),
	req("rename dir", sshfx.PacketTypeRename, "made", "moved"),
	req("rename dir into itself", sshfx.PacketTypeRename, "moved", "moved/x"),
	req("rename link", sshfx.PacketTypeRename, "sym", "sym2"),
	req("posix-rename onto", sshfx.PacketTypeExtended, extPosixRename, "sym2", "moved/renamed"),
	req("posix-rename onto dir", sshfx.PacketTypeExtended, extPosixRename, "file", "dir"),
	req("hardlink", sshfx.PacketTypeExtended, extHardLink, "file", "hard"),
	req("hardlink exists", sshfx.PacketTypeExtended, extHardLink, "file", "hard"),
	req("hardlink dir", sshfx.PacketTypeExtended, extHardLink, "dir", "hard2"),
	req("lsetstat times", sshfx.PacketTypeExtended, extLSetStat, "link", times, uint32(11), uint32(12)),
	req("after it", sshfx.PacketTypeLStat, "link"),
	req("lsetstat size", sshfx.PacketTypeExtended, extLSetStat, "file", size, uint64(1)),
	req("lsetstat owner", sshfx.PacketTypeExtended, extLSetStat, "link", owner, uint32(5), uint32(6)),
	req("limits", sshfx.PacketTypeExtended, extLimits),
	req("expand-path ~", sshfx.PacketTypeExtended, extExpandPath, "~"),
	req("expand-path ~/x", sshfx.PacketTypeExtended, extExpandPath, "~/dir"),
	req("expand-path", sshfx.PacketTypeExtended, extExpandPath, "dir/../file"),
	req("unknown extension", sshfx.PacketTypeExtended, "x@y", "z"),
	req("statvfs absent", sshfx.PacketTypeExtended, extStatVFS, "absent"),

	req("copy source", sshfx.PacketTypeOpen, "file", rd, none).as("s"),
	req("copy target", sshfx.PacketTypeOpen, "copied", rd|wr|creat, none).as("t"),
	req("copy-data all", sshfx.PacketTypeExtended, extCopyData, hnd("s"), uint64(0), uint64(0), hnd("t"), uint64(3)),
	req("copy-data part", sshfx.PacketTypeExtended, extCopyData, hnd("s"), uint64(1), uint64(2), hnd("t"), uint64(0)),
	req("copy-data too much", sshfx.PacketTypeExtended, extCopyData, hnd("s"), uint64(5), uint64(1000), hnd("t"), uint64(30)),
	req("copy-data to itself", sshfx.PacketTypeExtended, extCopyData, hnd("t"), uint64(0), uint64(0), hnd("t"), uint64(50)),
	req("what was copied", sshfx.PacketTypeRead, hnd("t"), uint64(0), uint32(100)),
	req("fsync", sshfx.PacketTypeExtended, extFSync, hnd("t")),
	req("close", sshfx.PacketTypeClose, hnd("t")),
	req("fsync closed", sshfx.PacketTypeExtended, extFSync, hnd("t")),

	req("opendir", sshfx.PacketTypeOpenDir, ".").as("l"),
	req("readdir", sshfx.PacketTypeReadDir, hnd("l")),
	req("readdir at the end", sshfx.PacketTypeReadDir, hnd("l")),
	req("read of a directory", sshfx.PacketTypeRead, hnd("l"), uint64(0), uint32(1)),
	req("close", sshfx.PacketTypeClose, hnd("l")),
	req("opendir file", sshfx.PacketTypeOpenDir, "file"),
	req("opendir absent", sshfx.PacketTypeOpenDir, "absent"),
}

// prepare makes the files that the script works on.
func prepare(t *testing.T) string {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/dir/sub", 0o755))
	must(t, os.WriteFile(dir+"/file", []byte("0123456789"), 0o644))
	must(t, os.Chmod(dir+"/file", 0o644))
	must(t, os.Symlink("file", dir+"/link"))
	must(t, os.Symlink("dir", dir+"/dirlink"))
	must(t, os.Symlink("made-by-create", dir+"/dangling"))
	must(t, os.Symlink("loop", dir+"/loop"))
	return dir
}

// TestDifferential sends the script to OpenSSH's sftp-server and to a view of
// a local directory, and compares answers and what is left of the files.
func TestDifferential(t *testing.T) {
	if _, err := os.Stat(sftpServer); err != nil {
		t.Skip("OpenSSH's sftp-server is not installed")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, who may set owners")
	}
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		theirDir, ourDir := prepare(t), prepare(t)
		them := startOpenSSH(t, theirDir)
		us := begun(t, localView(t, ourDir), opt)
		theirHandles, ourHandles := map[string]string{}, map[string]string{}
		for _, s := range script {
			want := them.play(s, theirHandles, theirDir)
			got := us.play(s, ourHandles, "")
			if s.ours != "" {
				want = s.ours
			}
			if got != want {
				t.Errorf("%s: answered with\n\t%s\nwant\n\t%s", s.name, got, want)
			}
		}
		if got, want := treeOf(t, ourDir), treeOf(t, theirDir); got != want {
			t.Errorf("what is left is\n%s\nwant\n%s", got, want)
		}
	})
}

// localView is root's view of a local directory.
func localView(t *testing.T, dir string) *bridge.View {
	t.Helper()
	ctx := context.Background()
	backend, err := localfs.New(dir)
	must(t, err)
	tree, err := bridge.New(ctx, backend, bridge.Options{})
	must(t, err)
	view, err := tree.View(ctx, &bridge.Avatar{Name: "root", Umask: 0o022}, 0)
	must(t, err)
	t.Cleanup(func() {
		view.Close()
		tree.Close()
	})
	return view
}

// A pipeRW is a program's standard input and output.
type pipeRW struct {
	io.Reader
	io.WriteCloser
}

func startOpenSSH(t *testing.T, dir string) *rig {
	t.Helper()
	cmd := exec.Command(sftpServer, "-d", dir, "-u", "022")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	watchdog := time.AfterFunc(3*patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
		watchdog.Stop()
	})
	r := &rig{t: t, rw: pipeRW{out, in}}
	r.send(packet(sshfx.PacketTypeInit, uint32(3)))
	r.recv()
	return r
}

// play sends a step, and returns the answer in words. The path of root is
// taken out of it.
func (r *rig) play(s step, handles map[string]string, root string) string {
	r.t.Helper()
	fields := slices.Clone(s.fields)
	for i, f := range fields {
		if h, ok := f.(hnd); ok {
			fields[i] = handles[string(h)]
		}
	}
	typ, b := r.ask(s.typ, fields...)
	switch typ {
	case sshfx.PacketTypeStatus:
		return fmt.Sprint("status ", b.ConsumeUint32())
	case sshfx.PacketTypeHandle:
		h := b.ConsumeString()
		if s.opens != "" {
			handles[s.opens] = h
		}
		return "handle"
	case sshfx.PacketTypeData:
		return fmt.Sprintf("data %q", b.ConsumeString())
	case sshfx.PacketTypeAttrs:
		return "attrs " + attrWords(b)
	case sshfx.PacketTypeExtendedReply:
		n := b.Len()
		if s.fields[0] == extLimits { // but for the number of handles
			return fmt.Sprint("limits ", b.ConsumeUint64(), b.ConsumeUint64(), b.ConsumeUint64())
		}
		return fmt.Sprint("reply of ", n)
	case sshfx.PacketTypeName:
		return "names " + nameWords(b, root)
	}
	return fmt.Sprint("type ", typ)
}

// attrWords tells attributes. Times are told if they are old, that is if the
// script has set them; and a directory's size is the file system's affair.
func attrWords(b *sshfx.Buffer) string {
	var a sshfx.Attributes
	if err := a.UnmarshalFrom(b); err != nil {
		return err.Error()
	}
	w := fmt.Sprintf("flags %d mode %o owner %d:%d", a.Flags, a.Permissions, a.UID, a.GID)
	if !a.Permissions.IsDir() {
		w += fmt.Sprint(" size ", a.Size)
	}
	if a.MTime < 15e8 && a.Flags&sshfx.AttrACModTime != 0 {
		w += fmt.Sprint(" times ", a.ATime, " ", a.MTime)
	}
	return w
}

// nameWords tells the names of an answer, in the order of the alphabet.
func nameWords(b *sshfx.Buffer, root string) string {
	var list []string
	for n := b.ConsumeUint32(); n > 0; n-- {
		name, long := b.ConsumeString(), b.ConsumeString()
		attrs := attrWords(b)
		switch {
		case long == name: // an answer to REALPATH or READLINK
		case name == "..": // of the directory above, which is none of ours
			long, attrs = "", ""
		case strings.HasPrefix(long, "d"):
			long = long[:10]
		case !strings.Contains(attrs, " times "): // made just now, perhaps in different minutes
			long = long[:len(long)-len(name)-len("Jan _2 15:04 ")]
		}
		if root != "" && strings.HasPrefix(name, "/") {
			name, long = within(name, root), within(long, root)
		}
		list = append(list, fmt.Sprintf("%s %q %s", name, long, attrs))
	}
	slices.Sort(list)
	return strings.Join(list, "\n\t")
}

// within is path as somebody sees it whose root is root.
func within(path, root string) string {
	if path == root {
		return "/"
	}
	if rest, ok := strings.CutPrefix(path, root+"/"); ok {
		return "/" + rest
	}
	return path
}

// treeOf lists all files with their modes, owners and content.
func treeOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case fi.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%q", data)
		case fi.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(path)
		}
		fmt.Fprintln(&b, strings.TrimPrefix(path, dir), fi.Mode(), content)
		return nil
	}))
	return b.String()
}

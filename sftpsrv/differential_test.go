package sftpsrv

import (
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// script is in the order in which it is sent. Where we answer otherwise on
// purpose, it is in the table of differences.
var script = []step{
	req("realpath .", sshfx.PacketTypeRealPath, "."),
	req("realpath empty", sshfx.PacketTypeRealPath, ""),
	req("realpath absent", sshfx.PacketTypeRealPath, "absent"),
	req("realpath absent/x", sshfx.PacketTypeRealPath, "absent/x"),
	req("realpath dots", sshfx.PacketTypeRealPath, "./dir/../dir/./sub/.."),
	req("realpath of a file with a slash", sshfx.PacketTypeRealPath, "file/"),
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
	req("stat of the empty path", sshfx.PacketTypeStat, ""),
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
	req("open dir", sshfx.PacketTypeOpen, "dir", rd, none),
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
	req("append at no offset", sshfx.PacketTypeWrite, hnd("a"), uint64(1<<63), "+"),
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
	req("setstat owner only", sshfx.PacketTypeSetStat, "moded", owner, uint32(1001), uint32(1<<32-1)),
	req("setstat group only", sshfx.PacketTypeSetStat, "moded", owner, uint32(1<<32-1), uint32(2001)),
	req("after it", sshfx.PacketTypeStat, "moded"),
	req("setstat absent", sshfx.PacketTypeSetStat, "absent", perm, uint32(0o600)),
	req("setstat size of dir", sshfx.PacketTypeSetStat, "dir", size, uint64(3)),
	req("setstat through link", sshfx.PacketTypeSetStat, "link", perm, uint32(0o611)),
	req("setstat what cannot be, and the same mode", sshfx.PacketTypeSetStat, "dir", size|perm, uint64(1<<63), uint32(0o755)),
	req("setstat nothing of nothing", sshfx.PacketTypeSetStat, "absent", none),
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
	req("copy-data of a writer", sshfx.PacketTypeOpen, "hard", wr, none).as("w"),
	req("copy-data of a writer", sshfx.PacketTypeExtended, extCopyData, hnd("w"), uint64(0), uint64(5), hnd("t"), uint64(0)),
	req("copy-data too much", sshfx.PacketTypeExtended, extCopyData, hnd("s"), uint64(5), uint64(1000), hnd("t"), uint64(30)),
	req("copy-data to itself", sshfx.PacketTypeExtended, extCopyData, hnd("t"), uint64(0), uint64(0), hnd("t"), uint64(50)),
	req("what was copied", sshfx.PacketTypeRead, hnd("t"), uint64(0), uint32(100)),
	req("fsync", sshfx.PacketTypeExtended, extFSync, hnd("t")),
	req("close", sshfx.PacketTypeClose, hnd("t")),
	req("fsync closed", sshfx.PacketTypeExtended, extFSync, hnd("t")),

	req("opendir", sshfx.PacketTypeOpenDir, ".").as("l"),
	req("readdir", sshfx.PacketTypeReadDir, hnd("l")),
	req("readdir at the end", sshfx.PacketTypeReadDir, hnd("l")),
	req("fstat of a directory", sshfx.PacketTypeFStat, hnd("l")),
	req("fsetstat of a directory", sshfx.PacketTypeFSetStat, hnd("l"), perm, uint32(0o755)),
	req("fstatvfs of a directory", sshfx.PacketTypeExtended, extFStatVFS, hnd("l")),
	req("statvfs", sshfx.PacketTypeExtended, extStatVFS, "."),
	req("names", sshfx.PacketTypeExtended, extNames, []byte{0, 0, 0, 0, 0xfe, 0xdc, 0xba, 0x98}, []byte{0, 0, 0, 0}),
	req("read of a directory", sshfx.PacketTypeRead, hnd("l"), uint64(0), uint32(1)),
	req("close", sshfx.PacketTypeClose, hnd("l")),
	req("opendir file", sshfx.PacketTypeOpenDir, "file"),
	req("opendir absent", sshfx.PacketTypeOpenDir, "absent"),
}

// prepare makes the files that the script works on.
func prepare(t testing.TB) string {
	dir := memoryDir(t)
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
	needOpenSSH(t)
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		theirDir, ourDir := prepare(t), prepare(t)
		c := newContest(t, root, theirDir, ourDir, opt)
		for i, s := range script {
			if d := c.differ([]step{s}); d != "" || c.over {
				t.Errorf("step %d: %s", i, d)
			}
		}
	})
}

// TestVersionLikeOpenSSH compares what is announced: all that OpenSSH has, in
// its order.
func TestVersionLikeOpenSSH(t *testing.T) {
	needOpenSSH(t)
	dir := memoryDir(t)
	theirs, ours := startOpenSSH(t, dir, root), newRig(t, localView(t, dir, root), SessionOptions{})
	var announced [2][]string
	for i, r := range []*rig{theirs, ours} {
		r.send(packet(sshfx.PacketTypeInit, uint32(6)))
		b := sshfx.NewBuffer(r.recv())
		if typ, version := b.ConsumeUint8(), b.ConsumeUint32(); typ != byte(sshfx.PacketTypeVersion) || version != 3 {
			t.Fatalf("answer of type %d, version %d", typ, version)
		}
		for b.Len() > 0 && b.Err == nil {
			announced[i] = append(announced[i], b.ConsumeString()+" "+b.ConsumeString())
		}
	}
	rest := announced[1]
	for _, want := range announced[0] {
		at := slices.Index(rest, want)
		if at < 0 {
			t.Fatalf("announced is %q, want all of %q in that order", announced[1], announced[0])
		}
		rest = rest[at+1:]
	}
}

// TestWhatOpenSSHDoesNotAnswer has the differences that leave OpenSSH's client
// without an answer, or without a session: we answer in any case, and go on.
func TestWhatOpenSSHDoesNotAnswer(t *testing.T) {
	needOpenSSH(t)
	dir := memoryDir(t)
	stat := packet(sshfx.PacketTypeStat, uint32(2), ".")
	for _, tt := range []struct {
		name string
		send []byte
		want sshfx.Status
	}{
		{"a request of unknown type", packet(99, uint32(1)), sshfx.StatusOpUnsupported},
		{"a request cut short", packet(sshfx.PacketTypeStat, uint32(1), raw{0, 0, 0, 9, 'x'}), sshfx.StatusBadMessage},
		{"a path with a NUL", packet(sshfx.PacketTypeStat, uint32(1), "a\x00b"), sshfx.StatusBadMessage},
	} {
		c := newContest(t, root, dir, dir, SessionOptions{})
		c.theirs.send(tt.send)
		must(t, c.theirs.rw.Close())
		if body, err := readPacket(c.theirs.rw); err != io.EOF {
			t.Errorf("%s: OpenSSH answers with %q, %v", tt.name, body, err)
		}
		c.ours.send(tt.send, stat)
		b := sshfx.NewBuffer(c.ours.recv()[5:])
		if got := sshfx.Status(b.ConsumeUint32()); got != tt.want {
			t.Errorf("%s: answered with %v, want %v", tt.name, got, tt.want)
		}
		if got := c.ours.recv()[0]; got != byte(sshfx.PacketTypeAttrs) {
			t.Errorf("%s: the request after it is answered with type %d", tt.name, got)
		}
	}
}

package sftpsrv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

func pick[T any](rnd *rand.Rand, from ...T) T { return from[rnd.IntN(len(from))] }

// randomSession makes up a session. Nothing in it leads out of the directory
// that the session begins in, which is the root of ours but not of OpenSSH's:
// ".." follows a name only, and no link holds it. Nothing is sent along with a
// READDIR, which a Parallel session does not put in order with changes of names.
func randomSession(rnd *rand.Rand) []step {
	steps := make([]step, stepsOfSession)
	for i := range steps {
		if rnd.IntN(3) == 0 {
			steps[i] = randomHandleStep(rnd)
		} else {
			steps[i] = randomPathStep(rnd)
		}
		steps[i].more = rnd.IntN(3) == 0 && steps[i].typ != sshfx.PacketTypeReadDir
	}
	return steps
}

func randomName(rnd *rand.Rand) string { return pick(rnd, "a", "b", "c", "d") }

// randomPath makes up a path that is, most of the time, an ordinary one.
func randomPath(rnd *rand.Rand) string {
	switch rnd.IntN(40) {
	case 0:
		return pick(rnd, ".", "./", "a//b", "b/", "c/", "d/.", "./a/./b", "a/b/c/7", "a/../d", "c/../a/..", "a/b/../b/c/")
	case 1:
		return pick(rnd, strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("a/", 2500), strings.Repeat("./", 2000)+"b", "d/\xff\xfe", "d/a b\n", "d/\\")
	}
	parts := make([]string, 1+rnd.IntN(3))
	for i := range parts {
		parts[i] = randomName(rnd)
	}
	return strings.Join(parts, "/")
}

func randomTarget(rnd *rand.Rand) string {
	return pick(rnd, "a", "b", "c", "d", "a/b", "b/c", "c/d", "nowhere", "./a", "", strings.Repeat("y", 300))
}

// randomAttr makes up the flags and fields of one attribute, since what is left
// of several of which one fails is a difference on purpose.
func randomAttr(rnd *rand.Rand) []any {
	switch rnd.IntN(9) {
	case 0:
		return []any{none}
	case 1, 2:
		return []any{size, pick(rnd, uint64(0), 1, 7, 10, 11, 300, math.MaxUint64)}
	case 3, 4:
		return []any{owner, randomID(rnd), randomID(rnd)}
	case 5, 6:
		return []any{perm, randomMode(rnd)}
	}
	return []any{times, randomTime(rnd), randomTime(rnd)}
}

func randomID(rnd *rand.Rand) uint32 {
	return pick(rnd, uint32(0), someUID, someGID, otherGID, math.MaxUint32)
}

// randomMode leaves the sticky bit out: OpenSSH's RENAME makes a link, and where
// it then may not take the old name away, nor the new one, both are left.
func randomMode(rnd *rand.Rand) uint32 {
	return pick(rnd, uint32(0o777), 0o755, 0o700, 0o644, 0o600, 0, 0o444, 0o111, 0o2775, 0o4755, 0o6711, 0o2644, 0o100644, 0o40755)
}

func randomTime(rnd *rand.Rand) uint32 {
	return pick(rnd, uint32(0), 1, 1e9, 1e9+7, 15e8, math.MaxInt32, 1<<31, math.MaxUint32)
}

// randomPathStep makes up a request by path.
func randomPathStep(rnd *rand.Rand) step {
	path := randomPath(rnd)
	with := func(name string, typ sshfx.PacketType, fields ...any) step {
		return req(name, typ, append([]any{path}, fields...)...)
	}
	extended := func(name string, fields ...any) step {
		return req("EXTENDED", sshfx.PacketTypeExtended, append([]any{name}, fields...)...)
	}
	switch rnd.IntN(24) {
	case 0, 1, 2, 3, 4:
		flags := pick(rnd, rd, rd, wr, rd|wr, wr|creat, rd|wr|creat|trunc, rd|creat, wr|creat|excl, rd|excl, wr|app, wr|app|creat, wr|trunc, none, creat, app, rd|trunc)
		return with("OPEN", sshfx.PacketTypeOpen, append([]any{flags}, openAttr(rnd)...)...).as(randomFile(rnd))
	case 5, 6:
		return with("OPENDIR", sshfx.PacketTypeOpenDir).as(randomDir(rnd))
	case 7, 8:
		return with("LSTAT", sshfx.PacketTypeLStat)
	case 9:
		return with("STAT", sshfx.PacketTypeStat)
	case 10, 11:
		return with("SETSTAT", sshfx.PacketTypeSetStat, randomAttr(rnd)...)
	case 12:
		return with("REMOVE", sshfx.PacketTypeRemove)
	case 13, 14:
		return with("MKDIR", sshfx.PacketTypeMkdir, openAttr(rnd)...)
	case 15:
		return with("RMDIR", sshfx.PacketTypeRmdir)
	case 16:
		return with("REALPATH", sshfx.PacketTypeRealPath)
	case 17, 18:
		return with("RENAME", sshfx.PacketTypeRename, randomPath(rnd))
	case 19:
		return with("READLINK", sshfx.PacketTypeReadLink)
	case 20:
		return req("SYMLINK", sshfx.PacketTypeSymlink, randomTarget(rnd), path)
	case 21:
		return extended(pick(rnd, extPosixRename, extHardLink), path, randomPath(rnd))
	case 22:
		return extended(extLSetStat, append([]any{path}, randomAttr(rnd)...)...)
	}
	switch rnd.IntN(5) {
	case 0:
		return extended(extStatVFS, path)
	case 1:
		return extended(extExpandPath, pick(rnd, "~", "~/", "~/"+path, path))
	case 2:
		ids := func() raw {
			var fields []any
			for range rnd.IntN(4) {
				fields = append(fields, randomID(rnd))
			}
			return raw(packet(0, fields...)[5:])
		}
		return extended(extNames, []byte(ids()), []byte(ids()))
	case 3:
		return extended(extLimits)
	}
	return extended(fmt.Sprintf("unknown-%d@example.org", rnd.IntN(10)), "data")
}

// openAttr makes up attributes of OPEN and MKDIR, of which OpenSSH takes the
// permissions only.
func openAttr(rnd *rand.Rand) []any {
	if rnd.IntN(2) == 0 {
		return []any{none}
	}
	return []any{perm, randomMode(rnd)}
}

func randomFile(rnd *rand.Rand) string { return pick(rnd, "f1", "f2", "f3") }
func randomDir(rnd *rand.Rand) string  { return pick(rnd, "d1", "d2") }

// randomHandleStep makes up a request of an open file or directory, which may
// be open, closed, or of the wrong kind.
func randomHandleStep(rnd *rand.Rand) step {
	name := randomFile(rnd)
	if rnd.IntN(3) == 0 {
		name = randomDir(rnd)
	}
	with := func(name string, typ sshfx.PacketType, h string, fields ...any) step {
		return req(name, typ, append([]any{hnd(h)}, fields...)...)
	}
	offset := pick(rnd, uint64(0), 0, 1, 5, 9, 10, 300, 1<<63, math.MaxUint64)
	switch rnd.IntN(12) {
	case 0, 1:
		return with("READ", sshfx.PacketTypeRead, name, offset, pick(rnd, uint32(0), 1, 10, 300, 1<<20))
	case 2, 3:
		return with("WRITE", sshfx.PacketTypeWrite, name, offset, strings.Repeat(randomName(rnd), rnd.IntN(20)))
	case 4, 5:
		return with("READDIR", sshfx.PacketTypeReadDir, randomDir(rnd))
	case 6:
		return with("CLOSE", sshfx.PacketTypeClose, name)
	case 7:
		return with("FSTAT", sshfx.PacketTypeFStat, name)
	case 8:
		return with("FSETSTAT", sshfx.PacketTypeFSetStat, name, randomAttr(rnd)...)
	case 9:
		return req("EXTENDED", sshfx.PacketTypeExtended, pick(rnd, extFSync, extFStatVFS), hnd(name))
	case 10:
		return req("EXTENDED", sshfx.PacketTypeExtended, extCopyData, hnd(name), offset, pick(rnd, uint64(0), 0, 3, 20), hnd(randomFile(rnd)), pick(rnd, uint64(0), 4, 10))
	}
	return with("READDIR", sshfx.PacketTypeReadDir, name)
}

package sftpsrv

import sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

// Requests as the clients make them.

func realPath(path string) step { return req("REALPATH "+path, sshfx.PacketTypeRealPath, path) }
func stat(path string) step     { return req("STAT "+path, sshfx.PacketTypeStat, path) }
func lstat(path string) step    { return req("LSTAT "+path, sshfx.PacketTypeLStat, path) }
func fstat(h string) step       { return req("FSTAT", sshfx.PacketTypeFStat, hnd(h)) }
func readlink(path string) step { return req("READLINK "+path, sshfx.PacketTypeReadLink, path) }
func opendir(path string) step  { return req("OPENDIR "+path, sshfx.PacketTypeOpenDir, path).as("d") }
func readdir() step             { return req("READDIR", sshfx.PacketTypeReadDir, hnd("d")) }
func closes(h string) step      { return req("CLOSE "+h, sshfx.PacketTypeClose, hnd(h)) }
func remove(path string) step   { return req("REMOVE "+path, sshfx.PacketTypeRemove, path) }
func rmdir(path string) step    { return req("RMDIR "+path, sshfx.PacketTypeRmdir, path) }
func mkdir(path string) step    { return req("MKDIR "+path, sshfx.PacketTypeMkdir, path, none) }
func rename(from, to string) step {
	return req("RENAME "+from, sshfx.PacketTypeRename, from, to)
}

func open(path string, flags uint32) step {
	return req("OPEN "+path, sshfx.PacketTypeOpen, path, flags, none).as("f")
}

func read(n int) step {
	return req("READ", sshfx.PacketTypeRead, hnd("f"), uint64(n<<15), uint32(32<<10))
}

func write(n int) step {
	return req("WRITE", sshfx.PacketTypeWrite, hnd("f"), uint64(n<<15), chunk(n))
}

func setstat(path string, attr ...any) step {
	return req("SETSTAT "+path, sshfx.PacketTypeSetStat, append([]any{path}, attr...)...)
}

func extended(name string, fields ...any) step {
	return req(name, sshfx.PacketTypeExtended, append([]any{name}, fields...)...)
}

// lists is a listing to its end, as all of them ask for it.
func lists(path string) []recorded {
	return []recorded{
		opendir(path).with(isHandle),
		readdir().with(isListing), readdir().with(isEOF),
		closes("d").with(isOK),
	}
}

var old = []any{times, uint32(1e9), uint32(1e9 + 7)}

// winSCP writes to name.filepart and renames it when it is whole. It sends
// CLOSE and the times without waiting, and shows any status that is not OK.
var winSCP = []recording{
	{name: "WinSCP login and listing", steps: append(append([]recorded{
		realPath(".").with(isName("/")),
		extended("vendor-id", "Martin Prikryl", "WinSCP").with(`status 8 .*`),
	}, lists("/dir")...),
		readlink("/dir/link").with(isName("sub")),
		stat("/dir/link").with(isDir),
		extended(extStatVFS, "/").with(`reply block .*`),
	)},
	{name: "WinSCP upload", steps: []recorded{
		lstat("/new").with(isAbsent),
		lstat("/new.filepart").with(isAbsent),
		open("/new.filepart", wr|creat|trunc).with(isHandle),
		write(0).with(isOK).along(), write(1).with(isOK).along(), write(2).with(isOK).along(),
		closes("f").with(isOK).along(),
		setstat("/new.filepart", old...).with(isOK),
		rename("/new.filepart", "/new").with(isOK),
		lstat("/new").with(`attrs flags 15 size 98304 owner 0:0 mode 100644 times 1000000000 1000000007`),
	}, left: map[string]string{"new": chunk(0) + chunk(1) + chunk(2), "new.filepart": "-"}},
	{name: "WinSCP overwrite", steps: []recorded{
		lstat("/big").with(isFileOf("98304")),
		open("/big.filepart", wr|creat|trunc).with(isHandle),
		write(0).with(isOK).along(),
		closes("f").with(isOK).along(),
		setstat("/big.filepart", perm, uint32(0o640)).with(isOK),
		rename("/big.filepart", "/big").with(isFailure),
		remove("/big").with(isOK),
		rename("/big.filepart", "/big").with(isOK),
	}, left: map[string]string{"big": chunk(0)}},
	{name: "WinSCP resume of an upload", steps: []recorded{
		open("/new.filepart", wr|creat|trunc).with(isHandle),
		write(0).with(isOK),
		closes("f").with(isOK),
		lstat("/new.filepart").with(isFileOf("32768")),
		open("/new.filepart", wr).with(isHandle),
		write(1).with(isOK).along(),
		closes("f").with(isOK).along(),
		setstat("/new.filepart", old...).with(isOK),
		rename("/new.filepart", "/new").with(isOK),
	}, left: map[string]string{"new": chunk(0) + chunk(1)}},
	{name: "WinSCP download", steps: []recorded{
		lstat("/big").with(isFileOf("98304")),
		open("/big", rd).with(isHandle),
		read(0).with(isData(0)).along(), read(1).with(isData(1)).along(), read(2).with(isData(2)).along(),
		read(3).with(isEOF).along(), read(4).with(isEOF),
		closes("f").with(isOK),
	}},
	{name: "WinSCP properties and links", steps: []recorded{
		setstat("/dir/file", perm, uint32(0o600)).with(isOK),
		setstat("/dir/file", owner, uint32(1), uint32(2)).with(isOK),
		lstat("/dir/file").with(`attrs flags 15 size 10 owner 1:2 mode 100600 times .*`),
		// In OpenSSH's order, since the version of our server says OpenSSH.
		req("SYMLINK", sshfx.PacketTypeSymlink, "dir/file", "/made").with(isOK),
		readlink("/made").with(isName("dir/file")),
		extended(extHardLink, "/big", "/hard").with(isOK),
		lstat("/absent").with(isAbsent),
		mkdir("/dir").with(isFailure),
		rmdir("/dir").with(isFailure),
	}},
	{name: "WinSCP copy", steps: []recorded{
		open("/big", rd).with(isHandle),
		req("OPEN copy", sshfx.PacketTypeOpen, "/copy", wr|creat|trunc, none).as("t").with(isHandle),
		extended(extCopyData, hnd("f"), uint64(0), uint64(0), hnd("t"), uint64(0)).with(isOK),
		closes("f").with(isOK), closes("t").with(isOK),
	}, left: map[string]string{"copy": chunk(0) + chunk(1) + chunk(2)}},
}

// fileZilla is made of PuTTY's psftp: it resolves each path, writes in place,
// and takes up a transfer at the size that FSTAT tells.
var fileZilla = []recording{
	{name: "FileZilla login and listing", steps: append([]recorded{
		realPath(".").with(isName("/")),
		realPath("/dir").with(isName("/dir")),
		opendir("/dir").with(isHandle), closes("d").with(isOK),
	}, lists("/dir")...)},
	{name: "FileZilla enters a link", steps: []recorded{
		realPath("/dir/link").with(isName("/dir/sub")),
		opendir("/dir/sub").with(isHandle), closes("d").with(isOK),
		realPath("/dir/file/x").with(`status 2 .*`),
		opendir("/dir/file").with(`status 2 .*`),
	}},
	{name: "FileZilla upload", steps: []recorded{
		realPath("/new").with(isName("/new")),
		open("/new", wr|creat|trunc).with(isHandle),
		write(0).with(isOK).along(), write(1).with(isOK).along(), write(2).with(isOK),
		closes("f").with(isOK),
		setstat("/new", old...).with(isOK),
		stat("/new").with(`attrs flags 15 size 98304 owner 0:0 mode 100644 times 1000000000 1000000007`),
	}, left: map[string]string{"new": chunk(0) + chunk(1) + chunk(2)}},
	{name: "FileZilla resume of an upload", steps: []recorded{
		open("/new", wr|creat|trunc).with(isHandle), write(0).with(isOK), closes("f").with(isOK),
		open("/new", wr).with(isHandle),
		fstat("f").with(isFileOf("32768")),
		write(1).with(isOK).along(), write(2).with(isOK),
		closes("f").with(isOK),
	}, left: map[string]string{"new": chunk(0) + chunk(1) + chunk(2)}},
	{name: "FileZilla download and resume", steps: []recorded{
		stat("/big").with(isFileOf("98304")),
		open("/big", rd).with(isHandle),
		read(1).with(isData(1)).along(), read(2).with(isData(2)).along(), read(3).with(isEOF),
		closes("f").with(isOK),
	}},
	{name: "FileZilla chmod, rename, delete", steps: []recorded{
		stat("/dir/file").with(isFileOf("10")),
		setstat("/dir/file", perm, uint32(0o640)).with(isOK),
		rename("/dir/file", "/big").with(isFailure),
		rename("/dir/file", "/moved").with(isOK),
		mkdir("/made").with(isOK), mkdir("/made").with(isFailure),
		rmdir("/made").with(isOK),
		remove("/moved").with(isOK), remove("/moved").with(isAbsent),
	}, left: map[string]string{"moved": "-", "big": chunk(0) + chunk(1) + chunk(2)}},
}

// jsch finds its home by an empty REALPATH, sends writes and reads ahead in
// order, and replaces by posix-rename since that is announced.
var jsch = []recording{
	{name: "JSch login and listing", steps: append([]recorded{
		realPath("").with(isName("/")),
		stat("/dir").with(isDir),
	}, lists("/dir")...)},
	{name: "JSch upload", steps: []recorded{
		stat("/new").with(isAbsent),
		open("/new", wr|creat|trunc).with(isHandle),
		write(0).with(isOK).along(), write(1).with(isOK).along(), write(2).with(isOK),
		closes("f").with(isOK),
		stat("/new").with(isFileOf("98304")),
		setstat("/new", old...).with(isOK),
	}, left: map[string]string{"new": chunk(0) + chunk(1) + chunk(2)}},
	{name: "JSch resume and append", steps: []recorded{
		open("/new", wr|creat|trunc).with(isHandle), write(0).with(isOK), closes("f").with(isOK),
		stat("/new").with(isFileOf("32768")),
		open("/new", wr|creat).with(isHandle),
		write(1).with(isOK).along(), write(2).with(isOK),
		closes("f").with(isOK),
	}, left: map[string]string{"new": chunk(0) + chunk(1) + chunk(2)}},
	{name: "JSch download", steps: []recorded{
		stat("/big").with(isFile),
		open("/big", rd).with(isHandle),
		read(0).with(isData(0)).along(), read(1).with(isData(1)).along(), read(2).with(isData(2)).along(),
		read(3).with(isEOF).along(), read(4).with(isEOF).along(), read(5).with(isEOF),
		closes("f").with(isOK),
	}},
	{name: "JSch attributes, links, rename", steps: []recorded{
		stat("/dir/file").with(isFile),
		setstat("/dir/file", perm, uint32(0o100600)).with(isOK),
		stat("/dir/file").with(`attrs flags 15 size 10 owner 0:0 mode 100600 .*`),
		setstat("/dir/file", owner, uint32(7), uint32(0)).with(isOK),
		req("SYMLINK", sshfx.PacketTypeSymlink, "/dir/file", "/made").with(isOK),
		readlink("/made").with(isName("/dir/file")),
		extended(extHardLink, "/big", "/hard").with(isOK),
		extended(extPosixRename, "/dir/file", "/big").with(isOK),
		extended(extStatVFS, "/").with(`reply block .*`),
		rmdir("/dir").with(isFailure),
	}, left: map[string]string{"big": "0123456789", "dir/file": "-"}},
}

// cyberduck uploads to a name made up, makes room for it, and renames. It asks
// FSTAT for how much there is to read.
var cyberduck = []recording{
	{name: "Cyberduck login and listing", steps: append(append([]recorded{
		realPath(".").with(isName("/")),
	}, lists("/dir")...),
		readlink("/dir/link").with(isName("sub")),
		stat("/dir/sub").with(isDir),
	)},
	{name: "Cyberduck upload over a file", steps: []recorded{
		stat("/big").with(isFileOf("98304")),
		open("/big-b4f3", wr|creat|trunc).with(isHandle),
		write(0).with(isOK).along(), write(1).with(isOK),
		closes("f").with(isOK),
		setstat("/big-b4f3", perm, uint32(0o640)).with(isOK),
		setstat("/big-b4f3", old...).with(isOK),
		remove("/big").with(isOK),
		rename("/big-b4f3", "/big").with(isOK),
		lstat("/big").with(`attrs flags 15 size 65536 owner 0:0 mode 100640 times 1000000000 1000000007`),
	}, left: map[string]string{"big": chunk(0) + chunk(1), "big-b4f3": "-"}},
	{name: "Cyberduck append", steps: []recorded{
		open("/new", wr|creat|trunc).with(isHandle), write(0).with(isOK), closes("f").with(isOK),
		stat("/new").with(isFileOf("32768")),
		open("/new", wr|app).with(isHandle),
		write(1).with(isOK).along(), write(2).with(isOK),
		closes("f").with(isOK),
	}, left: map[string]string{"new": chunk(0) + chunk(1) + chunk(2)}},
	{name: "Cyberduck download from the middle", steps: []recorded{
		open("/big", rd).with(isHandle),
		fstat("f").with(isFileOf("98304")),
		read(1).with(isData(1)).along(), read(2).with(isData(2)).along(), read(3).with(isEOF),
		closes("f").with(isOK),
	}},
	{name: "Cyberduck touch, directory, link, delete", steps: []recorded{
		open("/touched", wr|creat|excl).with(isHandle), closes("f").with(isOK),
		open("/touched", wr|creat|excl).with(isFailure),
		mkdir("/made").with(isOK),
		setstat("/made", perm, uint32(0o700)).with(isOK),
		req("SYMLINK", sshfx.PacketTypeSymlink, "dir/file", "/link").with(isOK),
		stat("/link").with(isFile),
		remove("/link").with(isOK), remove("/touched").with(isOK), rmdir("/made").with(isOK),
		stat("/made").with(isAbsent),
	}},
}

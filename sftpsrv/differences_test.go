package sftpsrv

import (
	"strings"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// A difference is where we answer otherwise than OpenSSH's sftp-server, on
// purpose.
type difference struct {
	why string
	// meant reports whether the answers to a step, theirs and ours, are this
	// difference.
	meant func(s step, theirs, ours string) bool
	// parts says that the files are others afterwards, so that the session
	// has nothing more to tell.
	parts bool
}

// differences are all of those in an answer that the tests of this package let
// pass. What OpenSSH does not answer at all is in TestWhatOpenSSHDoesNotAnswer.
var differences = []difference{
	{why: "RENAME replaces nothing; OpenSSH replaces a link that leads nowhere by another link", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeRename && theirs == `status 0 "Success" ""` && ours == `status 4 "File exists" ""`
	}, parts: true},
	{why: "OpenSSH opens a directory as a file, and its reads then fail; we refuse with EISDIR", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeOpen && theirs == "handle" && ours == `status 4 "Is a directory" ""`
	}},
	{why: "the codes are the same, but our messages are those of errno: \"Directory not empty\", not \"Failure\"", meant: func(_ step, theirs, ours string) bool {
		code, _, _ := strings.Cut(theirs, ` "`)
		return strings.HasPrefix(code, "status ") && strings.HasPrefix(ours, code+` "`)
	}},
	{why: "OpenSSH changes attributes one after the other, goes on when one fails, and tells the last error; we change all or none", meant: func(s step, theirs, ours string) bool {
		flags := s.attrFlags()
		return flags&(flags-1) != 0 && strings.HasPrefix(theirs, "status ") && strings.HasPrefix(ours, "status ")
	}},
	{why: "the empty path is the directory that the session begins in, as the draft has it; for OpenSSH it is nothing", meant: func(s step, theirs, ours string) bool {
		return len(s.fields) > 0 && s.fields[0] == "" && theirs == `status 2 "No such file" ""`
	}},
	{why: "a change of no attributes is for OpenSSH a success without a look at the path", meant: func(s step, theirs, ours string) bool {
		return s.sets() && s.attrFlags() == 0 && theirs == `status 0 "Success" ""`
	}},
	{why: "RENAME is one renameat2(2) that replaces nothing; OpenSSH's steps (lstat, link, unlink, stat, rename) find another of several errors first", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeRename && failed(theirs) && failed(ours)
	}},
	{why: "the mode of a symbolic link cannot be changed: OP_UNSUPPORTED, or PERMISSION_DENIED to who does not own it; OpenSSH has FAILURE for both", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeExtended && s.attrFlags() == perm && theirs == `status 4 "Failure" ""` &&
			(strings.HasPrefix(ours, "status 8 ") || strings.HasPrefix(ours, "status 3 "))
	}},
	{why: "a listing tells of the directory that was opened; OpenSSH looks at its names in what has the path now", meant: func(s step, theirs, ours string) bool {
		return s.moved
	}},
	{why: "copying from a file that was not opened to read is an error; OpenSSH copies nothing and tells of success", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeExtended && s.fields[0] == extCopyData &&
			theirs == `status 0 "Success" ""` && ours == `status 2 "Bad file descriptor" ""`
	}},
	{why: "of several errors of copy-data another one is found first", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeExtended && s.fields[0] == extCopyData && failed(theirs) && failed(ours)
	}},
	{why: "a path is resolved as the kernel does it; OpenSSH's REALPATH drops a slash after a file, and takes \"..\" back without permission to search", meant: func(s step, theirs, ours string) bool {
		path, _ := s.fields[len(s.fields)-1].(string)
		return (s.typ == sshfx.PacketTypeRealPath || s.typ == sshfx.PacketTypeExtended && s.fields[0] == extExpandPath) &&
			(strings.HasSuffix(path, "/") || strings.Contains(path, "..")) && strings.HasPrefix(theirs, "names ") && failed(ours)
	}},
	{why: "without permission to search a directory, a listing tells the names and types of its files; OpenSSH tells nothing", meant: func(s step, theirs, ours string) bool {
		return s.typ == sshfx.PacketTypeReadDir && theirs == `status 1 "End of file" ""` && strings.Contains(ours, "00 times 0 0")
	}},
	{why: "the number of handles is a limit of ours, not that of the process's descriptors", meant: func(s step, theirs, ours string) bool {
		t, _, _ := strings.Cut(theirs, " handles ")
		o, _, _ := strings.Cut(ours, " handles ")
		return s.typ == sshfx.PacketTypeExtended && s.fields[0] == extLimits && t == o
	}},
}

// differenceOf returns the difference on purpose that two answers are, or nil.
func differenceOf(s step, theirs, ours string) *difference {
	for i, d := range differences {
		if d.meant(s, theirs, ours) {
			return &differences[i]
		}
	}
	return nil
}

// failed reports whether an answer is a status that is not OK.
func failed(answer string) bool {
	return strings.HasPrefix(answer, "status ") && !strings.HasPrefix(answer, "status 0 ")
}

// sets reports whether a step changes attributes.
func (s step) sets() bool {
	return s.typ == sshfx.PacketTypeSetStat || s.typ == sshfx.PacketTypeFSetStat ||
		s.typ == sshfx.PacketTypeExtended && s.fields[0] == extLSetStat
}

// attrFlags are the attributes that a step changes.
func (s step) attrFlags() uint32 {
	switch {
	case !s.sets():
		return 0
	case s.typ == sshfx.PacketTypeExtended:
		return s.fields[2].(uint32)
	}
	return s.fields[1].(uint32)
}

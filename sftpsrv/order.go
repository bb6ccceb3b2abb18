package sftpsrv

import (
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// A kind is what a request does, as far as order matters.
type kind uint8

const (
	kindLook     kind = iota // looks at a path
	kindName                 // changes names
	kindAttr                 // changes what a path leads to, or nobody knows what
	kindRead                 // reads an open file
	kindWrite                // writes an open file
	kindFileLook             // looks at an open file
	kindFileSet              // changes an open file otherwise, or waits for its writes
	kindOwn                  // has to do with one handle only
	kinds
)

// What a request that comes later waits for.
type wait uint8

const (
	no      wait = iota
	file         // if both are of one file
	overlap      // if both are of one file and their ranges overlap
	always
)

// waits says whether a later request (column) waits for an earlier one (row).
// A client that does not wait for an answer before it sends the next request
// may still rely on their order: sshfs sends OPEN and STAT of one path back to
// back, WinSCP sends WRITE, CLOSE and SETSTAT. Which names are one file is not
// known here; a request by path waits for any file that is written.
var waits = [kinds][kinds]wait{
	//              look    name    attr    read     write    fileLook fileSet own
	kindLook:     {no, always, always, no, no, no, no, no},
	kindName:     {always, always, always, no, no, no, always, no},
	kindAttr:     {always, always, always, always, always, always, always, always},
	kindRead:     {no, no, always, no, overlap, no, file, file},
	kindWrite:    {always, no, always, overlap, overlap, file, file, file},
	kindFileLook: {no, no, always, no, file, no, file, file},
	kindFileSet:  {always, always, always, file, file, file, file, file},
	kindOwn:      {no, no, no, file, file, file, file, file},
}

// kindOf tells the kind of a request.
func kindOf(q *request) kind {
	switch q.typ {
	case sshfx.PacketTypeLStat, sshfx.PacketTypeStat, sshfx.PacketTypeRealPath, sshfx.PacketTypeReadLink,
		sshfx.PacketTypeOpenDir:
		return kindLook
	case sshfx.PacketTypeOpen:
		switch {
		case q.flags.Has(syscall.O_TRUNC):
			return kindAttr
		case q.flags.Has(syscall.O_CREAT):
			return kindName
		}
		return kindLook
	case sshfx.PacketTypeMkdir, sshfx.PacketTypeRmdir, sshfx.PacketTypeRemove, sshfx.PacketTypeRename,
		sshfx.PacketTypeSymlink:
		return kindName
	case sshfx.PacketTypeRead:
		return kindRead
	case sshfx.PacketTypeWrite:
		return kindWrite
	case sshfx.PacketTypeFStat:
		return kindFileLook
	case sshfx.PacketTypeFSetStat:
		return kindFileSet
	case sshfx.PacketTypeReadDir:
		return kindOwn
	case sshfx.PacketTypeClose:
		if q.handle != nil && q.handle.writes {
			return kindFileSet
		}
		return kindOwn
	case sshfx.PacketTypeExtended:
		return kindOfExtended(q.name)
	}
	return kindAttr
}

func kindOfExtended(name string) kind {
	switch name {
	case extLimits, extNames, extStatVFS, extExpandPath, extHomeDir:
		return kindLook
	case extPosixRename, extHardLink:
		return kindName
	case extFStatVFS:
		return kindFileLook
	case extFSync:
		return kindFileSet
	}
	return kindAttr
}

// mustWait reports whether b, which came later, has to wait for a.
func mustWait(a, b *job) bool {
	switch waits[a.kind][b.kind] {
	case always:
		return true
	case file:
		return sameFile(a.q.handle, b.q.handle)
	case overlap:
		return sameFile(a.q.handle, b.q.handle) && (appends(&a.q) || appends(&b.q) || overlaps(&a.q, &b.q))
	}
	return false
}

// sameFile reports whether two handles are, as far as the door can tell, of
// one file.
func sameFile(a, b *handle) bool {
	return a == b || a != nil && b != nil && a.path == b.path
}

func appends(q *request) bool {
	return q.handle != nil && q.handle.appends
}

// overlaps reports whether two ranges overlap.
func overlaps(a, b *request) bool {
	return a.off < b.off+b.length && b.off < a.off+a.length
}

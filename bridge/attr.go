package bridge

import (
	"syscall"
	"time"
)

// An Attr is what stat(2) tells of one inode.
type Attr struct {
	ID    FileID // identity on the backend; zero where Traits.FileIDs is false
	Mode  uint32 // file type (S_IFMT) and permission bits (07777), as st_mode
	Nlink uint32 // number of hard links; 0 when the backend does not know
	UID   uint32
	GID   uint32
	Rdev  uint32 // device number of a device file, as st_rdev
	Size  int64  // bytes
	// Blocks is the space in use, in units of 512 bytes; negative when the
	// backend does not know, and Size is all there is to go by.
	Blocks int64
	Atime  time.Time
	Mtime  time.Time
	Ctime  time.Time // the zero time when the backend does not know
}

// A FileID identifies an inode on a backend across names, as st_dev and
// st_ino do. The zero FileID means unknown.
type FileID struct {
	Dev, Ino uint64
}

// Type returns the file type bits of the mode (S_IFREG, S_IFDIR, …).
func (a Attr) Type() uint32 { return a.Mode & syscall.S_IFMT }

// Perm returns the permission bits of the mode, with set-id and sticky bits.
func (a Attr) Perm() uint32 { return a.Mode & 0o7777 }

// IsDir reports whether a describes a directory.
func (a Attr) IsDir() bool { return a.Type() == syscall.S_IFDIR }

// IsRegular reports whether a describes a regular file.
func (a Attr) IsRegular() bool { return a.Type() == syscall.S_IFREG }

// IsSymlink reports whether a describes a symbolic link.
func (a Attr) IsSymlink() bool { return a.Type() == syscall.S_IFLNK }

// A SetFields says which fields of a SetAttr are to be set.
type SetFields uint16

// The fields of a SetAttr. SetAtimeNow and SetMtimeNow ask for the present
// time of whoever carries the change out, and go with SetAtime and SetMtime.
const (
	SetMode SetFields = 1 << iota
	SetUID
	SetGID
	SetSize
	SetAtime
	SetMtime
	SetAtimeNow
	SetMtimeNow
)

// A SetAttr is a change of attributes: those that Valid names.
type SetAttr struct {
	Valid SetFields
	Mode  uint32 // permission bits only, 07777
	UID   uint32
	GID   uint32
	Size  int64
	Atime time.Time
	Mtime time.Time
}

// Has reports whether all of the fields f are to be set.
func (s SetAttr) Has(f SetFields) bool { return s.Valid&f == f }

// Any reports whether any of the fields f is to be set.
func (s SetAttr) Any(f SetFields) bool { return s.Valid&f != 0 }

// Without returns s with the fields f left as they are.
func (s SetAttr) Without(f SetFields) SetAttr {
	s.Valid &^= f
	return s
}

// Apply returns a with the changes of s made to it at the time now. It is what
// a store in memory does, and what a cache expects of a backend that agreed.
// Ctime becomes now if anything changed; clearing set-id bits is the caller's.
func (s SetAttr) Apply(a Attr, now time.Time) Attr {
	if s.Valid == 0 {
		return a
	}
	if s.Has(SetMode) {
		a.Mode = a.Mode&^0o7777 | s.Mode&0o7777
	}
	if s.Has(SetUID) {
		a.UID = s.UID
	}
	if s.Has(SetGID) {
		a.GID = s.GID
	}
	if s.Has(SetSize) {
		if a.Size != s.Size {
			a.Blocks = -1
		}
		a.Size = s.Size
		a.Mtime = now
	}
	if s.Has(SetAtime) {
		a.Atime = s.Atime
		if s.Has(SetAtimeNow) {
			a.Atime = now
		}
	}
	if s.Has(SetMtime) {
		a.Mtime = s.Mtime
		if s.Has(SetMtimeNow) {
			a.Mtime = now
		}
	}
	a.Ctime = now
	return a
}

// A StatFS is what statvfs(3) tells of a file system.
type StatFS struct {
	BlockSize  uint32 // f_bsize, bytes
	FragSize   uint32 // f_frsize, bytes: the unit of the block counts
	Blocks     uint64
	BlocksFree uint64
	BlocksAvl  uint64 // free to who is not root
	Files      uint64
	FilesFree  uint64
	FilesAvl   uint64
	FSID       uint64
	ReadOnly   bool
	NoSUID     bool
	NameMax    uint32
}

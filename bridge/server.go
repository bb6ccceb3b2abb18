package bridge

import (
	"context"
	"io"
	"iter"
)

// A Server is one avatar's file server: the Go form of Twisted Conch's
// ISFTPServer (twisted.conch.interfaces). Package sftpsrv serves any
// implementation; a tree's View is the one that comes with this package.
//
// Paths are slash-separated; a relative one begins at the avatar's home, and
// "" is the home itself. Each method checks that the avatar may do what it
// asks. Errors wrap a syscall.Errno, which the door turns into a status of the
// protocol. Methods may be called concurrently.
//
// What the protocol's base lacks is in the interfaces PosixRenamer … below; a door announces and serves
// an extension only if the server has it.
type Server interface {
	// Avatar returns the user that the realm handed out (ISFTPServer.avatar).
	Avatar() *Avatar
	// GotVersion is told the version and the extension pairs with which the
	// client began (SSH_FXP_INIT), and returns the pairs that the door
	// announces to it beside those that it serves itself.
	GotVersion(version uint32, extensions []Extension) []Extension
	// OpenFile opens a file, following symbolic links (openFile). With
	// O_CREAT, attr is honoured for a file that it makes. ENOENT, EACCES,
	// EISDIR, EEXIST with O_EXCL, ELOOP.
	OpenFile(ctx context.Context, path string, flags OpenFlags, attr SetAttr) (ServerFile, error)
	// RemoveFile removes a name, which must not be a directory (EISDIR).
	RemoveFile(ctx context.Context, path string) error
	// RenameFile gives a file a new name, which must be free (EEXIST).
	RenameFile(ctx context.Context, oldPath, newPath string) error
	// MakeDirectory makes a directory with the attributes attr (EEXIST).
	MakeDirectory(ctx context.Context, path string, attr SetAttr) error
	// RemoveDirectory removes an empty directory (ENOTEMPTY, ENOTDIR).
	RemoveDirectory(ctx context.Context, path string) error
	// OpenDirectory begins a listing (ENOTDIR), which is of one moment.
	OpenDirectory(ctx context.Context, path string) (ServerDir, error)
	// GetAttrs returns the attributes of a path: with followLinks those of
	// what a symbolic link points to (STAT), else its own (LSTAT).
	GetAttrs(ctx context.Context, path string, followLinks bool) (Attr, error)
	// SetAttrs changes attributes, following symbolic links: all that are asked for, or it
	// returns an error.
	SetAttrs(ctx context.Context, path string, attr SetAttr) error
	// ReadLink returns what a symbolic link holds (EINVAL).
	ReadLink(ctx context.Context, path string) (string, error)
	// MakeLink makes the symbolic link linkPath, which holds targetPath as given (EEXIST).
	MakeLink(ctx context.Context, linkPath, targetPath string) error
	// RealPath returns the absolute path without symbolic links, "." and
	// "..", as the avatar sees it. The last component may be missing.
	RealPath(ctx context.Context, path string) (string, error)
	// ExtendedRequest answers a request that the door does not know with
	// the data of its reply. ENOSYS says that it is not supported.
	ExtendedRequest(ctx context.Context, name string, data []byte) ([]byte, error)
}

// An Extension is a pair of SSH_FXP_INIT or SSH_FXP_VERSION.
type Extension struct {
	Name, Data string
}

// A ServerFile is a file that a Server opened: the Go form of ISFTPFile. What
// it may do was decided at open. It goes on working when its name is changed
// or removed. Methods may be called concurrently, but for Close.
type ServerFile interface {
	// ReadChunk fills p from the offset off. Fewer bytes come only with an
	// error, which is io.EOF at the end of the file.
	ReadChunk(ctx context.Context, p []byte, off int64) (int, error)
	// WriteChunk writes all of p at the offset off (at the end of the file if it
	// was opened with O_APPEND), or returns an error.
	WriteChunk(ctx context.Context, p []byte, off int64) error
	GetAttrs(ctx context.Context) (Attr, error)
	SetAttrs(ctx context.Context, attr SetAttr) error
	// Close ends the use of the file, and tells of a write that failed
	// since the last error was told.
	Close(ctx context.Context) error
}

// A ServerDir is a listing under way: the Go form of openDirectory's iterator.
type ServerDir interface {
	// Entries yields the entries with full attributes, "." and ".." among them. It
	// may be left at any time; it is called again to go on behind the last entry
	// that it has yielded.
	Entries(ctx context.Context) iter.Seq2[DirEntry, error]
	io.Closer
}

// A PosixRenamer renames as rename(2): what has the new name is replaced
// (posix-rename@openssh.com).
type PosixRenamer interface {
	PosixRename(ctx context.Context, oldPath, newPath string) error
}

// A HardLinker makes hard links (hardlink@openssh.com).
type HardLinker interface {
	HardLink(ctx context.Context, oldPath, newPath string) error
}

// A LinkAttrSetter sets the attributes of a symbolic link itself
// (lsetstat@openssh.com).
type LinkAttrSetter interface {
	SetLinkAttrs(ctx context.Context, path string, attr SetAttr) error
}

// A StatFSer tells of the file system below a path (statvfs@openssh.com).
type StatFSer interface {
	StatFS(ctx context.Context, path string) (StatFS, error)
}

// A PathExpander knows "~", "~/x" and "~user/x" (expand-path@openssh.com),
// and where a user's home is (home-directory).
type PathExpander interface {
	ExpandPath(ctx context.Context, path string) (string, error)
	HomeDirectory(ctx context.Context, user string) (string, error)
}

// An IDNamer knows the names of numeric users and groups, "" if there is none
// (users-groups-by-id@openssh.com, and the long names of listings).
type IDNamer interface {
	UserName(uid uint32) string
	GroupName(gid uint32) string
}

// An AttrBatcher answers requests for attributes that have come together with
// what their paths have in common looked at once.
type AttrBatcher interface {
	// AttrBatch begins a batch, which is to be closed. All requests that are put to it
	// must have come before the first one is, so that none of them can be from
	// after a change that it does not show, and nothing that changes anything may be
	// asked of the Server for the same client meanwhile.
	AttrBatch() AttrBatch
}

// An AttrBatch is used by one goroutine.
type AttrBatch interface {
	// GetAttrs is that of the Server.
	GetAttrs(ctx context.Context, path string, followLinks bool) (Attr, error)
	Close()
}

// A SyncFile brings what was written to stable storage (fsync@openssh.com).
type SyncFile interface {
	Sync(ctx context.Context) error
}

// A StatFSFile tells of the file system below an open file
// (fstatvfs@openssh.com).
type StatFSFile interface {
	StatFS(ctx context.Context) (StatFS, error)
}

// A CopyToFile copies between open files of one server (copy-data). It copies
// n bytes, or with n = 0 all up to the end of the file. EINVAL if both are one file.
type CopyToFile interface {
	CopyTo(ctx context.Context, off, n int64, dst ServerFile, dstOff int64) error
}

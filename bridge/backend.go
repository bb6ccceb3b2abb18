package bridge

import (
	"context"
	"io"
	"iter"
	"syscall"
	"time"
)

// Limits of names and paths, as Linux has them, in bytes without the NUL.
const (
	NameMax = 255
	PathMax = 4095
)

// DepthMax limits the names that a Backend gets, which lead from its root: they
// may well be longer than a path, as programs go deeper step by step.
const DepthMax = 64 << 10

// Traits say what a backend is like, so that the tree can choose how to treat
// it. They do not change while the backend is open.
type Traits struct {
	// Slow says that a call costs a round trip to somewhere else: the tree
	// then keeps attributes, listings and content for a while. The calls of a
	// backend that is not slow are made each time.
	Slow bool
	// FileIDs says that Attr.ID identifies inodes across names.
	FileIDs bool
	// Subsecond says that times finer than a second are kept.
	Subsecond bool
}

// A Backend stores files under slash-separated names relative to its root, in
// the form that io/fs.ValidPath accepts, but of any bytes other than NUL; "."
// is the root. Other names are an error, and so are those longer than DepthMax,
// or than what the backend can name (ENAMETOOLONG). It checks no permission,
// follows no symbolic link (neither in the middle of a name, which is ENOTDIR,
// nor at its end) and caches nothing. Methods may be called concurrently.
// Errors wrap a syscall.Errno. A backend that cannot be written to answers
// EROFS.
//
// What only some backends can do is in the one-method interfaces below, each
// with what the tree does for a backend that lacks it.
type Backend interface {
	Traits() Traits
	// Lstat returns the attributes of name.
	Lstat(ctx context.Context, name string) (Attr, error)
	// ReadDir yields the entries of the directory name, without "." and "..",
	// in any order. It stops at the first error, which it yields. Entries
	// that come or go while it runs may or may not be among them; those that
	// stay are there exactly once.
	ReadDir(ctx context.Context, name string) iter.Seq2[DirEntry, error]
	// Open opens, and with O_CREAT makes, the regular file name. A file that
	// it makes gets the mode, owner and times of attr (not its size: a new file is
	// empty); for one that exists, attr is ignored. ELOOP if name is a symbolic link, EISDIR if it is a
	// directory, EEXIST with O_EXCL if there is anything.
	Open(ctx context.Context, name string, flags OpenFlags, attr SetAttr) (File, error)
	// Mkdir makes the directory name with the mode and owner of attr.
	Mkdir(ctx context.Context, name string, attr SetAttr) error
	// SetAttr changes attributes of name: size first, then owner, mode, and
	// times last, so that each keeps what was asked for. ELOOP or EOPNOTSUPP
	// for what cannot be set of a symbolic link.
	SetAttr(ctx context.Context, name string, attr SetAttr) error
	// Remove removes a name that is not a directory (EISDIR).
	Remove(ctx context.Context, name string) error
	// Rmdir removes the empty directory name (ENOTEMPTY, ENOTDIR).
	Rmdir(ctx context.Context, name string) error
	// Rename gives from the name to, as renameat2(2): what is there already
	// is replaced atomically, with RenameNoReplace that is EEXIST, with
	// RenameExchange the two change places; EINVAL for flags that it lacks.
	Rename(ctx context.Context, from, to string, flags RenameFlags) error
	io.Closer
}

// A File is an open regular file of a backend. It goes on working when its
// name is changed or removed. Methods may be called concurrently, but for
// Close, which comes last.
type File interface {
	// ReadAt is io.ReaderAt with a context: fewer bytes than len(p) come only
	// with an error, which is io.EOF itself at the end of the file: an error that
	// wraps it is that of a connection.
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	// WriteAt is io.WriterAt with a context. In a file opened with O_APPEND,
	// off is ignored and the bytes are put at the end of the file.
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
	Attr(ctx context.Context) (Attr, error)
	SetAttr(ctx context.Context, attr SetAttr) error
	// Sync returns when the backend has the data on stable storage.
	Sync(ctx context.Context) error
	Close(ctx context.Context) error
}

// A DirEntry is one name in a directory. Attr is what the backend knows of it
// at no further cost: Attr.Mode has the file type at least, or is 0 if not
// even that is known; Full says that Attr is all that Lstat would tell. Asked is
// when a slow backend was asked for this entry, if that was not when the listing
// began: one of many entries takes longer than what it tells is believed.
type DirEntry struct {
	Name  string
	Attr  Attr
	Full  bool
	Asked time.Time
}

// OpenFlags are the flags of open(2) that a backend knows: O_RDONLY, O_WRONLY
// or O_RDWR, with O_CREAT, O_EXCL, O_TRUNC and O_APPEND.
type OpenFlags uint32

// Reads reports whether the flags ask for reading.
func (f OpenFlags) Reads() bool { return f&syscall.O_ACCMODE != syscall.O_WRONLY }

// Writes reports whether the flags ask for writing.
func (f OpenFlags) Writes() bool { return f&syscall.O_ACCMODE != syscall.O_RDONLY }

// Has reports whether all of the bits in g are set.
func (f OpenFlags) Has(g OpenFlags) bool { return f&g == g }

// RenameFlags are the flags of renameat2(2).
type RenameFlags uint32

// The flags of Rename.
const (
	RenameNoReplace RenameFlags = 1 << iota
	RenameExchange
)

// A SymlinkBackend has symbolic links. Without it, making one is EPERM and
// there are none to read.
type SymlinkBackend interface {
	// Symlink makes the symbolic link name with the owner of attr; target is kept as it is.
	Symlink(ctx context.Context, target, name string, attr SetAttr) error
	// Readlink returns the target of the symbolic link name (EINVAL).
	Readlink(ctx context.Context, name string) (string, error)
}

// A LinkBackend has hard links. Without it, making one is EPERM.
type LinkBackend interface {
	// Link gives the file old, which is not a directory, the further name
	// new (EEXIST). A symbolic link gets the name itself, not its target.
	Link(ctx context.Context, old, new string) error
}

// A MknodBackend makes special files. Without it, only regular files can be
// made, through Open, and the others are EPERM.
type MknodBackend interface {
	// Mknod makes the file name of the type and with the permissions of
	// mode, the owner of attr and, for a device, the number rdev.
	Mknod(ctx context.Context, name string, mode, rdev uint32, attr SetAttr) error
}

// A DirBackend holds a directory open for who looks at several of its entries.
// Without it, each of them is looked for by its whole name.
type DirBackend interface {
	// OpenDir returns the directory name (ENOTDIR for anything else).
	OpenDir(ctx context.Context, name string) (Dir, error)
}

// A Dir is a directory of a backend that is held open, whatever becomes of its
// name. What it tells of is all that Lstat of the backend would.
type Dir interface {
	// Attr returns the attributes of the directory itself.
	Attr(ctx context.Context) (Attr, error)
	// Lstat returns the attributes of the entry name (ENOENT).
	Lstat(ctx context.Context, name string) (Attr, error)
	io.Closer
}

// A MkdirAttrBackend can tell what a directory that it makes has become, at no
// further cost. Without it, the tree asks.
type MkdirAttrBackend interface {
	// MkdirAttr is Mkdir and then Lstat; an Attr without a mode says that it
	// does not know.
	MkdirAttr(ctx context.Context, name string, attr SetAttr) (Attr, error)
}

// A ReadOpenBackend can read the beginning of a file together with opening it, at
// no further cost. Without it, the tree opens and then reads.
type ReadOpenBackend interface {
	// OpenRead is Open for reading, and fills p from the beginning of the file: n
	// says how much of it, less than len(p) also elsewhere than at the end of
	// the file, or is negative if it could not be read like this.
	OpenRead(ctx context.Context, name string, p []byte) (f File, n int, err error)
}

// A StatFSBackend knows its free space. Without it, the tree tells of none.
type StatFSBackend interface {
	StatFS(ctx context.Context, name string) (StatFS, error)
}

// An XattrBackend keeps extended attributes. Without it, they are EOPNOTSUPP.
type XattrBackend interface {
	// GetXattr returns the value of attr (ENODATA).
	GetXattr(ctx context.Context, name, attr string) ([]byte, error)
	// SetXattr sets attr, with XATTR_CREATE (1: EEXIST) or XATTR_REPLACE (2:
	// ENODATA) in flags if it must be new or there already.
	SetXattr(ctx context.Context, name, attr string, value []byte, flags int) error
	ListXattr(ctx context.Context, name string) ([]string, error)
	// RemoveXattr removes attr (ENODATA).
	RemoveXattr(ctx context.Context, name, attr string) error
}

// A WatchBackend tells of changes that others made behind the tree's back.
// Without it, they are seen when what was cached has timed out.
type WatchBackend interface {
	// Watch calls changed for each change until ctx ends, and then returns
	// nil. It may tell of the tree's own changes too. It tells of changes in directories that
	// were named to WatchDir only.
	Watch(ctx context.Context, changed func(Change)) error
	// WatchDir begins to watch the directory name, UnwatchDir ends it.
	WatchDir(name string) error
	UnwatchDir(name string)
}

// A Change is what a backend saw change: the entry Name of the directory Dir,
// or with an empty Name the directory itself. Overflow says that changes were
// missed and everything may have changed.
type Change struct {
	Dir, Name string
	Entry     bool // the name came, went or now means another file
	Content   bool // the data or size may have changed
	Overflow  bool
}

// A CopyFile can copy from itself to another file on the backend's side.
// Without it, the tree reads and writes.
type CopyFile interface {
	// CopyRange copies n bytes at off to the offset dstOff of dst, a file of the same
	// backend, and returns how many it copied; fewer than n at the end of the file.
	// EOPNOTSUPP or EXDEV has the tree do it.
	CopyRange(ctx context.Context, off int64, dst File, dstOff, n int64) (int64, error)
}

// An FDFile has a file descriptor, which a door may read from and write to in
// its place (splice(2), FUSE passthrough). It is valid until Close.
type FDFile interface {
	FD() int
}

// An AllocateFile has fallocate(2). Without it, that is EOPNOTSUPP.
type AllocateFile interface {
	Allocate(ctx context.Context, mode uint32, off, n int64) error
}

// A SeekFile finds data and holes. Without it, a file is all data.
type SeekFile interface {
	// Seek returns the next offset at or after off that is in data (whence
	// SEEK_DATA, 3) or in a hole (SEEK_HOLE, 4), or ENXIO.
	Seek(ctx context.Context, off int64, whence int) (int64, error)
}

// An AheadFile has reads of much wait for their turn, and can give up those that
// wait. Without it, what is read ahead is read, if nobody wants it any more or not.
type AheadFile interface {
	// ReadAhead is ReadAt, but what has not been sent when unwanted is closed is
	// not sent any more: ECANCELED.
	ReadAhead(ctx context.Context, unwanted <-chan struct{}, p []byte, off int64) (int, error)
}

// An OrderedFile can be told of several changes without the answer to one being
// waited for before the next is sent, and carries them out in that order.
// Without it, the tree waits in between. Each method returns what waits for the
// outcome, or nil if the change cannot be made like this, and was not begun. None
// waits for anything itself.
type OrderedFile interface {
	// StartWrite is WriteAt of all of p, which is kept until the outcome is known.
	StartWrite(p []byte, off int64) (wait func(ctx context.Context) error)
	// StartSetAttr is SetAttr behind the writes that were started. Their
	// outcomes are to be waited for before its own.
	StartSetAttr(set SetAttr) (wait func(ctx context.Context) error)
	// StartAttr is Attr behind all that was started.
	StartAttr() (wait func(ctx context.Context) (Attr, error))
	// StartClose has Close, which is to be called after all outcomes are
	// known, wait for less: nothing more is started after it. It reports
	// whether that was possible.
	StartClose() bool
}

// An OpenedFile knows the attributes that the file had when it was opened, at
// no further cost. Without it, the tree asks when it needs them.
type OpenedFile interface {
	Opened() (Attr, bool)
}

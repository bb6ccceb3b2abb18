// Package memfs keeps a tree of files in memory. It is the reference backend:
// where the contract of package bridge leaves room, it does what Linux does on
// a tmpfs, but for access times, which reading leaves as they are.
//
// Files are sparse in pages of 4 KiB: holes, and files of any size made by
// truncation, cost no memory. What is written counts against a capacity, and
// past it there is ENOSPC.
//
// Locks are taken in this order:
//
//	FS.mu      the names: entries and parents of all directories
//	inode.mu   attributes, content and extended attributes of one inode;
//	           never of two at once
//
// Reading and writing an open file takes the lock of its inode alone, and
// reading shares it.
package memfs

import (
	"context"
	"fmt"
	"iter"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

// An FS is a file system in memory.
type FS struct {
	lastIno atomic.Uint64
	inodes  atomic.Int64 // how many there are
	space   space

	mu   sync.RWMutex // guards the entries and parents of all directories
	root *inode
}

var _ interface {
	bridge.Backend
	bridge.SymlinkBackend
	bridge.LinkBackend
	bridge.MknodBackend
	bridge.StatFSBackend
	bridge.XattrBackend
	bridge.DirBackend
} = (*FS)(nil)

// An Option changes what New makes.
type Option func(*FS)

// WithCapacity limits the content of all files together to about that many
// bytes, counted in pages of 4 KiB. Without it the limit is 64 GiB.
func WithCapacity(bytes int64) Option {
	return func(fs *FS) { fs.space.max = bytes / pageSize }
}

// New returns an empty file system, whose root belongs to the user of the
// process and has the mode 0755.
func New(opts ...Option) *FS {
	fs := &FS{space: space{max: 64 << 30 / pageSize}}
	for _, opt := range opts {
		opt(fs)
	}
	fs.root = fs.newInode(syscall.S_IFDIR, 0o755, bridge.SetAttr{})
	fs.root.attr.Nlink = 2
	return fs
}

// Traits says that inodes have identities and times are exact.
func (fs *FS) Traits() bridge.Traits {
	return bridge.Traits{FileIDs: true, Subsecond: true}
}

// Close does nothing: the files are there for as long as the FS is.
func (fs *FS) Close() error { return nil }

// Lstat returns the attributes of name.
func (fs *FS) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return bridge.Attr{}, err
	}
	return n.stat(), nil
}

// ReadDir yields the entries that the directory has when it begins, with the
// attributes they have when they are yielded.
func (fs *FS) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		entries, err := fs.list(ctx, name)
		if err != nil {
			yield(bridge.DirEntry{}, err)
			return
		}
		for _, e := range entries {
			if err := alive(ctx); err != nil {
				yield(bridge.DirEntry{}, err)
				return
			}
			if !yield(bridge.DirEntry{Name: e.name, Attr: e.n.stat(), Full: true}, nil) {
				return
			}
		}
	}
}

// An entry is one name in a directory.
type entry struct {
	name string
	n    *inode
}

// list returns the entries of the directory name.
func (fs *FS) list(ctx context.Context, name string) ([]entry, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	dir, err := fs.walkLocked(name)
	if err != nil {
		return nil, err
	}
	if !dir.isDir() {
		return nil, syscall.ENOTDIR
	}
	entries := make([]entry, 0, len(dir.entries))
	for name, n := range dir.entries {
		entries = append(entries, entry{name, n})
	}
	return entries, nil
}

// SetAttr changes attributes of name, all that are asked for or none.
// EOPNOTSUPP for the mode of a symbolic link and ELOOP for its size, EISDIR
// for the size of a directory and EINVAL for that of a special file.
func (fs *FS) SetAttr(ctx context.Context, name string, attr bridge.SetAttr) error {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return err
	}
	return n.setAttr(&fs.space, attr)
}

// StatFS counts in pages. There are as many inodes to be had as pages.
func (fs *FS) StatFS(ctx context.Context, name string) (bridge.StatFS, error) {
	if _, err := fs.lookup(ctx, name); err != nil {
		return bridge.StatFS{}, err
	}
	free := uint64(fs.space.free())
	files := uint64(fs.inodes.Load())
	return bridge.StatFS{
		BlockSize: pageSize, FragSize: pageSize,
		Blocks: uint64(fs.space.max), BlocksFree: free, BlocksAvl: free,
		Files: files + free, FilesFree: free, FilesAvl: free,
		FSID:    device,
		NameMax: bridge.NameMax,
	}, nil
}

// lookup returns the inode that name means now.
func (fs *FS) lookup(ctx context.Context, name string) (*inode, error) {
	if err := alive(ctx); err != nil {
		return nil, err
	}
	fs.mu.RLock()
	defer fs.mu.RUnlock()
	return fs.walkLocked(name)
}

// alive returns an error that wraps an errno if ctx has ended. It is asked
// before anything is done: what has begun is done completely.
func alive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bridge.Errno(err), err)
	}
	return nil
}

// now returns the present time as an attribute has it.
func now() time.Time { return time.Now().Round(0) }

// maxSize is the size of the largest file, as for loff_t.
const maxSize = math.MaxInt64

// owner returns the user and group of the process, which own what is made
// without an owner.
func owner() (uid, gid uint32) {
	return uint32(os.Geteuid()), uint32(os.Getegid())
}

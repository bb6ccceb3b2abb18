package bridge

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sftpbridge/bridge/blockcache"
)

// Options are how a tree treats its backend. The zero value is useful.
type Options struct {
	// AttrTimeout is for how long attributes, listings and absent names of a
	// slow backend are believed; 0 is 1 second, negative is not at all.
	AttrTimeout time.Duration
	// CacheSize is the memory for content of slow backends, in bytes; 0 is
	// DefaultCacheSize.
	CacheSize int64
	// ReadOnly has every change answered with EROFS.
	ReadOnly bool
	// Protected are the protections that the tree has. Where the kernel shows
	// the tree too, they should be the kernel's, which it heeds at its mounts.
	Protected Protected
	// Logger gets what nobody else is told of; nil is none.
	Logger *slog.Logger
}

// DefaultCacheSize is the memory for content of a slow backend, in bytes. With
// what is needed beside it a process stays below 256 MiB.
const DefaultCacheSize = 160 << 20

const (
	defaultAttrTimeout = time.Second
	// unchangedTimeout is for how long doors may believe what they were told
	// of a backend whose changes they all hear of.
	unchangedTimeout = time.Hour
	entryStripes     = 256
)

// A Tree is the node tree over one backend.
type Tree struct {
	backend  Backend
	traits   Traits
	opt      Options
	log      *slog.Logger
	cache    *blockcache.Cache // nil unless the backend is slow
	symlinks SymlinkBackend    // nil if the backend has none
	links    LinkBackend       // the same
	asCaller bool              // the backend is a CallerBackend
	dirs     DirBackend        // nil if the backend has none, or is not to be asked for them
	root     *Node
	seed     maphash.Seed
	watch    *watcher // nil if the backend cannot be watched
	ahead    *ahead   // nil unless the backend is slow

	renameMu sync.RWMutex
	entryMu  [entryStripes]sync.Mutex
	lateMu   sync.RWMutex

	mu     sync.Mutex
	nodes  map[uint64]*Node // guarded by mu
	byID   map[FileID]*Node // guarded by mu; nodes that have a name, where Traits.FileIDs
	nextID uint64           // guarded by mu; what is given out when the number wanted is in use
	idle   idleList         // guarded by mu; nodes that nobody refers to
	// garbage is what unlock closes. guarded by mu
	garbage []*blockcache.File
	foreign []foreign // what unlock tells of. guarded by mu
	clock   uint64    // guarded by mu; counts our changes, see storeLocked

	locks lockTable

	doors atomic.Uint32
	subMu sync.Mutex // serializes changes of subs
	subs  atomic.Pointer[[]*Subscription]
}

// New returns the tree over the backend b, which it closes when it is closed.
// It fails if b has no root directory.
func New(ctx context.Context, b Backend, opt Options) (*Tree, error) {
	t := &Tree{
		backend: b,
		traits:  b.Traits(),
		opt:     opt,
		log:     opt.Logger,
		seed:    maphash.MakeSeed(),
		nodes:   make(map[uint64]*Node),
		byID:    make(map[FileID]*Node),
		nextID:  1 << 62,
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case opt.AttrTimeout == 0:
		t.opt.AttrTimeout = defaultAttrTimeout
	case opt.AttrTimeout < 0:
		t.opt.AttrTimeout = 0
	}
	if opt.CacheSize == 0 {
		t.opt.CacheSize = DefaultCacheSize
	}
	t.symlinks, _ = b.(SymlinkBackend)
	t.links, _ = b.(LinkBackend)
	_, t.asCaller = b.(CallerBackend)
	if !t.asCaller && !t.traits.Slow {
		t.dirs, _ = b.(DirBackend)
	}

	attr, err := b.Lstat(ctx, ".")
	if err != nil {
		return nil, fmt.Errorf("root directory of the tree: %w", err)
	}
	if !attr.IsDir() {
		return nil, fmt.Errorf("root of the tree: %w", syscall.ENOTDIR)
	}
	t.root = &Node{tree: t, id: rootID, refs: 1, fileID: attr.ID, typ: attr.Type()}
	t.nodes[rootID] = t.root
	if attr.ID != (FileID{}) {
		t.byID[attr.ID] = t.root
	}
	if t.traits.Slow {
		t.cache = blockcache.New(t.opt.CacheSize)
		t.ahead = newAhead()
	}
	if w, ok := b.(WatchBackend); ok {
		t.watch = newWatcher(t, w)
	}
	return t, nil
}

// Close closes the backend. Handles have to be closed before; what they wrote
// is there then.
func (t *Tree) Close() error {
	if t.watch != nil {
		t.watch.close()
	}
	if t.traits.Slow {
		t.ahead.close()
		t.cache.Close()
	}
	return t.backend.Close()
}

// Traits returns those of the backend.
func (t *Tree) Traits() Traits { return t.traits }

// Root returns the node of the backend's root, which need not be forgotten.
func (t *Tree) Root() *Node { return t.root }

// NewDoor returns a door that wants to hear of nothing.
func (t *Tree) NewDoor() Door { return Door(t.doors.Add(1)) }

// AttrTimeout is for how long a door may believe what it was told, if it
// listens to events.
func (t *Tree) AttrTimeout() time.Duration {
	if t.traits.Slow || t.watch != nil && t.watch.blind.Load() {
		return t.opt.AttrTimeout
	}
	return unchangedTimeout
}

// entryLock returns the lock of a name in a directory.
func (t *Tree) entryLock(dir *Node, name string) *sync.Mutex {
	var h maphash.Hash
	h.SetSeed(t.seed)
	h.WriteString(name)
	return &t.entryMu[(h.Sum64()^dir.id)%entryStripes]
}

// CheckName returns an error unless name can be an entry of a directory:
// ENOENT for none, EINVAL for a slash or NUL in it, ENAMETOOLONG.
func CheckName(name string) error {
	switch {
	case name == "":
		return syscall.ENOENT
	case len(name) > NameMax:
		return syscall.ENAMETOOLONG
	case strings.ContainsAny(name, "/\x00"):
		return syscall.EINVAL
	}
	return nil
}

// mutable returns an error if the caller may change nothing at all.
func (t *Tree) mutable(c Caller) error {
	if t.opt.ReadOnly || c.ReadOnly {
		return syscall.EROFS
	}
	return nil
}

// allow asks the caller's rules about operations on n, or with a name on that
// entry of n.
func (t *Tree) allow(c Caller, op Ops, n *Node, name string) error {
	if len(c.Rules) == 0 {
		return nil
	}
	return c.Rules.Check(op, c.avatarPath(n.path(name)))
}

// avatarPath returns a path in the tree as the caller sees it: what lies
// outside its root is seen at its place in the tree.
func (c Caller) avatarPath(path string) string {
	root := strings.Trim(c.Root, "/")
	if root == "" {
		return path
	}
	if rest, ok := strings.CutPrefix(path, "/"+root); ok && (rest == "" || rest[0] == '/') {
		if rest == "" {
			return "/"
		}
		return rest
	}
	return path
}

// fail makes err the error of an operation on n, or on the entry name of n.
func (t *Tree) fail(op string, n *Node, name string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	errno := Errno(err)
	if err == error(errno) {
		err = nil
	}
	return &Error{Op: op, Path: n.path(name), Errno: errno, Err: err}
}

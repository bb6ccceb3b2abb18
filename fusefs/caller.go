package fusefs

import (
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

const (
	avatarTTL  = 3 * time.Second // for how long an answer of the realm is kept
	maxAvatars = 1024            // how many are kept
)

// callers maps the sender of a request to an avatar.
type callers struct {
	avatar *bridge.Avatar // everybody, or nil
	realm  bridge.Realm
	root   string // path in the tree of what is mounted
	door   bridge.Door
	// uncached is set once an avatar is seen whose powers the permission
	// bits do not express, so that the kernel must not decide for it.
	uncached atomic.Bool

	mu    sync.Mutex
	known map[owner]knownAvatar // guarded by mu
}

type owner struct{ uid, gid uint32 }

type knownAvatar struct {
	avatar  *bridge.Avatar
	err     error
	expires time.Time
}

// caller returns who made the request h.
func (c *callers) caller(h *fuse.InHeader) (bridge.Caller, fuse.Status) {
	if c.avatar != nil {
		return bridge.Caller{Avatar: c.avatar, Door: c.door}, fuse.OK
	}
	key := owner{h.Uid, h.Gid}
	now := time.Now()
	c.mu.Lock()
	k, ok := c.known[key]
	c.mu.Unlock()
	if !ok || now.After(k.expires) {
		k = c.ask(key)
		k.expires = now.Add(avatarTTL)
		c.mu.Lock()
		if c.known == nil || len(c.known) >= maxAvatars {
			c.known = make(map[owner]knownAvatar)
		}
		c.known[key] = k
		c.mu.Unlock()
	}
	if k.err != nil {
		return bridge.Caller{}, status(k.err)
	}
	return bridge.Caller{Avatar: k.avatar, Door: c.door}, fuse.OK
}

// ask asks the realm. An avatar that is confined to a part of what is mounted
// may not use the mount at all: the kernel would not keep it in there.
func (c *callers) ask(key owner) knownAvatar {
	a, err := c.realm.AvatarByUID(key.uid, key.gid)
	if err == nil && a == nil {
		err = syscall.EACCES
	}
	if err != nil {
		c.uncached.Store(true)
		return knownAvatar{err: err}
	}
	if !within(c.root, a.Root) {
		c.uncached.Store(true)
		return knownAvatar{err: syscall.EACCES}
	}
	if len(a.Rules) > 0 {
		c.uncached.Store(true)
	}
	return knownAvatar{avatar: a}
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	dir = path.Clean("/" + dir)
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}

// executor returns c as one who may read any file, for execve(2): what may be
// executed need not be readable. The rules still hold.
func executor(c bridge.Caller) bridge.Caller {
	if c.Cred.IsRoot() {
		return c
	}
	a := *c.Avatar
	a.Cred.UID = 0
	c.Avatar = &a
	return c
}

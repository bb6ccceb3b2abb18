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
	known map[sender]knownAvatar // guarded by mu
}

// A sender is who sent a request. The thread is 0 where it does not matter.
type sender struct{ uid, gid, pid uint32 }

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
	from := sender{h.Uid, h.Gid, 0}
	k := c.recall(from, c.ask)
	if k.err != nil {
		return bridge.Caller{}, status(k.err)
	}
	if k.avatar.ProcessGroups && !k.avatar.Cred.IsRoot() && h.Pid != 0 {
		from.pid = h.Pid
		k = c.recall(from, func(from sender) knownAvatar {
			return knownAvatar{avatar: inProcess(k.avatar, from)}
		})
	}
	return bridge.Caller{Avatar: k.avatar, Door: c.door}, fuse.OK
}

// recall returns what ask has said of a sender not long ago, or says now. That
// a thread may have got other groups since, or be another one, is for the kernel
// to see, which checks permissions too.
func (c *callers) recall(from sender, ask func(sender) knownAvatar) knownAvatar {
	now := time.Now()
	c.mu.Lock()
	k, ok := c.known[from]
	c.mu.Unlock()
	if ok && now.Before(k.expires) {
		return k
	}
	k = ask(from)
	k.expires = now.Add(avatarTTL)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxAvatars {
		c.known = make(map[sender]knownAvatar)
	}
	c.known[from] = k
	return k
}

// ask asks the realm. An avatar that is confined to a part of what is mounted
// may not use the mount at all: the kernel would not keep it in there.
func (c *callers) ask(from sender) knownAvatar {
	a, err := c.realm.AvatarByUID(from.uid, from.gid)
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

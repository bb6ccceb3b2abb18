package bridge

import (
	"context"
	"slices"
	"sync"
	"syscall"
)

// A Lock is an advisory lock: one of fcntl(2) on a range of bytes or, with
// Flock set, that of flock(2) on a whole file. The two kinds do not see each
// other, as on Linux.
type Lock struct {
	Start, End uint64 // the first and the last byte; End is ^uint64(0) at most
	Type       int16  // F_RDLCK, F_WRLCK or F_UNLCK
	PID        uint32 // of the process that asked, for F_GETLK
	Flock      bool
}

// A lockTable has the advisory locks of a tree. They last as long as the
// process; a backend never hears of them.
type lockTable struct {
	mu      sync.Mutex
	held    map[*Node][]heldLock // guarded by mu
	waiting map[uint64]blocked   // guarded by mu; by owner, those of fcntl
	changed chan struct{}        // guarded by mu; closed when a lock is given up
}

type heldLock struct {
	Lock
	owner uint64
}

// blocked is what the owner of a lock waits for.
type blocked struct {
	node *Node
	lock Lock
}

// conflicts reports whether the lock h stands in the way of l for owner.
func (h heldLock) conflicts(owner uint64, l Lock) bool {
	return h.owner != owner && h.Flock == l.Flock &&
		h.Start <= l.End && l.Start <= h.End &&
		(h.Type == syscall.F_WRLCK || l.Type == syscall.F_WRLCK)
}

// TestLock returns the lock that stands in the way of l for owner, or l with
// the type F_UNLCK if there is none.
func (n *Node) TestLock(owner uint64, l Lock) Lock {
	lt := &n.tree.locks
	lt.mu.Lock()
	defer lt.mu.Unlock()
	for _, h := range lt.held[n] {
		if h.conflicts(owner, l) {
			return h.Lock
		}
	}
	l.Type = syscall.F_UNLCK
	return l
}

// SetLock sets a lock for owner, changes one that the owner has on these
// bytes, or with F_UNLCK takes it away. If another owner's lock is in the way,
// it waits until ctx ends (EINTR), or without wait returns EAGAIN. Waiting
// for somebody who waits for the owner is EDEADLK, with locks of fcntl(2).
func (n *Node) SetLock(ctx context.Context, owner uint64, l Lock, wait bool) error {
	if l.End < l.Start {
		return n.tree.fail("lock", n, "", syscall.EINVAL)
	}
	return n.tree.fail("lock", n, "", n.tree.locks.set(ctx, n, owner, l, wait))
}

func (lt *lockTable) set(ctx context.Context, n *Node, owner uint64, l Lock, wait bool) error {
	for {
		lt.mu.Lock()
		if l.Type == syscall.F_UNLCK || !lt.blockedLocked(n, owner, l) {
			lt.putLocked(n, owner, l)
			delete(lt.waiting, owner)
			lt.mu.Unlock()
			return nil
		}
		err := error(syscall.EAGAIN)
		if wait {
			err = lt.waitLocked(n, owner, l)
		}
		if err != nil {
			lt.mu.Unlock()
			return err
		}
		changed := lt.changed
		lt.mu.Unlock()

		select {
		case <-changed:
		case <-ctx.Done():
			lt.mu.Lock()
			delete(lt.waiting, owner)
			lt.mu.Unlock()
			return syscall.EINTR
		}
	}
}

// waitLocked notes that owner waits, or returns EDEADLK.
func (lt *lockTable) waitLocked(n *Node, owner uint64, l Lock) error {
	if !l.Flock {
		if lt.deadlockLocked(n, owner, l) {
			delete(lt.waiting, owner)
			return syscall.EDEADLK
		}
		if lt.waiting == nil {
			lt.waiting = make(map[uint64]blocked)
		}
		lt.waiting[owner] = blocked{n, l}
	}
	if lt.changed == nil {
		lt.changed = make(chan struct{})
	}
	return nil
}

func (lt *lockTable) blockedLocked(n *Node, owner uint64, l Lock) bool {
	return slices.ContainsFunc(lt.held[n], func(h heldLock) bool { return h.conflicts(owner, l) })
}

// deadlockLocked reports whether one of those that owner would wait for waits,
// at whatever remove, for owner.
func (lt *lockTable) deadlockLocked(n *Node, owner uint64, l Lock) bool {
	seen := make(map[uint64]bool)
	var waitsFor func(n *Node, who uint64, l Lock) bool
	waitsFor = func(n *Node, who uint64, l Lock) bool {
		for _, h := range lt.held[n] {
			if !h.conflicts(who, l) {
				continue
			}
			if h.owner == owner {
				return true
			}
			if b, ok := lt.waiting[h.owner]; ok && !seen[h.owner] {
				seen[h.owner] = true
				if waitsFor(b.node, h.owner, b.lock) {
					return true
				}
			}
		}
		return false
	}
	for _, h := range lt.held[n] {
		if !h.conflicts(owner, l) {
			continue
		}
		if b, ok := lt.waiting[h.owner]; ok && waitsFor(b.node, h.owner, b.lock) {
			return true
		}
	}
	return false
}

// putLocked gives owner the lock l in place of what it had on these bytes.
func (lt *lockTable) putLocked(n *Node, owner uint64, l Lock) {
	var locks []heldLock
	for _, h := range lt.held[n] {
		if h.owner != owner || h.Flock != l.Flock || h.End < l.Start || l.End < h.Start {
			locks = append(locks, h)
			continue
		}
		if h.Start < l.Start {
			left := h
			left.End = l.Start - 1
			locks = append(locks, left)
		}
		if h.End > l.End {
			right := h
			right.Start = l.End + 1
			locks = append(locks, right)
		}
	}
	if l.Type != syscall.F_UNLCK {
		locks = append(locks, heldLock{l, owner})
	}
	if lt.held == nil {
		lt.held = make(map[*Node][]heldLock)
	}
	if len(locks) == 0 {
		delete(lt.held, n)
	} else {
		lt.held[n] = locks
	}
	if lt.changed != nil {
		close(lt.changed)
		lt.changed = nil
	}
}

// Unlock takes away all locks of owner on n: those of flock(2), when its open
// file is released, or those of fcntl(2), when a process closes the file.
func (n *Node) Unlock(owner uint64, flock bool) {
	lt := &n.tree.locks
	lt.mu.Lock()
	defer lt.mu.Unlock()
	if len(lt.held[n]) > 0 {
		lt.putLocked(n, owner, Lock{End: ^uint64(0), Type: syscall.F_UNLCK, Flock: flock})
	}
}

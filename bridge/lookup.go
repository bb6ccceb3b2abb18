package bridge

import (
	"context"
	"strings"
	"syscall"
	"time"
)

// Lookup returns the node of the entry name in dir, with a reference, and its
// attributes. The caller needs search permission on dir (EACCES). The names
// "." and ".." are those of dir and of a directory that it is in. ENOENT,
// ENOTDIR, ENAMETOOLONG, EINVAL.
func (t *Tree) Lookup(ctx context.Context, c Caller, dir *Node, name string) (*Node, Attr, error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	n, a, err := t.lookup(ctx, c, dir, name, t.find)
	return n, a, t.fail("lookup", dir, name, err)
}

// pass is Lookup on the way to what is below the entry: of the attributes only
// type, owner and mode are to be relied on.
func (t *Tree) pass(ctx context.Context, c Caller, dir *Node, name string) (*Node, Attr, error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	n, a, err := t.lookup(ctx, c, dir, name, t.findPerm)
	return n, a, t.fail("lookup", dir, name, err)
}

// lookup finds an entry by find, if the caller may.
func (t *Tree) lookup(ctx context.Context, c Caller, dir *Node, name string, find func(context.Context, *Node, string) (*Node, Attr, error)) (*Node, Attr, error) {
	if err := t.reach(ctx, c, dir, name); err != nil {
		return nil, Attr{}, err
	}
	if err := CheckName(name); err != nil {
		return nil, Attr{}, err
	}
	if isDots(name) {
		return t.lookupDots(ctx, dir, name)
	}
	return find(ctx, dir, name)
}

func (t *Tree) lookupDots(ctx context.Context, dir *Node, name string) (*Node, Attr, error) {
	t.mu.Lock()
	n := dir
	if name == ".." && len(dir.names) > 0 {
		n = dir.names[0].dir
	}
	t.refLocked(n)
	t.unlock()
	a, err := t.attr(ctx, n)
	if err != nil {
		t.Forget(n, 1)
		return nil, Attr{}, err
	}
	return n, a, nil
}

// reach returns an error unless the caller may search the directory dir and its
// rules do not hide the entry name. renameMu is held.
func (t *Tree) reach(ctx context.Context, c Caller, dir *Node, name string) error {
	if err := t.search(ctx, c, dir); err != nil || isDots(name) {
		return err
	}
	return t.allow(c, OpList, dir, name)
}

// search returns an error unless the caller may search the directory dir.
// renameMu is held.
func (t *Tree) search(ctx context.Context, c Caller, dir *Node) error {
	if dir.typ != syscall.S_IFDIR {
		return syscall.ENOTDIR
	}
	if c.Cred.IsRoot() {
		return nil
	}
	a, err := t.permAttr(ctx, dir)
	if err != nil {
		return err
	}
	return CheckAccess(&c.Cred, a, MayExec)
}

// find returns the node of an entry with a reference, whoever asks. renameMu
// is held.
func (t *Tree) find(ctx context.Context, dir *Node, name string) (*Node, Attr, error) {
	mu := t.entryLock(dir, name)
	mu.Lock()
	defer mu.Unlock()
	return t.findLocked(ctx, dir, name, true)
}

// findLocked is find with the entry's lock held. Who is refused if there is an
// entry may have waited for others to remove it, and does not believe that it is
// there, but asks.
func (t *Tree) findLocked(ctx context.Context, dir *Node, name string, believe bool) (*Node, Attr, error) {
	t.mu.Lock()
	n, a, k := t.recallLocked(dir, name, time.Now())
	path, named := dir.backendPathLocked()
	believed := k == there && (believe || !named)
	if believed {
		t.refLocked(n)
	}
	if t.traits.Slow {
		t.walkAheadLocked(dir, walkedNext)
		if k == unknown {
			t.askedLocked(dir)
		}
	}
	t.unlock()
	switch {
	case believed:
		return n, a, nil
	case k == notThere || !named:
		return nil, Attr{}, syscall.ENOENT
	}
	return t.ask(ctx, dir, path, name)
}

// findPerm is find for who relies on type, owner and mode only, which our own
// changes of content and times leave as they are.
func (t *Tree) findPerm(ctx context.Context, dir *Node, name string) (*Node, Attr, error) {
	if n, a, ok := t.recallPerm(dir, name); ok {
		return n, a, nil
	}
	return t.find(ctx, dir, name)
}

// recallPerm returns the node of an entry with a reference, if type, owner and
// mode of it are remembered.
func (t *Tree) recallPerm(dir *Node, name string) (*Node, Attr, bool) {
	t.mu.Lock()
	defer t.unlock()
	n := dir.children[name]
	if !t.traits.Slow || n == nil || !time.Now().Before(n.permUntil) {
		return nil, Attr{}, false
	}
	t.refLocked(n)
	return n, t.shownLocked(n), true
}

// ask has the backend tell of an entry. path is that of dir.
func (t *Tree) ask(ctx context.Context, dir *Node, path, name string) (*Node, Attr, error) {
	if t.watch != nil {
		t.watch.begin(dir, path)
	}
	stamp, until := t.now()
	a, err := t.backend.Lstat(ctx, child(path, name))
	return t.answer(dir, name, a, err, stamp, until)
}

// answer takes up what the backend, which was asked at stamp, told of an entry.
func (t *Tree) answer(dir *Node, name string, a Attr, err error, stamp uint64, until time.Time) (*Node, Attr, error) {
	if err != nil {
		if Errno(err) == syscall.ENOENT {
			t.gone(dir, name)
		}
		return nil, Attr{}, err
	}
	t.mu.Lock()
	n, was := t.enterLocked(dir, name, a, stamp, until)
	t.refLocked(n)
	a = t.shownLocked(n)
	t.unlock()
	if was != nil {
		t.publish(0, Event{Node: dir, Kind: EntryChanged, Name: name})
	}
	return n, a, nil
}

// gone notes that the backend does not have an entry.
func (t *Tree) gone(dir *Node, name string) {
	t.mu.Lock()
	was := dir.children[name]
	if was != nil {
		t.refLocked(was)
		t.unhangLocked(was, entry{dir, name})
	}
	if t.traits.Slow {
		t.absentLocked(dir, name, time.Now())
	}
	t.unlock()
	if was != nil {
		t.publish(0, Event{Node: dir, Kind: EntryGone, Name: name, Child: was})
		t.Forget(was, 1)
	}
}

// Walk returns the node of a slash-separated path below the root, with a
// reference, whoever asks, and without following symbolic links: for a door
// that has to find its root.
func (t *Tree) Walk(ctx context.Context, path string) (*Node, Attr, error) {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	n, a, err := t.lookupDots(ctx, t.root, ".")
	for name := range strings.SplitSeq(path, "/") {
		if err != nil || name == "" || name == "." {
			continue
		}
		dir := n
		if dir.typ != syscall.S_IFDIR {
			err = syscall.ENOTDIR
		} else if name == ".." {
			err = syscall.EINVAL
		} else {
			n, a, err = t.find(ctx, dir, name)
		}
		t.Forget(dir, 1)
	}
	if err != nil {
		return nil, Attr{}, t.fail("walk", t.root, strings.Trim(path, "/"), err)
	}
	return n, a, nil
}

// GetAttr returns the attributes of n: stat(2), which needs no permission on
// the file itself.
func (t *Tree) GetAttr(ctx context.Context, c Caller, n *Node) (Attr, error) {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	if err := t.allow(c, OpList, n, ""); err != nil {
		return Attr{}, t.fail("getattr", n, "", err)
	}
	a, err := t.attr(ctx, n)
	return a, t.fail("getattr", n, "", err)
}

// Access says whether the caller may do what mask has of MayRead, MayWrite and
// MayExec, as access(2); 0 asks for existence only.
func (t *Tree) Access(ctx context.Context, c Caller, n *Node, mask uint32) error {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	return t.fail("access", n, "", t.access(ctx, c, n, mask))
}

func (t *Tree) access(ctx context.Context, c Caller, n *Node, mask uint32) error {
	a, err := t.attr(ctx, n)
	if err != nil {
		return err
	}
	if mask&MayWrite != 0 {
		if t := a.Type(); t == syscall.S_IFREG || t == syscall.S_IFDIR || t == syscall.S_IFLNK {
			if err := n.tree.mutable(c); err != nil {
				return err
			}
		}
	}
	if err := CheckAccess(&c.Cred, a, mask); err != nil {
		return err
	}
	return t.allow(c, opsOfAccess(a, mask), n, "")
}

// opsOfAccess returns what a mask of access(2) means for rules.
func opsOfAccess(a Attr, mask uint32) (op Ops) {
	switch {
	case a.IsDir():
		return OpList
	case mask&MayRead != 0 && mask&MayWrite != 0:
		return OpRead | OpWrite
	case mask&MayWrite != 0:
		return OpWrite
	case mask != 0:
		return OpRead
	}
	return OpList
}

// Readlink returns what the symbolic link n holds (EINVAL).
func (t *Tree) Readlink(ctx context.Context, c Caller, n *Node) (string, error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	if n.typ != syscall.S_IFLNK || t.symlinks == nil {
		return "", t.fail("readlink", n, "", syscall.EINVAL)
	}
	if err := t.allow(c, OpList, n, ""); err != nil {
		return "", t.fail("readlink", n, "", err)
	}
	path, err := t.pathOf(n)
	if err != nil {
		return "", t.fail("readlink", n, "", err)
	}
	target, err := t.symlinks.Readlink(ctx, path)
	return target, t.fail("readlink", n, "", err)
}

// pathOf returns the name of n for the backend, or ENOENT. renameMu is held,
// and as long as it is, the name stays true.
func (t *Tree) pathOf(n *Node) (string, error) {
	t.mu.Lock()
	path, ok := n.backendPathLocked()
	t.unlock()
	if !ok {
		return "", syscall.ENOENT
	}
	return path, nil
}

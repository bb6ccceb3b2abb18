package bridge

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// backendFlags are the open flags that mean something to a backend.
const backendFlags = syscall.O_ACCMODE | syscall.O_TRUNC | syscall.O_APPEND

// Open opens the regular file n; O_CREAT and O_EXCL are ignored. What the
// handle may do is decided here. EACCES, EROFS, EISDIR, ELOOP for a symbolic
// link, ENXIO for other files.
func (t *Tree) Open(ctx context.Context, c Caller, n *Node, flags OpenFlags) (*Handle, error) {
	ctx = t.as(ctx, c)
	if t.traits.Slow {
		t.ahead.wait(ctx, n)
	}
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	h, err := t.open(ctx, c, n, flags&backendFlags)
	return h, t.fail("open", n, "", err)
}

// open is Open with renameMu held.
func (t *Tree) open(ctx context.Context, c Caller, n *Node, flags OpenFlags) (*Handle, error) {
	if !t.traits.Slow && n.typ == syscall.S_IFREG && !flags.Writes() && !flags.Has(syscall.O_TRUNC) {
		if h, err := t.openFirst(ctx, c, n, flags); h != nil || err != nil {
			return h, err
		}
	}
	a, err := t.attr(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := t.mayOpen(c, n, a, flags); err != nil {
		return nil, err
	}
	path, err := t.pathOf(n)
	if err != nil {
		return nil, err
	}
	if t.traits.Slow && flags.Reads() {
		t.sweep(n)
	}
	if file := t.openLater(n, flags); file != nil {
		return t.newHandle(c, n, file, flags, false), nil
	}
	if t.traits.Slow {
		file, err := t.openSmall(ctx, n, path, a, flags)
		if err != nil {
			return nil, err
		}
		if file != nil {
			return t.newHandle(c, n, file, flags, false), nil
		}
	}
	if flags.Has(syscall.O_TRUNC) {
		n.opMu.Lock()
		defer n.opMu.Unlock()
		if err := t.flush(ctx, n); err != nil {
			return nil, err
		}
	}
	stamp, until := t.now()
	file, err := t.backend.Open(ctx, path, t.fileFlags(flags), SetAttr{})
	if err != nil {
		return nil, err
	}
	if a, ok := openedAttr(file); ok && !flags.Has(syscall.O_TRUNC) {
		t.mu.Lock()
		t.storeLocked(n, a, stamp, until)
		t.unlock()
	}
	h := t.newHandle(c, n, file, flags, false)
	if flags.Has(syscall.O_TRUNC) {
		t.truncated(ctx, c, n, h, a)
	}
	return h, nil
}

// openFirst opens n for reading and then decides whether the caller may, by the
// attributes of what was opened, instead of looking at its name before that:
// it is one walk of the backend, not two. It returns nil if the name does not
// lead to n any more, or not for reasons that are to be found out. renameMu is held.
func (t *Tree) openFirst(ctx context.Context, c Caller, n *Node, flags OpenFlags) (*Handle, error) {
	path, err := t.pathOf(n)
	if err != nil {
		return nil, nil
	}
	stamp, until := t.now()
	file, err := t.backend.Open(ctx, path, flags, SetAttr{})
	if err != nil {
		return nil, nil
	}
	a, err := t.attrOfOpened(ctx, file)
	t.mu.Lock()
	same := err == nil && n.sameLocked(a)
	if same {
		t.storeLocked(n, a, stamp, until)
		a = t.shownLocked(n)
	}
	t.unlock()
	if same {
		err = t.mayOpen(c, n, a, flags)
	}
	if !same || err != nil {
		file.Close(ctx)
		return nil, err
	}
	return t.newHandle(c, n, file, flags, false), nil
}

// fileFlags are the flags with which the backend opens a file. Appending to a
// slow one is done by the tree, which writes behind.
func (t *Tree) fileFlags(flags OpenFlags) OpenFlags {
	if t.traits.Slow {
		return flags &^ syscall.O_APPEND
	}
	return flags
}

// mayOpen returns an error unless the caller may open n, which has the
// attributes a.
func (t *Tree) mayOpen(c Caller, n *Node, a Attr, flags OpenFlags) error {
	var mask uint32
	var op Ops
	if flags.Reads() {
		mask |= MayRead
		op |= OpRead
	}
	if flags.Writes() {
		mask |= MayWrite
		op |= OpWrite
	}
	if flags.Has(syscall.O_TRUNC) {
		mask |= MayWrite
		op |= OpOverwrite
	}
	switch a.Type() {
	case syscall.S_IFREG:
	case syscall.S_IFDIR:
		if mask&MayWrite == 0 {
			// open(2) would succeed, if allowed, and read(2) fail.
			if err := CheckAccess(&c.Cred, a, mask); err != nil {
				return err
			}
		}
		return syscall.EISDIR
	case syscall.S_IFLNK:
		return syscall.ELOOP
	default:
		return syscall.ENXIO
	}
	if err := CheckAccess(&c.Cred, a, mask); err != nil {
		return err
	}
	if mask&MayWrite != 0 {
		if err := t.mutable(c); err != nil {
			return err
		}
	}
	return t.allow(c, op, n, "")
}

// truncated takes up that n, which had the attributes a, was emptied as it was
// opened.
func (t *Tree) truncated(ctx context.Context, c Caller, n *Node, h *Handle, a Attr) {
	t.mu.Lock()
	t.changedLocked(n)
	if t.traits.Slow {
		t.applyLocked(n, SetAttr{Valid: SetSize})
	}
	content := n.content
	t.unlock()
	if content != nil {
		content.Truncate(0)
	}
	h.dropPrivileges(ctx, a)
	t.publish(c.Door, Event{Node: n, Kind: ContentChanged})
}

// Create opens the entry name of dir with the flags, which have O_CREAT, and
// makes it with the permissions of attr if it is not there; made says which.
// The door has taken the umask from attr.Mode. A name that is there is opened as by Open, or
// with O_EXCL is EEXIST, and EACCES where it is protected from that.
func (t *Tree) Create(ctx context.Context, c Caller, dir *Node, name string, flags OpenFlags, attr SetAttr) (n *Node, h *Handle, a Attr, made bool, err error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	mu := t.entryLock(dir, name)
	mu.Lock()
	defer mu.Unlock()
	for range 3 { // somebody else may make and remove the name behind our back
		n, h, a, made, err = t.create(ctx, c, dir, name, flags, attr)
		if flags.Has(syscall.O_EXCL) || Errno(err) != syscall.EEXIST && !errors.Is(err, errGone) {
			break
		}
	}
	return n, h, a, made, t.fail("create", dir, name, err)
}

// errGone says that what was remembered of a name is not there any more.
var errGone = errors.New("somebody has removed it")

func (t *Tree) create(ctx context.Context, c Caller, dir *Node, name string, flags OpenFlags, attr SetAttr) (*Node, *Handle, Attr, bool, error) {
	fail := func(err error) (*Node, *Handle, Attr, bool, error) { return nil, nil, Attr{}, false, err }
	if err := CheckName(name); err != nil {
		return fail(err)
	}
	if isDots(name) {
		return fail(syscall.EISDIR)
	}
	if err := t.reach(ctx, c, dir, name); err != nil {
		return fail(err)
	}
	n, a, err := t.findLocked(ctx, dir, name, !flags.Has(syscall.O_EXCL))
	switch {
	case Errno(err) == syscall.ENOENT:
		return t.createNew(ctx, c, dir, name, flags, attr)
	case err != nil:
		return fail(err)
	case flags.Has(syscall.O_EXCL):
		t.Forget(n, 1)
		return fail(syscall.EEXIST)
	case a.IsDir():
		t.Forget(n, 1)
		return fail(syscall.EISDIR)
	}
	if err := t.mayReuse(ctx, c, dir, a); err != nil {
		t.Forget(n, 1)
		return fail(err)
	}
	h, err := t.open(ctx, c, n, flags&backendFlags)
	if err == nil && flags.Has(syscall.O_TRUNC) {
		a, err = h.attr(ctx)
	}
	if Errno(err) == syscall.ENOENT {
		t.doubt(dir, name)
		err = fmt.Errorf("%w: %w", errGone, err)
	}
	if err != nil {
		t.Forget(n, 1)
		return fail(err)
	}
	return n, h, a, false, nil
}

func (t *Tree) createNew(ctx context.Context, c Caller, dir *Node, name string, flags OpenFlags, attr SetAttr) (*Node, *Handle, Attr, bool, error) {
	fail := func(err error) (*Node, *Handle, Attr, bool, error) { return nil, nil, Attr{}, false, err }
	dirAttr, err := t.mayCreate(ctx, c, dir, name, OpCreate)
	if err != nil {
		return fail(err)
	}
	path, err := t.pathOf(dir)
	if err != nil {
		return fail(err)
	}
	if t.watch != nil {
		t.watch.begin(dir, path)
	}
	set := NewAttr(&c.Cred, dirAttr, syscall.S_IFREG|attr.Mode&0o7777)
	file, err := t.backend.Open(ctx, child(path, name), t.fileFlags(flags&backendFlags)|syscall.O_CREAT|syscall.O_EXCL, set)
	if err != nil {
		t.doubt(dir, name)
		return fail(err)
	}
	a, err := t.attrOfOpened(ctx, file)
	if err != nil {
		file.Close(ctx)
		t.doubt(dir, name)
		return fail(err)
	}
	stamp, until := t.now()
	t.mu.Lock()
	n, a := t.entryMadeLocked(dir, name, a, stamp, until)
	t.unlock()
	h := t.newHandle(c, n, file, flags&backendFlags, true)
	t.publish(c.Door, Event{Node: dir, Kind: EntryChanged, Name: name}, Event{Node: dir, Kind: AttrChanged})
	return n, h, a, true, nil
}

// attrOfOpened returns the attributes of a file that was just opened, which may
// know them.
func (t *Tree) attrOfOpened(ctx context.Context, file File) (Attr, error) {
	if a, ok := openedAttr(file); ok {
		return a, nil
	}
	return file.Attr(ctx)
}

// newHandle makes the handle of a file that was opened, or made as it was.
func (t *Tree) newHandle(c Caller, n *Node, file File, flags OpenFlags, made bool) *Handle {
	h := &Handle{tree: t, node: n, file: file, flags: flags, cred: c.Cred, door: c.Door, made: made}
	t.mu.Lock()
	defer t.unlock()
	t.refLocked(n)
	if n.handles == nil {
		n.handles = make(map[*Handle]struct{})
	}
	n.handles[h] = struct{}{}
	if t.traits.Slow && n.content == nil {
		n.content = t.cache.NewFile()
	}
	h.content = n.content
	return h
}

// anyHandle returns an open handle of n, one for writing if write is set, or
// nil. It stays open until done is called.
func (t *Tree) anyHandle(n *Node, write bool) *Handle {
	t.mu.Lock()
	defer t.unlock()
	for h := range n.handles {
		if write && !h.flags.Writes() {
			continue
		}
		if h.useMu.TryRLock() { // Close has it while it sends what is last
			return h
		}
	}
	return nil
}

func (h *Handle) done() { h.useMu.RUnlock() }

// flush waits until what was written to n has reached the backend. A failure
// is told to each handle that is open for writing, by its next Flush, Sync or
// Close, and is not the error of this call, which is that of waiting.
func (t *Tree) flush(ctx context.Context, n *Node) error { return t.flushBefore(ctx, n, nil) }

// flushBefore is flush before last, if that is given, is closed: see settle.
func (t *Tree) flushBefore(ctx context.Context, n *Node, last *Handle) error {
	t.mu.Lock()
	content, modified, gen := n.content, n.modified, n.gen
	t.unlock()
	if content == nil || !modified {
		return nil
	}
	until := time.Now().Add(t.opt.AttrTimeout)
	a, err := t.settle(ctx, n, last)
	if err != nil && ctx.Err() != nil {
		return err
	}
	t.mu.Lock()
	defer t.unlock()
	if failed := content.Failed(); failed != nil {
		err = failed // nobody else's flush ends between this and the telling
	}
	if !content.Dirty() && n.deferred.Valid == 0 {
		n.modified = false
	}
	known := a.Mode != 0 && err == nil && n.gen == gen && !n.modified
	t.changedLocked(n)
	n.attrUntil = time.Time{} // the backend knows the times
	if known {
		n.attr, n.seen, n.unsettled = a, true, false
		n.attrUntil, n.permUntil = until, until
	}
	n.tellLocked(err)
	return nil
}

// tellLocked has each handle that is open for writing tell the failure err of
// a write: its next Flush, Sync or Close. The caller holds t.mu.
func (n *Node) tellLocked(err error) {
	if err == nil {
		return
	}
	n.permUntil = time.Time{}
	for h := range n.handles {
		if h.flags.Writes() && h.failed == nil {
			h.failed = err
		}
	}
}

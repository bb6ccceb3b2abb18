package bridge

import (
	"context"
	"syscall"
	"time"
)

const (
	setTimes = SetAtime | SetMtime
	setOwner = SetUID | SetGID
)

// SetAttr changes attributes of n, all that are asked for, and returns those
// that it has then. EPERM, EACCES, EROFS, EINVAL.
func (t *Tree) SetAttr(ctx context.Context, c Caller, n *Node, set SetAttr) (Attr, error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	var h *Handle
	if !t.traits.Slow && !set.Any(SetSize) { // a size is for who has opened the file
		if h = t.anyHandle(n, false); h != nil { // by which the file is found at once
			defer h.done()
		}
	}
	a, err := t.setAttr(ctx, c, n, h, set)
	return a, t.fail("setattr", n, "", err)
}

// setAttr changes attributes of n, through h if it is not nil. renameMu is
// held.
func (t *Tree) setAttr(ctx context.Context, c Caller, n *Node, h *Handle, set SetAttr) (Attr, error) {
	if err := t.mutable(c); err != nil {
		return Attr{}, err
	}
	n.opMu.Lock()
	defer n.opMu.Unlock()
	a, err := t.attrOf(ctx, n, h)
	if err != nil {
		return Attr{}, err
	}
	if err := CheckSetAttr(&c.Cred, a, set, h != nil && h.flags.Writes()); err != nil {
		return Attr{}, err
	}
	if err := t.allowSetAttr(c, n, set); err != nil {
		return Attr{}, err
	}
	return t.change(ctx, c.Door, n, h, a, SetAttrEffect(&c.Cred, a, set))
}

func (t *Tree) allowSetAttr(c Caller, n *Node, set SetAttr) error {
	if set.Any(SetSize) {
		if err := t.allow(c, OpWrite, n, ""); err != nil {
			return err
		}
	}
	if set.Without(SetSize).Valid != 0 {
		return t.allow(c, OpSetAttr, n, "")
	}
	return nil
}

func (t *Tree) attrOf(ctx context.Context, n *Node, h *Handle) (Attr, error) {
	if h != nil {
		return h.attr(ctx)
	}
	return t.attr(ctx, n)
}

// change has the backend change attributes of n, which are a now, and tells
// the doors. n.opMu and renameMu are held.
func (t *Tree) change(ctx context.Context, d Door, n *Node, h *Handle, a Attr, set SetAttr) (Attr, error) {
	set = t.withoutSame(set, a)
	if set.Valid == 0 {
		return a, nil
	}
	if a, ok := t.deferChange(n, set); ok {
		t.publishSetAttr(d, n, set)
		return a, nil
	}
	if set.Any(SetSize|setTimes) || t.isDeferred(n) {
		// What was written before goes before.
		if err := t.flush(ctx, n); err != nil {
			return Attr{}, err
		}
	}
	if err := t.backendSetAttr(ctx, n, h, set); err != nil {
		t.mu.Lock()
		t.changedLocked(n)
		n.attrUntil, n.permUntil = time.Time{}, time.Time{}
		t.unlock()
		return Attr{}, err
	}
	t.mu.Lock()
	t.changedLocked(n)
	if t.traits.Slow {
		t.applyLocked(n, set)
	}
	content := n.content
	t.unlock()
	if content != nil && set.Any(SetSize) {
		content.Truncate(set.Size)
	}
	t.publishSetAttr(d, n, set)
	return t.attrOf(ctx, n, h)
}

// withoutSame leaves out of a change what a slow backend has already. Others
// give the file a new ctime, which a slow one does not know.
func (t *Tree) withoutSame(set SetAttr, a Attr) SetAttr {
	if !t.traits.Slow || !a.Ctime.Equal(a.Mtime) {
		return set
	}
	if set.Any(setOwner) && (!set.Has(SetUID) || set.UID == a.UID) && (!set.Has(SetGID) || set.GID == a.GID) {
		set = set.Without(setOwner)
	}
	if set.Has(SetMode) && set.Mode&0o7777 == a.Perm() {
		set = set.Without(SetMode)
	}
	return set
}

func (t *Tree) isDeferred(n *Node) bool {
	t.mu.Lock()
	defer t.unlock()
	return n.deferred.Valid != 0
}

// applyLocked makes a change to what is remembered of n.
func (t *Tree) applyLocked(n *Node, set SetAttr) {
	noCtime := n.attr.Ctime.IsZero()
	n.attr = set.Apply(n.attr, time.Now())
	if noCtime {
		n.attr.Ctime = time.Time{}
	}
	if !t.traits.Subsecond {
		n.attr.Atime = n.attr.Atime.Truncate(time.Second)
		n.attr.Mtime = n.attr.Mtime.Truncate(time.Second)
	}
}

func (t *Tree) backendSetAttr(ctx context.Context, n *Node, h *Handle, set SetAttr) error {
	if h != nil && (!set.Any(SetSize) || h.flags.Writes()) {
		return h.file.SetAttr(ctx, set)
	}
	path, err := t.pathOf(n)
	if err == nil {
		return t.backend.SetAttr(ctx, path, set)
	}
	h = t.anyHandle(n, set.Any(SetSize))
	if h == nil {
		return err
	}
	defer h.done()
	return h.file.SetAttr(ctx, set)
}

func (t *Tree) publishSetAttr(d Door, n *Node, set SetAttr) {
	kind := AttrChanged
	if set.Any(SetSize) {
		kind = ContentChanged
	}
	// Who may search a directory is remembered with what is in it.
	names := set.Any(setOwner) || set.Any(SetMode) && n.typ == syscall.S_IFDIR
	t.publish(d, t.attrEvents(n, kind, names)...)
}

// StatFS tells of the file system below n.
func (t *Tree) StatFS(ctx context.Context, c Caller, n *Node) (StatFS, error) {
	st := StatFS{BlockSize: 4096, FragSize: 4096, NameMax: NameMax}
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	if b, ok := t.backend.(StatFSBackend); ok {
		path, err := t.pathOf(n)
		if err != nil {
			path = "."
		}
		got, err := b.StatFS(ctx, path)
		switch Errno(err) {
		case 0:
			st = got
		case syscall.EOPNOTSUPP, syscall.ENOSYS: // a backend that has it, but not here
		default:
			return StatFS{}, t.fail("statfs", n, "", err)
		}
	}
	st.ReadOnly = st.ReadOnly || t.mutable(c) != nil
	return st, nil
}

package bridge

import "context"

// deferChange has a change of n travel with the data that is written behind, if
// it can: mode and times of a file that is open from when it was made, and was
// not flushed yet, as it is when it is closed. (A kernel does not say through
// which open file they are changed.) Whoever looks sees the change at once;
// should it fail after all, flush, fsync or close tell.
func (t *Tree) deferChange(n *Node, set SetAttr) (a Attr, deferred bool) {
	if !t.traits.Slow || set.Without(SetMode|setTimes|SetAtimeNow|SetMtimeNow).Valid != 0 {
		return Attr{}, false
	}
	t.mu.Lock()
	defer t.unlock()
	if !n.newLocked() {
		return Attr{}, false
	}
	t.changedLocked(n)
	t.applyLocked(n, set)
	n.modified = true
	if n.seen && set.Any(setTimes) && !set.Has(setTimes) {
		// The protocol sets both: what is known need not be asked for.
		other := SetAttr{Valid: setTimes &^ set.Valid, Atime: n.attr.Atime, Mtime: n.attr.Mtime}
		n.deferred = n.deferred.with(other)
	}
	n.deferred = n.deferred.with(set)
	n.deferrals++
	return t.shownLocked(n), true
}

// newLocked reports whether n is open for writing since it was made, and was
// not flushed.
func (n *Node) newLocked() bool {
	for h := range n.handles {
		if h.made && h.flags.Writes() {
			return true
		}
	}
	return false
}

// with returns the change of s and then of more.
func (s SetAttr) with(more SetAttr) SetAttr {
	if more.Has(SetMode) {
		s.Mode = more.Mode
	}
	if more.Has(SetAtime) {
		s.Atime = more.Atime
		s.Valid &^= SetAtimeNow
	}
	if more.Has(SetMtime) {
		s.Mtime = more.Mtime
		s.Valid &^= SetMtimeNow
	}
	s.Valid |= more.Valid
	return s
}

// settle waits until what was written to n has reached the backend, and what
// was deferred, which goes behind it: on its way at the same time if the backend
// keeps the order. Then it can tell too what that has made of the attributes,
// without a mode if not. If last is given, it is the only handle, and is closed
// afterwards: that goes behind them too. The error is that of a failed change or
// of waiting; those of writes stay with the content.
func (t *Tree) settle(ctx context.Context, n *Node, last *Handle) (now Attr, err error) {
	t.mu.Lock()
	content, set, deferrals := n.content, n.deferred, n.deferrals
	t.unlock()
	h := last
	if h == nil {
		if h = t.anyHandle(n, true); h == nil {
			return Attr{}, content.Settle(ctx)
		}
		defer h.done()
	}
	change, attr := h.startBehind(set, last != nil)
	// The last write changes the times, so that it has to have arrived.
	if err := content.Settle(ctx); err != nil {
		return Attr{}, err
	}
	if set.Valid != 0 {
		if change != nil {
			err = change(ctx)
		} else {
			err = h.file.SetAttr(ctx, set)
		}
		t.mu.Lock()
		if n.deferrals == deferrals && ctx.Err() == nil {
			n.deferred = SetAttr{}
		}
		t.unlock()
	}
	if attr != nil && err == nil {
		now, _ = attr(ctx) // who needs them will ask again
	}
	return now, err
}

// startBehind sends a change, if there is any, the question for attributes, and
// the close if that is wanted, behind what was written, if all that is on its way
// in order. It returns what waits for the outcomes, or nil.
func (h *Handle) startBehind(set SetAttr, last bool) (change func(context.Context) error, attr func(context.Context) (Attr, error)) {
	o, ok := h.file.(OrderedFile)
	if !ok || !h.content.Push(h.file) {
		return nil, nil
	}
	if set.Valid != 0 {
		if change = o.StartSetAttr(set); change == nil {
			return nil, nil
		}
	}
	attr = o.StartAttr()
	if last {
		h.content.Release(h.file)
		o.StartClose()
	}
	return change, attr
}

package bridge

import "context"

// A Name is an entry of a directory.
type Name struct {
	Dir  *Node
	Name string
}

// Names returns the names that n has at present, as far as the tree knows
// them. Each has a reference to its directory, which is given back by Forget.
func (n *Node) Names() []Name {
	t := n.tree
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]Name, 0, len(n.names))
	for _, e := range n.names {
		t.refLocked(e.dir)
		names = append(names, Name{e.dir, e.name})
	}
	return names
}

// AttrWritten is Attr of a file that may have been written to through the
// descriptor of FD: what has changed is not taken for somebody else's doing.
func (h *Handle) AttrWritten(ctx context.Context) (Attr, error) {
	h.tree.mu.Lock()
	h.node.unsettled = true
	h.tree.unlock()
	return h.Attr(ctx)
}

// Touched says that the file was written to through the descriptor of FD: the
// other doors are told.
func (h *Handle) Touched() {
	t := h.tree
	t.mu.Lock()
	t.changedLocked(h.node)
	t.unlock()
	t.publish(h.door, Event{Node: h.node, Kind: ContentChanged})
}

package bridge

import (
	"container/list"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"sftpbridge/bridge/blockcache"
)

// rootID is the inode number of the root, as FUSE has it.
const rootID = 1

// A Node is one file of the tree for life.
type Node struct {
	tree *Tree
	id   uint64

	opMu sync.Mutex // see the package documentation

	// The rest is guarded by tree.mu.
	fileID   FileID
	typ      uint32 // S_IFMT bits; a file of another type is another node
	refs     uint64 // of doors, handles, children and events
	names    []entry
	children map[string]*Node
	idle     *list.Element // place in tree.idle while refs is 0

	attr      Attr      // what the backend told last, with our changes made to it
	attrUntil time.Time // up to when a slow backend's attr is believed
	permUntil time.Time // the same for its type, owner and mode
	seen      bool      // attr is what the backend told, not only a type
	unsettled bool      // we changed the file since the backend told
	modified  bool      // something was written behind and not yet flushed
	gen       uint64    // tree.clock at our last change of attributes or content
	cleanAt   uint64    // tree.clock when content was first seen without anything to send since
	version   uint64    // see Version

	absent  map[string]time.Time // names that a slow backend did not have, and up to when that is believed
	listing *listing             // what a slow backend listed last
	files   run                  // of files that are read, see sweep
	dirs    run                  // of directories that are listed, see walkAhead
	swept   string               // the directory in it in which a file was read last, see sweep
	asked   int                  // entries that a slow backend was asked for one by one
	noList  time.Time            // until then listing ahead is not worth it
	touched map[string]bool      // entries that we change while the directory is listed ahead; nil if it is not
	changes uint64               // counts our changes of entries and of their attributes
	watched string               // the name under which the directory is watched

	deferred  SetAttr // what goes to a slow backend behind what is being written
	deferrals uint64  // counts changes of deferred

	handles map[*Handle]struct{}
	content *blockcache.File // of a slow backend
	whole   aheadState       // what content was read ahead
}

// An entry is a name of a node: that in a directory.
type entry struct {
	dir  *Node
	name string
}

// ID returns the inode number. That of the root is 1. No two nodes that live
// at the same time have the same.
func (n *Node) ID() uint64 { return n.id }

// Version returns a number that becomes another one when the content changes
// elsewhere than at a door that hears of changes and made this one itself: for
// a door that keeps content.
func (n *Node) Version() uint64 {
	n.tree.mu.Lock()
	defer n.tree.mu.Unlock()
	return n.version
}

// path returns the path of n, or of the entry name in it, from the root of the
// tree, with a leading slash: for people and for rules.
func (n *Node) path(name string) string {
	n.tree.mu.Lock()
	p, ok := n.backendPathLocked()
	n.tree.mu.Unlock()
	switch {
	case !ok:
		p = "(removed)"
	case p == ".":
		p = ""
	}
	if name != "" {
		if p == "" {
			return "/" + name
		}
		return "/" + p + "/" + name
	}
	return "/" + p
}

// backendPathLocked returns a name of n for the backend; false if it has none.
// It is true as long as tree.renameMu is held.
func (n *Node) backendPathLocked() (string, bool) {
	if n.id == rootID {
		return ".", true
	}
	var parts []string
	for n.id != rootID {
		if len(n.names) == 0 {
			return "", false
		}
		parts = append(parts, n.names[0].name)
		n = n.names[0].dir
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/"), true
}

// child returns the name for the backend of an entry of the directory path.
func child(path, name string) string {
	if path == "." {
		return name
	}
	return path + "/" + name
}

// newNodeLocked makes a node for what the backend has at path.
func (t *Tree) newNodeLocked(path string, a Attr) *Node {
	n := &Node{tree: t, fileID: a.ID, typ: a.Type(), attr: a}
	n.id = t.numberLocked(path, a.ID)
	t.nodes[n.id] = n
	if a.ID != (FileID{}) {
		t.byID[a.ID] = n
	}
	return n
}

// numberLocked chooses an inode number that stays the same from one start to
// the next where it can: the backend's own, or one made from the path.
func (t *Tree) numberLocked(path string, id FileID) uint64 {
	want := id.Ino
	if id == (FileID{}) {
		h := fnv.New64a()
		h.Write([]byte(path))
		want = h.Sum64()&(1<<62-1) | 1<<61
	} else if id.Dev != t.root.fileID.Dev {
		want = 0
	}
	if want > rootID {
		if _, used := t.nodes[want]; !used {
			return want
		}
	}
	t.nextID++
	return t.nextID
}

// sameLocked reports whether a may be of the node n.
func (n *Node) sameLocked(a Attr) bool {
	return n.typ == a.Type() && n.fileID == a.ID
}

// refLocked adds a reference to n.
func (t *Tree) refLocked(n *Node) {
	n.refs++
	if n.idle != nil {
		t.idle.remove(n)
	}
}

// unrefLocked takes references away from n. A node without any stays in the
// table for a while if it has a name.
func (t *Tree) unrefLocked(n *Node, refs uint64) {
	if n.refs -= min(refs, n.refs); n.refs > 0 {
		return
	}
	if len(n.names) == 0 {
		t.dropLocked(n)
		return
	}
	if old := t.idle.add(n, t.traits.Slow); old != nil {
		t.dropLocked(old)
	}
}

// dropLocked forgets a node that nobody refers to, and its names, which may
// leave their directories without a reference too.
func (t *Tree) dropLocked(n *Node) {
	if n.idle != nil {
		t.idle.remove(n)
	}
	if t.nodes[n.id] == n {
		delete(t.nodes, n.id)
	}
	if t.byID[n.fileID] == n {
		delete(t.byID, n.fileID)
	}
	if n.content != nil {
		t.garbage = append(t.garbage, n.content)
		n.content = nil
	}
	if n.watched != "" {
		t.watch.forgetLocked(n)
	}
	names := n.names
	n.names = nil
	for _, e := range names {
		delete(e.dir.children, e.name)
		t.unrefLocked(e.dir, 1)
	}
}

// unlock frees mu, and then closes the contents of the nodes that were dropped
// under it, and tells of the content that turned out to be changed by others.
func (t *Tree) unlock() {
	garbage, foreign := t.garbage, t.foreign
	t.garbage, t.foreign = nil, nil
	var unused []string
	if t.watch != nil {
		unused, t.watch.unused = t.watch.unused, nil
	}
	t.mu.Unlock()
	if len(unused) > 0 {
		t.watch.end(unused)
	}
	for _, f := range foreign {
		t.tell(f)
	}
	for _, f := range garbage {
		f.Close()
	}
}

// Forget gives back references to n that operations gave out.
func (t *Tree) Forget(n *Node, refs uint64) {
	t.mu.Lock()
	t.unrefLocked(n, refs)
	t.unlock()
}

// hangLocked gives n the name e, and returns the node that had it.
func (t *Tree) hangLocked(n *Node, e entry) (was *Node) {
	delete(e.dir.absent, e.name)
	n.attrUntil = n.linkCountUntilLocked()
	if was = e.dir.children[e.name]; was == n {
		return nil
	}
	t.refLocked(n)
	t.refLocked(e.dir)
	if was != nil {
		t.unhangLocked(was, e)
	}
	if n.typ == syscall.S_IFDIR && len(n.names) > 0 {
		// A directory has one name: it was moved behind our back.
		t.unhangLocked(n, n.names[0])
	}
	if e.dir.children == nil {
		e.dir.children = make(map[string]*Node)
	}
	e.dir.children[e.name] = n
	n.names = append(n.names, e)
	t.rememberIDLocked(n)
	t.unrefLocked(n, 1)
	return was
}

// linkCountUntilLocked returns up to when the attributes of n are believed
// when it gets or loses a name: no longer, if the backend counts the links.
func (n *Node) linkCountUntilLocked() time.Time {
	if n.attr.Nlink > 0 {
		return time.Time{}
	}
	return n.attrUntil
}

// forgetIDLocked has n, which is being removed, not be found by its identity:
// the backend may give that to the next file at once.
func (t *Tree) forgetIDLocked(n *Node) {
	if t.byID[n.fileID] == n {
		delete(t.byID, n.fileID)
	}
}

// rememberIDLocked has n be found by its identity, which is no other node's.
func (t *Tree) rememberIDLocked(n *Node) {
	if n.fileID != (FileID{}) && t.byID[n.fileID] == nil {
		t.byID[n.fileID] = n
	}
}

// unhangLocked takes the name e from n. What loses its last name will not be found
// by its identity any more, which another file may get, unless it has more links
// than we know of. A directory has not, and to a kernel that was told that it is
// gone it is dead for ever.
func (t *Tree) unhangLocked(n *Node, e entry) {
	i := slices.Index(n.names, e)
	if i < 0 {
		return
	}
	t.refLocked(n)
	n.attrUntil = n.linkCountUntilLocked()
	n.names = slices.Delete(n.names, i, i+1)
	delete(e.dir.children, e.name)
	if len(n.names) == 0 && (n.typ == syscall.S_IFDIR || n.attr.Nlink <= 1) && t.byID[n.fileID] == n {
		delete(t.byID, n.fileID)
	}
	t.unrefLocked(e.dir, 1)
	t.unrefLocked(n, 1)
}

// An idleList has the nodes that nobody refers to, but that are remembered for
// a while: for their number, and for what a slow backend told of them.
type idleList struct {
	order list.List // of *Node, oldest first
}

const (
	maxIdle     = 4096
	maxIdleSlow = 65536
)

// add puts n at the end, and returns the oldest node if that is one too many.
func (l *idleList) add(n *Node, slow bool) *Node {
	n.idle = l.order.PushBack(n)
	limit := maxIdle
	if slow {
		limit = maxIdleSlow
	}
	if l.order.Len() <= limit {
		return nil
	}
	old := l.order.Front().Value.(*Node)
	l.remove(old)
	return old
}

func (l *idleList) remove(n *Node) {
	l.order.Remove(n.idle)
	n.idle = nil
}

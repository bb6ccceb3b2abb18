package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

// A nodeTable has the nodes that the kernel knows, by the ids that it knows
// them by: the ID of the node, but for the root of the mount, which is 1.
type nodeTable struct {
	tree *bridge.Tree
	root *bridge.Node

	mu    sync.RWMutex
	nodes map[uint64]*nodeEntry // guarded by mu; without the root
	files map[uint64]*file      // guarded by mu; open files by their handle
	dirs  map[uint64]*dir       // guarded by mu; open directories by their handle
	next  uint64                // guarded by mu; the last handle given out
}

// A nodeEntry is one node and what the kernel holds of it.
type nodeEntry struct {
	node *bridge.Node
	dir  bool   // it is a directory
	refs uint64 // what the kernel counts
	held uint64 // references in the tree

	// What the kernel's pages were read from: the content at the last open.
	// Meaningful if cached.
	cached  bool
	version contentVersion
}

func newNodeTable(tree *bridge.Tree, root *bridge.Node) *nodeTable {
	return &nodeTable{
		tree:  tree,
		root:  root,
		nodes: make(map[uint64]*nodeEntry),
		files: make(map[uint64]*file),
		dirs:  make(map[uint64]*dir),
	}
}

// id returns what the kernel calls n, which may not be in the table.
func (t *nodeTable) id(n *bridge.Node) uint64 {
	if n == t.root {
		return fuse.FUSE_ROOT_ID
	}
	return n.ID()
}

// node returns the node with the id, or nil.
func (t *nodeTable) node(id uint64) *bridge.Node {
	if id == fuse.FUSE_ROOT_ID {
		return t.root
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.nodes[id]; e != nil {
		return e.node
	}
	return nil
}

// isDir reports whether the node with the id is a directory.
func (t *nodeTable) isDir(id uint64) bool {
	if id == fuse.FUSE_ROOT_ID {
		return true
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.nodes[id]
	return e != nil && e.dir
}

// known reports whether the kernel may know n, and as what.
func (t *nodeTable) known(n *bridge.Node) (uint64, bool) {
	if n == t.root {
		return fuse.FUSE_ROOT_ID, true
	}
	id := n.ID()
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.nodes[id]
	return id, e != nil && e.node == n
}

// add enters one reference of the kernel's to n, and takes over held
// references of the tree's.
func (t *nodeTable) add(n *bridge.Node, dir bool, held uint64) uint64 {
	if n == t.root {
		if held > 0 {
			t.tree.Forget(n, held)
		}
		return fuse.FUSE_ROOT_ID
	}
	id := n.ID()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.nodes[id]
	if e == nil {
		e = &nodeEntry{node: n, dir: dir}
		t.nodes[id] = e
	}
	e.refs++
	e.held += held
	return id
}

// forget takes back references of the kernel's.
func (t *nodeTable) forget(id, refs uint64) {
	t.mu.Lock()
	e := t.nodes[id]
	if e == nil {
		t.mu.Unlock()
		return
	}
	e.refs -= min(refs, e.refs)
	gone := e.refs == 0
	if gone {
		delete(t.nodes, id)
	}
	t.mu.Unlock()
	if gone {
		t.tree.Forget(e.node, e.held)
	}
}

// addFile enters f and returns its handle.
func (t *nodeTable) addFile(f *file) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.files[t.next] = f
	return t.next
}

// file returns the open file with the handle fh, or nil.
func (t *nodeTable) file(fh uint64) *file {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.files[fh]
}

// removeFile takes out the open file with the handle fh and returns it.
func (t *nodeTable) removeFile(fh uint64) *file {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[fh]
	delete(t.files, fh)
	return f
}

// addDir enters d and returns its handle.
func (t *nodeTable) addDir(d *dir) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	t.dirs[t.next] = d
	return t.next
}

// dir returns the open directory with the handle fh, or nil.
func (t *nodeTable) dir(fh uint64) *dir {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.dirs[fh]
}

// removeDir takes out the open directory with the handle fh and returns it.
func (t *nodeTable) removeDir(fh uint64) *dir {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.dirs[fh]
	delete(t.dirs, fh)
	return d
}

// all returns the nodes that the kernel knows, but for the root.
func (t *nodeTable) all() []*bridge.Node {
	t.mu.RLock()
	defer t.mu.RUnlock()
	nodes := make([]*bridge.Node, 0, len(t.nodes))
	for _, e := range t.nodes {
		nodes = append(nodes, e.node)
	}
	return nodes
}

// drain empties the table and returns what was open.
func (t *nodeTable) drain() (files []*file, dirs []*dir, nodes []*nodeEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.files {
		files = append(files, f)
	}
	for _, d := range t.dirs {
		dirs = append(dirs, d)
	}
	for _, e := range t.nodes {
		nodes = append(nodes, e)
	}
	clear(t.files)
	clear(t.dirs)
	clear(t.nodes)
	return files, dirs, nodes
}

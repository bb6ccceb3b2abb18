package bridge

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
)

// A watcher tells the doors of what others changed on a backend that can be
// watched. It watches the directories in which a door has looked, as long as
// some door listens. What we changed ourselves is seen too, and is told apart
// by looking: doors are told only of what is not as they were told last.
type watcher struct {
	tree    *Tree
	backend WatchBackend
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	blind   atomic.Bool // a directory could not be watched: too many

	dirs   map[string]*Node // guarded by tree.mu; by the name under which they are watched
	unused []string         // guarded by tree.mu; names that may be watched for nobody, see unlock

	opMu sync.Mutex // held while a watch begins or ends
}

func newWatcher(t *Tree, b WatchBackend) *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watcher{tree: t, backend: b, cancel: cancel, dirs: make(map[string]*Node)}
	w.ended.Go(func() {
		err := b.Watch(ctx, func(c Change) { w.changed(ctx, c) })
		if err != nil && ctx.Err() == nil {
			w.blind.Store(true)
			t.log.Warn("changes made by others are seen late: watching ended", "err", err)
		}
	})
	return w
}

func (w *watcher) close() {
	w.cancel()
	w.ended.Wait()
}

// begin watches the directory dir, whose name for the backend is path, before
// somebody looks into it. renameMu is held.
func (w *watcher) begin(dir *Node, path string) {
	t := w.tree
	if len(t.subscriptions()) == 0 {
		return
	}
	t.mu.Lock()
	watched := dir.watched != ""
	if !watched {
		dir.watched = path
		w.dirs[path] = dir
	}
	t.unlock()
	if !watched {
		w.add(path)
	}
}

func (w *watcher) add(path string) {
	w.opMu.Lock()
	defer w.opMu.Unlock()
	if err := w.backend.WatchDir(path); err != nil && Errno(err) != syscall.ENOENT {
		if !w.blind.Swap(true) {
			w.tree.log.Warn("changes made by others are seen late: a directory cannot be watched", "err", err)
		}
	}
}

// forgetLocked notes that a directory that leaves the table, or its name, need
// not be watched any more.
func (w *watcher) forgetLocked(dir *Node) {
	if w.dirs[dir.watched] == dir {
		delete(w.dirs, dir.watched)
		w.unused = append(w.unused, dir.watched)
	}
	dir.watched = ""
}

// end ends the watching of names, unless they are watched for another
// directory by now.
func (w *watcher) end(names []string) {
	w.opMu.Lock()
	defer w.opMu.Unlock()
	for _, name := range names {
		w.tree.mu.Lock()
		used := w.dirs[name] != nil
		w.tree.unlock()
		if !used {
			w.backend.UnwatchDir(name)
		}
	}
}

// renamed watches what is watched below a renamed directory under its new
// names, before it stops to watch the old ones. renameMu is held, exclusively.
func (w *watcher) renamed(dir *Node, name string) {
	t := w.tree
	t.mu.Lock()
	var moved []*Node
	if n := dir.children[name]; n != nil {
		moved = w.collectLocked(n, nil)
	}
	var paths, old []string
	for _, n := range moved {
		path, _ := n.backendPathLocked()
		paths, old = append(paths, path), append(old, n.watched)
		if w.dirs[n.watched] == n {
			delete(w.dirs, n.watched)
		}
		n.watched = path
		w.dirs[path] = n
	}
	t.unlock()
	for _, path := range paths {
		w.add(path)
	}
	w.end(old)
}

func (w *watcher) collectLocked(n *Node, moved []*Node) []*Node {
	if n.watched != "" {
		moved = append(moved, n)
	}
	for _, c := range n.children {
		if c.typ == syscall.S_IFDIR {
			moved = w.collectLocked(c, moved)
		}
	}
	return moved
}

// changed takes up one change that the backend saw.
func (w *watcher) changed(ctx context.Context, c Change) {
	if c.Overflow {
		w.overflow()
		return
	}
	t := w.tree
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	t.mu.Lock()
	dir := w.dirs[c.Dir]
	if dir == nil {
		t.unlock()
		return
	}
	t.refLocked(dir)
	path, named := dir.backendPathLocked()
	t.unlock()
	defer t.Forget(dir, 1)
	switch {
	case !named:
	case c.Name == "":
		t.publish(0, Event{Node: dir, Kind: AttrChanged})
	default:
		w.look(ctx, dir, path, c.Name)
	}
}

// look has the entry that changed compared with what is known of it: what is
// another than it was is told by whoever finds out. If it is being made or removed
// by ourselves, that is waited for.
func (w *watcher) look(ctx context.Context, dir *Node, path, name string) {
	t := w.tree
	mu := t.entryLock(dir, name)
	mu.Lock()
	defer mu.Unlock()
	t.mu.Lock()
	n := dir.children[name]
	if n != nil {
		t.refLocked(n)
	}
	t.unlock()
	if n != nil {
		defer t.Forget(n, 1)
	}
	stamp, until := t.now()
	a, err := t.backend.Lstat(ctx, child(path, name))
	if err != nil {
		if n != nil && Errno(err) == syscall.ENOENT {
			t.gone(dir, name)
			t.publish(0, Event{Node: dir, Kind: AttrChanged}, Event{Node: n, Kind: AttrChanged})
		}
		return
	}
	t.mu.Lock()
	if n != nil && n.sameLocked(a) && dir.children[name] == n {
		t.storeLocked(n, a, stamp, until)
		t.unlock()
		return
	}
	t.unlock()
	// A name that is new, or means another file: doors that remember that it
	// was not there, or the old one, look again.
	if n != nil {
		t.gone(dir, name)
	}
	t.publish(0, Event{Node: dir, Kind: EntryChanged, Name: name}, Event{Node: dir, Kind: AttrChanged})
}

// wrote remembers the attributes of a file that our own handle has written, so
// that what the backend then sees is known as ours.
func (w *watcher) wrote(ctx context.Context, h *Handle) {
	if len(w.tree.subscriptions()) > 0 {
		h.attr(ctx)
	}
}

// overflow tells doors that anything may have changed in what is watched.
func (w *watcher) overflow() {
	t := w.tree
	t.mu.Lock()
	var events []Event
	for _, dir := range w.dirs {
		events = append(events, Event{Node: dir, Kind: AttrChanged})
		for name, n := range dir.children {
			events = append(events, Event{Node: dir, Kind: EntryChanged, Name: name}, Event{Node: n, Kind: ContentChanged})
		}
	}
	t.unlock()
	t.publish(0, events...)
}

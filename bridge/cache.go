package bridge

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"time"
)

// maxListing is the number of entries up to which a listing is kept for later.
const maxListing = 100_000

// maxAbsent is the number of absent names that a directory remembers.
const maxAbsent = 10_000

// A listing is what a slow backend listed of one directory, with our own
// changes made to it.
type listing struct {
	stamp   uint64 // when it was asked for, for storeLocked
	until   time.Time
	entries []DirEntry     // an entry without a name was removed
	shared  bool           // entries are being read by others, and have to stay as they are
	index   map[string]int // place in entries

	sorted []DirEntry     // entries by name, once sort was called
	rank   map[string]int // place in sorted
	subs   *listing       // those that are directories, once they were asked for
}

func newListing(entries []DirEntry, stamp uint64, until time.Time) *listing {
	l := &listing{stamp: stamp, until: until, entries: entries, index: make(map[string]int, len(entries))}
	for i, e := range entries {
		l.index[e.Name] = i
	}
	return l
}

// sort makes the order by name known.
func (l *listing) sort() {
	if l.sorted != nil {
		return
	}
	l.sorted = slices.SortedFunc(slices.Values(l.entries), func(a, b DirEntry) int { return strings.Compare(a.Name, b.Name) })
	l.rank = make(map[string]int, len(l.sorted))
	for i, e := range l.sorted {
		l.rank[e.Name] = i
	}
}

// inOrder returns the entries as they were listed, or by name.
func (l *listing) inOrder(byName bool) []DirEntry {
	if !byName {
		return l.entries
	}
	l.sort()
	return l.sorted
}

// directories returns the listing of those entries that are directories.
func (l *listing) directories() *listing {
	if l.subs == nil {
		var subs []DirEntry
		for _, e := range l.entries {
			if e.Attr.IsDir() {
				subs = append(subs, e)
			}
		}
		l.subs = newListing(subs, l.stamp, l.until)
	}
	return l.subs
}

// put adds an entry, or changes the one of that name.
func (l *listing) put(e DirEntry) {
	i, ok := l.index[e.Name]
	if !ok {
		i = len(l.entries)
		l.index[e.Name] = i
		l.entries = append(l.entries, DirEntry{})
	}
	l.set(i, e)
}

// remove takes an entry out.
func (l *listing) remove(name string) {
	if i, ok := l.index[name]; ok {
		delete(l.index, name)
		l.set(i, DirEntry{})
	}
}

func (l *listing) set(i int, e DirEntry) {
	if l.shared {
		l.entries, l.shared = slices.Clone(l.entries), false
	}
	l.sorted, l.rank, l.subs = nil, nil, nil
	l.entries[i] = e
}

// listingLocked returns the listing of dir if it is still believed.
func (t *Tree) listingLocked(dir *Node, now time.Time) *listing {
	if dir.listing == nil || now.After(dir.listing.until) {
		return nil
	}
	return dir.listing
}

// changedLocked notes that we changed the attributes or content of n: what is
// being asked of the backend at this time will not be remembered, nor what its
// directories were told in a listing.
func (t *Tree) changedLocked(n *Node) {
	t.clock++
	n.gen = t.clock
	n.unsettled = true
	for _, e := range n.names {
		e.dir.changes++
		e.dir.touchLocked(e.name)
		if l := e.dir.listing; l != nil {
			if i, ok := l.index[e.name]; ok && l.entries[i].Full {
				l.put(DirEntry{Name: e.name, Attr: Attr{Mode: n.typ}})
			}
		}
	}
}

// entryChangedLocked notes that we changed the entry name of dir, which now
// means n, or nothing if n is nil.
func (t *Tree) entryChangedLocked(dir *Node, name string, n *Node) {
	t.clock++
	dir.changes++
	dir.touchLocked(name)
	dir.gen = t.clock
	dir.attrUntil = time.Time{} // its times have changed
	dir.unsettled = true
	if !t.traits.Slow {
		return
	}
	l := dir.listing
	if n != nil {
		delete(dir.absent, name)
		if l != nil {
			l.put(DirEntry{Name: name, Attr: Attr{Mode: n.typ}})
		}
		return
	}
	t.absentLocked(dir, name, time.Now())
	if l != nil {
		l.remove(name)
	}
}

// touchLocked notes that we change an entry of a directory, of which a listing
// under way may tell what it was before.
func (n *Node) touchLocked(name string) {
	if n.touched != nil {
		n.touched[name] = true
	}
}

func (t *Tree) absentLocked(dir *Node, name string, now time.Time) {
	if dir.absent == nil || len(dir.absent) >= maxAbsent {
		dir.absent = make(map[string]time.Time)
	}
	dir.absent[name] = now.Add(t.opt.AttrTimeout)
}

// A knowledge says what is known of a name without asking.
type knowledge int

const (
	unknown knowledge = iota
	there             // and its attributes
	notThere
)

// recallLocked returns what is remembered of the entry name of dir.
func (t *Tree) recallLocked(dir *Node, name string, now time.Time) (*Node, Attr, knowledge) {
	if !t.traits.Slow {
		return nil, Attr{}, unknown
	}
	if n := dir.children[name]; n != nil {
		if t.believedLocked(n, now) {
			return n, t.shownLocked(n), there
		}
	}
	if until, ok := dir.absent[name]; ok {
		if now.Before(until) {
			return nil, Attr{}, notThere
		}
		delete(dir.absent, name)
	}
	l := t.listingLocked(dir, now)
	if l == nil {
		return nil, Attr{}, unknown
	}
	i, ok := l.index[name]
	if !ok {
		return nil, Attr{}, notThere
	}
	if e := l.entries[i]; e.Full {
		n, _ := t.enterLocked(dir, name, e.Attr, l.stamp, l.until)
		return n, t.shownLocked(n), there
	}
	return nil, Attr{}, unknown
}

// believedLocked reports whether the attributes of n are remembered and still
// believed, or have changes in them that the backend does not know yet.
func (t *Tree) believedLocked(n *Node, now time.Time) bool {
	return t.traits.Slow && (now.Before(n.attrUntil) || n.deferred.Valid != 0)
}

// shownLocked returns the attributes of n as doors see them: with the size of
// what is still being written, and with what the backend does not know filled
// in.
func (t *Tree) shownLocked(n *Node) Attr {
	a := n.attr
	if n.content != nil {
		a.Size = max(a.Size, n.content.End())
	}
	if a.Nlink == 0 {
		a.Nlink = uint32(len(n.names))
		if a.IsDir() && (a.Nlink > 0 || n.id == rootID) {
			a.Nlink = 2
		}
	}
	if a.Blocks < 0 {
		a.Blocks = (a.Size + 511) / 512
	}
	if a.Ctime.IsZero() {
		a.Ctime = a.Mtime
	}
	return a
}

// storeLocked takes up what the backend told of n, which it was asked for when
// the time was stamp. What we changed since is not overwritten.
func (t *Tree) storeLocked(n *Node, a Attr, stamp uint64, until time.Time) {
	late := n.gen > stamp
	if t.traits.Slow && n.seen && (late || n.deferred.Valid != 0) {
		return
	}
	if n.seen && !n.unsettled && !late {
		t.noticeLocked(n, a)
	}
	if n.unsettled && !t.arrivedLocked(n, stamp) {
		// the answer may be older than what was sent meanwhile
		a.Size = max(a.Size, n.attr.Size)
		if ours := t.kept(n.attr.Mtime); a.Mtime.Before(ours) {
			a.Mtime = ours
		}
		n.attr, n.seen = a, true
		n.attrUntil, n.permUntil = until, until
		return
	}
	n.attr, n.seen = a, true
	n.attrUntil, n.permUntil = until, until
	if !late {
		n.unsettled = false
	}
}

// kept returns a time as the backend keeps it.
func (t *Tree) kept(at time.Time) time.Time {
	if t.traits.Subsecond {
		return at
	}
	return at.Truncate(time.Second)
}

// arrivedLocked reports whether all that was written behind had arrived at the
// backend when the time was stamp.
func (t *Tree) arrivedLocked(n *Node, stamp uint64) bool {
	if n.content == nil {
		return true
	}
	if n.content.Dirty() {
		return false
	}
	if n.cleanAt <= n.gen {
		t.clock++
		n.cleanAt = t.clock
	}
	return stamp >= n.cleanAt
}

// A foreign is a change that somebody else made behind our back.
type foreign struct {
	node  *Node
	kind  EventKind
	owner bool // it has another owner
}

// noticeLocked compares what the backend tells of n with what it told before,
// when we changed nothing in between.
func (t *Tree) noticeLocked(n *Node, a Attr) {
	was := n.attr
	f := foreign{node: n, kind: AttrChanged, owner: a.UID != was.UID || a.GID != was.GID}
	changed := a.Size != was.Size || !a.Mtime.Equal(was.Mtime)
	switch {
	case changed && n.typ == syscall.S_IFREG && (t.traits.Slow || !n.writingLocked()):
		f.kind = ContentChanged
	case changed || f.owner || a.Mode != was.Mode || a.Nlink != was.Nlink:
		if t.watch == nil {
			return // doors ask again when the time-out is over
		}
	default:
		return
	}
	t.refLocked(n)
	t.foreign = append(t.foreign, f)
}

// writingLocked reports whether a handle is open for writing, through which a
// door may write in its own way.
func (n *Node) writingLocked() bool {
	for h := range n.handles {
		if h.flags.Writes() {
			return true
		}
	}
	return false
}

// tell acts upon a change that somebody else made.
func (t *Tree) tell(f foreign) {
	n := f.node
	t.mu.Lock()
	content := n.content
	t.unlock()
	if content != nil && f.kind == ContentChanged {
		content.Invalidate()
	}
	t.publish(0, t.attrEvents(n, f.kind, f.owner)...)
	t.Forget(n, 1)
}

// attrEvents returns the events of a change of n. A kernel that checks
// permissions itself believes the owner that it was told with an entry, so that
// a change of owner is one of each entry too.
func (t *Tree) attrEvents(n *Node, kind EventKind, owner bool) []Event {
	events := []Event{{Node: n, Kind: kind}}
	if owner {
		t.mu.Lock()
		for _, e := range n.names {
			events = append(events, Event{Node: e.dir, Kind: EntryChanged, Name: e.name})
		}
		t.unlock()
	}
	return events
}

// now returns the time of the tree's own changes, for storeLocked, and up to
// when what the backend is asked now may be believed.
func (t *Tree) now() (stamp uint64, until time.Time) {
	t.mu.Lock()
	stamp = t.clock
	t.unlock()
	return stamp, time.Now().Add(t.opt.AttrTimeout)
}

// attr returns the attributes of n. renameMu is held.
func (t *Tree) attr(ctx context.Context, n *Node) (Attr, error) {
	t.mu.Lock()
	if t.believedLocked(n, time.Now()) {
		a := t.shownLocked(n)
		t.unlock()
		return a, nil
	}
	path, named := n.backendPathLocked()
	t.unlock()
	if !named {
		return t.attrOfRemoved(ctx, n)
	}
	stamp, until := t.now()
	a, err := t.backend.Lstat(ctx, path)
	switch Errno(err) {
	case 0:
	case syscall.ENOENT, syscall.ENOTDIR:
		return t.vanished(ctx, n)
	default:
		return Attr{}, err
	}
	t.mu.Lock()
	if !n.sameLocked(a) {
		t.unlock()
		return t.vanished(ctx, n)
	}
	t.storeLocked(n, a, stamp, until)
	a = t.shownLocked(n)
	t.unlock()
	return a, nil
}

// permAttr returns attributes of n of which only type, owner and mode may be
// relied on: our own changes of a directory's entries change its times, but
// not these. renameMu is held.
func (t *Tree) permAttr(ctx context.Context, n *Node) (Attr, error) {
	t.mu.Lock()
	if t.traits.Slow && time.Now().Before(n.permUntil) {
		a := t.shownLocked(n)
		t.unlock()
		return a, nil
	}
	t.unlock()
	return t.attr(ctx, n)
}

// vanished says that the name of n is gone, or means another file now, behind
// our back. What is open goes on. renameMu is held.
func (t *Tree) vanished(ctx context.Context, n *Node) (Attr, error) {
	t.mu.Lock()
	if n.id == rootID || len(n.names) == 0 {
		t.unlock()
		return Attr{}, syscall.ENOENT
	}
	e := n.names[0]
	t.refLocked(n)
	t.unhangLocked(n, e)
	e.dir.changes++
	e.dir.listing = nil
	t.unlock()
	t.publish(0, Event{Node: e.dir, Kind: EntryGone, Name: e.name, Child: n})
	a, err := t.attrOfRemoved(ctx, n)
	t.Forget(n, 1)
	return a, err
}

// attrOfRemoved returns the attributes of a node without a name, if somebody
// has it open.
func (t *Tree) attrOfRemoved(ctx context.Context, n *Node) (Attr, error) {
	h := t.anyHandle(n, false)
	if h == nil {
		t.mu.Lock()
		a, seen := t.shownLocked(n), n.seen
		held := n.typ == syscall.S_IFDIR && n.refs > 0
		t.unlock()
		if seen && held {
			a.Nlink = 0
			return a, nil
		}
		return Attr{}, syscall.ENOENT
	}
	defer h.done()
	return h.attr(ctx)
}

// enterLocked returns the node of the entry name in dir, of which the backend
// told a when it was asked at stamp, and the node that had the name until now,
// if it is another.
func (t *Tree) enterLocked(dir *Node, name string, a Attr, stamp uint64, until time.Time) (n, was *Node) {
	n = dir.children[name]
	if n == nil || !n.sameLocked(a) {
		n = nil
		if known := t.byID[a.ID]; known != nil && known.id != rootID && known.sameLocked(a) {
			n = known // another name of it
		}
		if n == nil {
			path, _ := dir.backendPathLocked()
			n = t.newNodeLocked(child(path, name), a)
		}
		was = t.hangLocked(n, entry{dir, name})
	}
	t.storeLocked(n, a, stamp, until)
	return n, was
}

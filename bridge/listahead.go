package bridge

import (
	"context"
	"syscall"
	"time"
)

const (
	// walkWindow is how many directories are listed ahead at most.
	walkWindow = 32
	// maxListAhead is the number of entries after which a directory is not
	// listed ahead any further.
	maxListAhead = 10_000
	// glance is the number of entries after which a directory is not listed
	// any further of which no more than one was asked for: what the backend
	// tells at once.
	glance = 200
	// askBeforeList is after how many entries of a directory that were
	// asked for one by one all of them are asked for at once, however many.
	askBeforeList = 3
	// entriesPerAsk is how many entries in a listing cost as much as asking
	// for one.
	entriesPerAsk = 32
	// walkedNext is how many directories have to be looked into right behind
	// one another before the next ones are listed ahead.
	walkedNext = 2
	// noListFor is for how long a directory is not listed ahead again that
	// had too many entries or could not be listed.
	noListFor = time.Minute
)

// walkAhead takes up that the directory n is being listed, and lists the next
// directories beside it if directories are being listed one after the other.
func (t *Tree) walkAhead(n *Node) {
	t.mu.Lock()
	defer t.unlock()
	t.walkAheadLocked(n, 0)
}

// walkAheadLocked takes up that n is being listed or looked into, and lists the
// next directories if that is a run in which the last ones, so many, were each
// right behind the one before.
func (t *Tree) walkAheadLocked(n *Node, next int) {
	if len(n.names) == 0 {
		return
	}
	e := n.names[0]
	l := e.dir.listing
	if l == nil || e.dir.dirs.last == e.name {
		e.dir.dirs.last = e.name
		return
	}
	now := time.Now()
	r := &e.dir.dirs
	ahead := r.follow(l.directories(), e.name, walkWindow)
	if r.next < next {
		return
	}
	for _, next := range ahead {
		d := t.childLocked(e.dir, next, l)
		if d.typ != syscall.S_IFDIR || t.listingLocked(d, now) != nil {
			continue
		}
		if !t.startListingLocked(d, maxListAhead, r.ahead) {
			return
		}
	}
}

// startListingLocked has a directory listed in the background for p, up to most
// entries. It reports whether it is being listed now.
func (t *Tree) startListingLocked(dir *Node, most int, p *pursuit) bool {
	t.refLocked(dir)
	if !t.ahead.start(dir, func(ctx context.Context) { t.listAhead(ctx, dir, most, p) }) {
		t.unrefLocked(dir, 1)
		return false
	}
	return true
}

// listAhead has a directory remember its entries, if they are not more than
// most, or than come at once if p is over. It gives back a reference.
func (t *Tree) listAhead(ctx context.Context, n *Node, most int, p *pursuit) {
	defer t.Forget(n, 1)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	stamp, until := t.now()
	t.mu.Lock()
	path, named := n.backendPathLocked()
	n.touched = make(map[string]bool)
	t.unlock()
	defer func() {
		t.mu.Lock()
		n.touched = nil
		t.unlock()
	}()
	if !named || p.over() {
		return
	}
	var entries []DirEntry
	for e, err := range t.backend.ReadDir(ctx, path) {
		if len(entries) >= glance && p.over() {
			return
		}
		if err == nil && len(entries) == most && most < maxListAhead {
			return
		}
		if err != nil || len(entries) == most {
			t.mu.Lock()
			n.noList = time.Now().Add(noListFor)
			t.unlock()
			return
		}
		entries = append(entries, e)
	}
	t.mu.Lock()
	defer t.unlock()
	if n.touched == nil {
		return // something went wrong with one of them
	}
	l := newListing(entries, stamp, until)
	for name := range n.touched {
		if c := n.children[name]; c != nil {
			l.put(DirEntry{Name: name, Attr: Attr{Mode: c.typ}})
		} else {
			l.remove(name)
		}
	}
	n.listing, n.absent, n.asked = l, nil, 0
}

// askedLocked takes up that the backend is asked for an entry of dir, and has
// the directory listed: at once if that may be about as quick, or because there
// is no end of it.
func (t *Tree) askedLocked(dir *Node) {
	dir.asked++
	if t.opt.AttrTimeout == 0 || time.Now().Before(dir.noList) {
		return
	}
	most, least := maxListAhead, askBeforeList
	if dir.listing != nil { // an old one
		least = max(least, len(dir.listing.entries)/entriesPerAsk)
	}
	switch {
	case dir.asked >= least:
		dir.asked = 0
	case dir.asked == 1 && (dir.listing == nil || len(dir.listing.entries) <= glance):
		most = glance
	default:
		return
	}
	t.startListingLocked(dir, most, nil)
}

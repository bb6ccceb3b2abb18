package bridge

import (
	"context"
	"slices"
	"sync"
)

// aheadTasks is how many things are fetched ahead of need at the same time.
const aheadTasks = 48

// An ahead fetches from a slow backend what will be asked for soon: the
// listings of the next directories when a tree is walked, and the content of
// the next small files when files are read one after the other. It never makes
// anybody wait, but for who asks for what is being fetched.
type ahead struct {
	ctx    context.Context
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu      sync.Mutex
	closed  bool                    // guarded by mu
	fetches map[*Node]chan struct{} // guarded by mu; closed when the fetch has ended
}

func newAhead() *ahead {
	a := &ahead{fetches: make(map[*Node]chan struct{})}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	return a
}

// start fetches something of n in the background, unless something of n is
// being fetched already or enough is under way. It reports whether it is being
// fetched now.
func (a *ahead) start(n *Node, fetch func(ctx context.Context)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fetches[n] != nil {
		return true
	}
	if a.closed || len(a.fetches) >= aheadTasks {
		return false
	}
	done := make(chan struct{})
	a.fetches[n] = done
	a.ended.Go(func() {
		fetch(a.ctx)
		a.mu.Lock()
		delete(a.fetches, n)
		a.mu.Unlock()
		close(done)
	})
	return true
}

// wait waits until nothing of n is being fetched, or ctx ends.
func (a *ahead) wait(ctx context.Context, n *Node) {
	a.mu.Lock()
	done := a.fetches[n]
	a.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// close ends what is under way.
func (a *ahead) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.ended.Wait()
}

// A run follows who goes through the entries of a directory one after the
// other, in the order in which they were listed or in that of their names.
type run struct {
	last   string // the entry at which it is
	length int    // entries in a row
	next   int    // how many of the last ones were each right behind the one before
	byName bool
	window int // how many entries to fetch ahead
}

// runGap is how many entries may be passed over in a run.
const runGap = 8

// minRun is the number of entries in a row after which it is a run.
const minRun = 2

// follow takes up that the entry name of the listing was asked for, and
// returns the entries to fetch ahead, if it is a run.
func (r *run) follow(l *listing, name string, maxWindow int) []DirEntry {
	last := r.last
	r.last = name
	listed := stride(l.index, last, name)
	if listed == 0 && r.length > 0 || r.byName {
		l.sort()
	}
	named := stride(l.rank, last, name)
	switch {
	case last == "" && r.length > 0: // the first entry, see carryOn
	case last == "" || listed == 0 && named == 0:
		r.length, r.next, r.window, r.byName = 1, 0, 0, false
		return nil
	case listed > 0:
		r.byName = false
	default:
		r.byName = true
		listed = named
	}
	r.length++
	if r.next++; listed > 1 {
		r.next = 0
	}
	if r.length < minRun {
		return nil
	}
	r.window = min(max(4, 2*r.window), maxWindow)
	return r.after(l, r.window)
}

// after returns the entries that come next, at most some.
func (r *run) after(l *listing, some int) []DirEntry {
	order := l.inOrder(r.byName)
	at, ok := l.index[r.last]
	if r.byName {
		at, ok = l.rank[r.last]
	}
	if !ok {
		return nil
	}
	return order[at+1 : min(len(order), at+1+some)]
}

// carryOn has r carry on other, a run in another directory, if the next entry
// that is asked for is name, which is among the first of l and does not carry on
// r itself.
func (r *run) carryOn(other run, l *listing, name string) {
	if other.window == 0 || r.last == name || stride(l.index, r.last, name) > 0 || stride(l.rank, r.last, name) > 0 {
		return
	}
	first := l.inOrder(other.byName)
	i := slices.IndexFunc(first[:min(len(first), runGap)], func(e DirEntry) bool { return e.Name == name })
	if i < 0 {
		return
	}
	*r = run{length: minRun, byName: other.byName, window: other.window / 2}
	if i > 0 {
		r.last = first[i-1].Name
	}
}

// stride returns how far to is behind from, if it is not far, and 0 otherwise.
func stride(place map[string]int, from, to string) int {
	a, ok1 := place[from]
	b, ok2 := place[to]
	if !ok1 || !ok2 || b <= a || b > a+runGap {
		return 0
	}
	return b - a
}

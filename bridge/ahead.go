package bridge

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// aheadTasks is how many things are fetched ahead of need at the same time.
const aheadTasks = 48

// An ahead fetches from a slow backend what will be asked for soon: the
// listings of the next directories when a tree is walked, and the content of
// the next small files when files are read one after the other. It never makes
// anybody wait, but for who asks for what is being fetched. When the run for which
// it is fetched turns elsewhere, what was sent is left to come, and no more is
// sent.
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

// A pursuit is all that is fetched ahead for a run, until that turns elsewhere.
// What is fetched for another reason has none: nil.
type pursuit struct{ dropped atomic.Bool }

// over reports whether nothing more is to be sent.
func (p *pursuit) over() bool { return p != nil && p.dropped.Load() }

// A run follows who goes through the entries of a directory one after the
// other, in the order in which they were listed or in that of their names.
type run struct {
	last   string // the entry at which it is
	length int    // entries in a row
	next   int    // how many of the last ones were each right behind the one before
	byName bool
	window int      // how many entries to fetch ahead
	ahead  *pursuit // the last one; nil before it was a run
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
		if !near(r.places(l), last, name, maxWindow) {
			r.drop()
		}
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
	if r.ahead == nil || r.ahead.over() {
		r.ahead = new(pursuit)
	}
	return r.after(l, r.window)
}

// drop has nothing more sent of what is fetched ahead for r.
func (r *run) drop() {
	if r.ahead != nil {
		r.ahead.dropped.Store(true)
	}
}

// after returns the entries that come next, at most some.
func (r *run) after(l *listing, some int) []DirEntry {
	order := l.inOrder(r.byName)
	at, ok := r.places(l)[r.last]
	if !ok {
		return nil
	}
	return order[at+1 : min(len(order), at+1+some)]
}

// places returns where the entries of l are in the order in which r goes.
func (r *run) places(l *listing) map[string]int {
	if !r.byName {
		return l.index
	}
	l.sort()
	return l.rank
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
	r.drop()
	*r = run{length: minRun, byName: other.byName, window: other.window / 2, ahead: other.ahead}
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

// near reports whether to is not further than gap from from, either way.
func near(place map[string]int, from, to string, gap int) bool {
	a, ok1 := place[from]
	b, ok2 := place[to]
	return ok1 && ok2 && max(a, b)-min(a, b) <= gap
}

package bridge

import (
	"context"
	"sync"
	"time"
)

// An Event tells a door what has changed since it last asked.
type Event struct {
	Node *Node
	Kind EventKind
	// Name is the name in the directory Node that came, went or now means
	// another file, for EntryChanged and EntryGone.
	Name string
	// Child is the node that Name meant until now, for EntryGone; it may be nil.
	Child *Node
}

// An EventKind is what an Event is about.
type EventKind uint8

// The kinds of events.
const (
	AttrChanged    EventKind = iota // attributes of Node
	ContentChanged                  // data and attributes of Node
	EntryChanged                    // Name in Node: it came, means another file, or that file changed hands
	EntryGone                       // Name in Node was removed
)

// settleTimeout is for how long an answer waits at most for other doors to
// have acted upon a change.
const settleTimeout = time.Second

// A Subscription is what one door has not yet heard of: a set of changes made
// elsewhere. Publishing never waits for the door; changes of one thing are one
// event.
type Subscription struct {
	tree  *Tree
	door  Door
	ready chan struct{}

	mu      sync.Mutex
	dirty   map[Event]struct{} // guarded by mu
	order   []Event            // guarded by mu; dirty, oldest first
	seq     uint64             // guarded by mu; events published
	taken   uint64             // guarded by mu; seq when Take was last called
	done    uint64             // guarded by mu; seq that Done has confirmed
	held    []Event            // guarded by mu; taken and not yet done
	waiters []waiter           // guarded by mu
	closed  bool               // guarded by mu
}

type waiter struct {
	seq uint64
	ch  chan struct{}
}

// Subscribe returns a subscription to all changes but those made by callers of
// the door itself; its Door is a new one.
func (t *Tree) Subscribe() *Subscription {
	s := &Subscription{
		tree:  t,
		door:  t.NewDoor(),
		ready: make(chan struct{}, 1),
		dirty: make(map[Event]struct{}),
	}
	t.subMu.Lock()
	defer t.subMu.Unlock()
	subs := append([]*Subscription(nil), t.subscriptions()...)
	subs = append(subs, s)
	t.subs.Store(&subs)
	return s
}

func (t *Tree) subscriptions() []*Subscription {
	if p := t.subs.Load(); p != nil {
		return *p
	}
	return nil
}

// Door returns the door whose own changes the subscription leaves out.
func (s *Subscription) Door() Door { return s.door }

// Ready is signalled when there are events to take.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take returns what has changed since the last call and forgets it. Its nodes
// stay in the tree until Done.
func (s *Subscription) Take() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.order
	s.order = nil
	clear(s.dirty)
	s.held = append(s.held, events...)
	s.taken = s.seq
	return events
}

// Done says that what Take returned has been acted upon.
func (s *Subscription) Done() {
	s.mu.Lock()
	s.done = s.taken
	held := s.held
	s.held = nil
	s.wakeLocked()
	s.mu.Unlock()
	s.tree.releaseEvents(held)
}

func (s *Subscription) wakeLocked() {
	rest := s.waiters[:0]
	for _, w := range s.waiters {
		if w.seq <= s.done || s.closed {
			close(w.ch)
		} else {
			rest = append(rest, w)
		}
	}
	s.waiters = rest
}

// Close ends the subscription; nobody waits for it any more.
func (s *Subscription) Close() {
	t := s.tree
	t.subMu.Lock()
	var subs []*Subscription
	for _, o := range t.subscriptions() {
		if o != s {
			subs = append(subs, o)
		}
	}
	t.subs.Store(&subs)
	t.subMu.Unlock()

	s.mu.Lock()
	s.closed = true
	held := append(s.held, s.order...)
	s.held, s.order = nil, nil
	s.wakeLocked()
	s.mu.Unlock()
	t.releaseEvents(held)
}

// publish tells all doors but d of the events.
func (t *Tree) publish(d Door, events ...Event) {
	for _, s := range t.subscriptions() {
		if s.door == d {
			continue
		}
		for _, e := range events {
			t.mu.Lock()
			t.refLocked(e.Node)
			if e.Child != nil {
				t.refLocked(e.Child)
			}
			if e.Kind == ContentChanged {
				e.Node.version++
			}
			t.unlock()
			if !s.add(e) {
				t.releaseEvents([]Event{e})
			}
		}
	}
}

// add puts e into the set, and reports whether it was not there.
func (s *Subscription) add(e Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.seq++
	if _, there := s.dirty[e]; there {
		return false
	}
	s.dirty[e] = struct{}{}
	s.order = append(s.order, e)
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return true
}

func (t *Tree) releaseEvents(events []Event) {
	for _, e := range events {
		t.Forget(e.Node, 1)
		if e.Child != nil {
			t.Forget(e.Child, 1)
		}
	}
}

// Settle waits until all doors but d have acted upon what has changed so far,
// a second at most.
func (t *Tree) Settle(ctx context.Context, d Door) {
	var timeout <-chan time.Time
	for _, s := range t.subscriptions() {
		if s.door == d {
			continue
		}
		ch := s.settled()
		if ch == nil {
			continue
		}
		if timeout == nil {
			timer := time.NewTimer(settleTimeout)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-ch:
		case <-timeout:
			return
		case <-ctx.Done():
			return
		}
	}
}

// settled returns a channel that is closed when the door has acted upon all
// that was published, or nil if it has already.
func (s *Subscription) settled() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.done == s.seq {
		return nil
	}
	ch := make(chan struct{})
	s.waiters = append(s.waiters, waiter{s.seq, ch})
	return ch
}

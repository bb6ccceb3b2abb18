package fusefs

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

const (
	// noticeTimeout is for how long a request waits at most for the kernel to
	// be told something.
	noticeTimeout = time.Second
	// settleTimeout is for how long a request waits at most for another mount
	// to have told its kernel. Two mounts that change one directory at the
	// same time wait for each other: their kernels hold the directory.
	settleTimeout = 50 * time.Millisecond
	// againDelay is when the kernel is told of attributes once more: the
	// answer that brings it a node for the first time may overtake a notice.
	againDelay = 100 * time.Millisecond
)

// A notice is something that the kernel is to be told, because it does not
// know it from its own requests.
type notice struct {
	kind  noticeKind
	id    uint64
	name  string        // of an entry in the directory id
	child uint64        // the node that the entry meant, for noticeGone
	known bool          // the kernel has the node, as it has it open: once is enough
	done  chan struct{} // closed when it is told; may be nil
}

type noticeKind uint8

const (
	noticeAttr    noticeKind = iota // attributes
	noticeContent                   // attributes and pages
	noticeEntry                     // a name
	noticeGone                      // a name that was removed
)

// notices are what the door itself has to tell. Adding one never waits.
type notices struct {
	// count grows whenever the kernel is about to be told something.
	count atomic.Uint64
	ready chan struct{} // made by init

	mu    sync.Mutex
	queue []notice // guarded by mu
}

func (q *notices) init() { q.ready = make(chan struct{}, 1) }

func (q *notices) add(n ...notice) {
	q.mu.Lock()
	q.queue = append(q.queue, n...)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

func (q *notices) take() []notice {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.queue
	q.queue = nil
	return taken
}

// A notifier tells the kernel; *fuse.Server is one.
type notifier interface {
	InodeNotify(node uint64, off, length int64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
	DeleteNotify(parent, child uint64, name string) fuse.Status
}

// startNotifier starts the one goroutine that tells the kernel of changes. It
// ends with close.
func (d *door) startNotifier(kernel notifier) {
	ctx, stop := context.WithCancel(d.ctx)
	d.stop = stop
	d.running.Go(func() { d.notify(ctx, kernel) })
}

func (d *door) notify(ctx context.Context, kernel notifier) {
	again := make(map[uint64]struct{}) // nodes to tell of once more
	timer := time.NewTimer(againDelay)
	defer timer.Stop()
	tell := func(n notice) {
		d.tell(kernel, n)
		if !n.known && (n.kind == noticeAttr || n.kind == noticeContent) {
			if len(again) == 0 {
				timer.Reset(againDelay)
			}
			again[n.id] = struct{}{}
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.sub.Ready():
			for _, e := range d.sub.Take() {
				if n, ok := d.noticeOf(e); ok {
					tell(n)
				}
			}
			d.sub.Done()
		case <-d.notices.ready:
			for _, n := range d.notices.take() {
				tell(n)
				if n.done != nil {
					close(n.done)
				}
			}
		case <-timer.C:
			for id := range again {
				d.tell(kernel, notice{kind: noticeAttr, id: id})
			}
			clear(again)
		}
	}
}

// noticeOf translates an event; false if the kernel has never heard of the node.
func (d *door) noticeOf(e bridge.Event) (notice, bool) {
	// Answers that are being made at this time may be of before the change.
	d.notices.count.Add(1)
	id, known := d.nodes.known(e.Node)
	if !known {
		return notice{}, false
	}
	n := notice{id: id, name: e.Name}
	switch e.Kind {
	case bridge.AttrChanged:
		n.kind = noticeAttr
	case bridge.ContentChanged:
		n.kind = noticeContent
	case bridge.EntryChanged:
		n.kind = noticeEntry
	case bridge.EntryGone:
		n.kind = noticeEntry
		if e.Child != nil {
			if child, known := d.nodes.known(e.Child); known {
				n.kind, n.child = noticeGone, child
			}
		}
	}
	return n, true
}

// tell tells the kernel. That it does not know the node or the name, any
// more or yet, is no error.
func (d *door) tell(kernel notifier, n notice) {
	d.notices.count.Add(1)
	switch n.kind {
	case noticeAttr:
		kernel.InodeNotify(n.id, -1, 0)
	case noticeContent:
		kernel.InodeNotify(n.id, 0, 0)
	case noticeGone:
		if kernel.DeleteNotify(n.id, n.child, n.name).Ok() {
			kernel.InodeNotify(n.child, -1, 0) // it may have other names
			break
		}
		fallthrough
	case noticeEntry:
		kernel.EntryNotify(n.id, n.name)
	}
}

// done ends a request that changed the tree: its answer waits until other
// mounts of the tree show the change.
func (d *door) done(err error) fuse.Status {
	if err != nil {
		return status(err)
	}
	d.tree.Settle(patience{d.ctx, settleTimeout}, d.callers.door)
	return fuse.OK
}

// patience is a context that ends some time after it is first waited for.
type patience struct {
	context.Context
	d time.Duration
}

func (p patience) Done() <-chan struct{} {
	done := make(chan struct{})
	time.AfterFunc(p.d, func() { close(done) })
	return done
}

// searchChanged has the kernel forget what it knows of the directory n if its
// avatar may no longer search it: without default_permissions it would go on
// walking through names that it remembers. The request that took the
// permission away waits for that, but not for names in use: the kernel lets
// them go only after the request.
func (d *door) searchChanged(n *bridge.Node, a bridge.Attr) {
	avatar := d.opt.Avatar
	if avatar == nil || bridge.CheckAccess(&avatar.Cred, a, bridge.MayExec) == nil {
		return
	}
	var all []notice
	for _, e := range n.Names() {
		if dir, known := d.nodes.known(e.Dir); known {
			all = append(all, notice{kind: noticeEntry, id: dir, name: e.Name})
		}
		d.tree.Forget(e.Dir, 1)
	}
	done := make(chan struct{})
	if len(all) > 0 {
		all[len(all)-1].done = done
	} else {
		close(done)
	}
	d.notices.add(append(all, d.childNotices(n)...)...)
	t := time.NewTimer(noticeTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// childNotices returns a notice for each name in the directory dir that the
// kernel knows.
func (d *door) childNotices(dir *bridge.Node) []notice {
	var all []notice
	id := d.nodes.id(dir)
	for _, n := range d.nodes.all() {
		for _, e := range n.Names() {
			if e.Dir == dir {
				all = append(all, notice{kind: noticeEntry, id: id, name: e.Name})
			}
			d.tree.Forget(e.Dir, 1)
		}
	}
	return all
}

package fusefs

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// retryTime is for how long a thread that was told ESTALE is expected back: long
// enough for a busy machine.
const retryTime = 5 * time.Second

// A retries notes which threads were told ESTALE, upon which the kernel looks
// a name up once more before it gives up.
type retries struct {
	count atomic.Int32 // length of told, to be quick when there are none

	mu   sync.Mutex
	told map[uint32]time.Time // guarded by mu; by thread
}

// again reports whether the thread has not just been told to look again, and
// notes that it is now.
func (r *retries) again(thread uint32) bool {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	at, told := r.told[thread]
	if told && now.Sub(at) < retryTime {
		r.forgetLocked(thread)
		return false
	}
	for other, at := range r.told {
		if now.Sub(at) >= retryTime {
			r.forgetLocked(other)
		}
	}
	if r.told == nil {
		r.told = make(map[uint32]time.Time)
	}
	r.told[thread] = now
	r.count.Store(int32(len(r.told)))
	return true
}

// succeeded notes that the thread is served.
func (r *retries) succeeded(thread uint32) {
	if r.count.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(thread)
}

func (r *retries) forgetLocked(thread uint32) {
	delete(r.told, thread)
	r.count.Store(int32(len(r.told)))
}

// nodeStatus is the errno of an operation on a node that the kernel has looked
// up before. If the node has lost its name since, to another file perhaps, the
// kernel is to look again: a name that is being replaced is never absent. The
// kernel does so once. A directory is told to be absent at once, since who
// asks may be in it.
func (d *door) nodeStatus(h *fuse.InHeader, err error) fuse.Status {
	code := status(err)
	switch {
	case code.Ok():
		d.retries.succeeded(h.Pid)
	case code == fuse.ENOENT && !d.nodes.isDir(h.NodeId) && d.retries.again(h.Pid):
		return estale
	}
	return code
}

package blockcache

import (
	"context"
	"io/fs"
	"math/bits"
	"sync"
)

// BlockSize is the unit in which files are cached.
const BlockSize = 128 << 10

const (
	minBuffer = 4 << 10 // the smallest buffer
	maxIO     = 1 << 20 // the largest read or write that a source is asked for, and the largest buffer

	minDirty     = 64 << 10 // dirty data allowed however small the limit
	maxFileDirty = 16 << 20 // dirty data of one file
	maxAhead     = 32 << 20 // the largest read-ahead window
)

// A Source is an open file of a backend, as io.ReaderAt and io.WriterAt with a
// context: fewer bytes come or go only with an error, which is io.EOF itself,
// not an error that wraps it, at the end of the file. Its methods may be called concurrently, and they return
// when their context ends. Sources are compared, so they are best pointers.
type Source interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
	WriteAt(ctx context.Context, p []byte, off int64) (int, error)
}

// A Starter is a Source that carries out writes in the order in which they were
// started, and what its owner starts behind them after that.
type Starter interface {
	// StartWrite puts a write on the way without waiting for anything, and
	// returns what waits for its outcome: all of p, or an error. It does not
	// keep p longer than that. It returns nil if it cannot, or not in order.
	StartWrite(p []byte, off int64) (wait func(ctx context.Context) error)
}

// An AheadSource is a Source whose reads may have to wait for their turn before
// they are sent.
type AheadSource interface {
	// ReadAhead is ReadAt, but what has not been sent when unwanted is closed is
	// not sent any more: ECANCELED.
	ReadAhead(ctx context.Context, unwanted <-chan struct{}, p []byte, off int64) (int, error)
}

// A Cache is the memory for the content of many files. All methods of it and
// of its files may be called concurrently.
type Cache struct {
	limit     int64
	maxDirty  int64 // of all files
	maxFetch  int64 // bytes being fetched into blocks
	maxWindow int64

	ctx    context.Context // of fetches and sends, which outlive the calls that began them
	cancel context.CancelFunc
	wg     sync.WaitGroup
	pools  [9]sync.Pool // of *buffer, by size: minBuffer << i

	mu       sync.Mutex
	closed   bool
	used     int64
	dirty    int64         // the part of used that extents hold
	fetching int64         // bytes being fetched
	lru      block         // root of the ring of cached blocks, the newest at next
	wake     chan struct{} // closed when dirty shrinks; nil if nobody waits
	// guarded by mu
}

// A buffer is memory that is counted in Cache.used. Its capacity is a power of
// two and its length is its capacity. What is read or written at once stays in
// one buffer, which the blocks that it becomes share.
type buffer struct {
	b    []byte
	uses int // by a fetch, an extent and blocks; guarded by Cache.mu
}

// New returns a cache of at most limit bytes. However small the limit is, a
// little dirty data is allowed; then nothing else is cached.
func New(limit int64) *Cache {
	c := &Cache{
		limit:     limit,
		maxDirty:  max(limit/4, minDirty),
		maxFetch:  limit / 4,
		maxWindow: min(maxAhead, limit/8) &^ (BlockSize - 1),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.lru.prev, c.lru.next = &c.lru, &c.lru
	return c
}

// Close ends all fetches and sends and waits for them. Data not flushed is
// lost, and Flush says so. Files go on to be read, uncached, but not written.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.wakeLocked()
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// Used returns the number of bytes held now.
func (c *Cache) Used() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// begin allows one more goroutine, which calls c.wg.Done at its end.
func (c *Cache) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Add(1)
	return true
}

// beginFetch is begin for a fetch of n bytes. It refuses those for which there
// is no room.
func (c *Cache) beginFetch(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.fetching+n > c.maxFetch {
		return false
	}
	c.fetching += n
	c.wg.Add(1)
	return true
}

func (c *Cache) endFetch(n int64) {
	c.mu.Lock()
	c.fetching -= n
	c.mu.Unlock()
	c.wg.Done()
}

// bufferSize returns the capacity of a buffer for n bytes, n at most maxIO.
func bufferSize(n int) int { return minBuffer << bufferClass(n) }

func bufferClass(n int) int {
	return max(0, bits.Len(uint(n-1))-bits.Len(minBuffer-1))
}

// get returns a buffer for n bytes. Its caller has counted it.
func (c *Cache) get(n int) *buffer {
	class := bufferClass(n)
	b, ok := c.pools[class].Get().(*buffer)
	if !ok {
		b = &buffer{b: make([]byte, minBuffer<<class)}
	}
	b.uses = 1
	return b
}

func (c *Cache) recycle(b *buffer) { c.pools[bufferClass(len(b.b))].Put(b) }

// clean returns a buffer for n bytes that are not dirty, or nil if there is no
// room even after all blocks were evicted. The caller holds no lock.
func (c *Cache) clean(n int) *buffer {
	if !c.reserve(int64(bufferSize(n))) {
		return nil
	}
	return c.get(n)
}

// put ends one use of a buffer, and takes it back after the last.
func (c *Cache) put(b *buffer) {
	c.mu.Lock()
	last := c.putLocked(b)
	c.mu.Unlock()
	if last {
		c.recycle(b)
	}
}

// putLocked ends one use of b and reports whether it was the last, whereupon
// the caller recycles b. The caller holds c.mu.
func (c *Cache) putLocked(b *buffer) (last bool) {
	b.uses--
	if b.uses > 0 {
		return false
	}
	c.used -= int64(len(b.b))
	return true
}

// count counts n bytes whatever the limit is.
func (c *Cache) count(n int64) {
	c.mu.Lock()
	c.used += n
	c.mu.Unlock()
}

// reserve counts n bytes after it made room for them, or reports that it
// cannot. The caller holds no lock.
func (c *Cache) reserve(n int64) bool {
	for {
		c.mu.Lock()
		if c.used+n <= c.limit {
			c.used += n
			c.mu.Unlock()
			return true
		}
		b := c.lru.prev
		if b == &c.lru || n > c.limit {
			c.mu.Unlock()
			return false
		}
		b.unlink()
		c.mu.Unlock()
		b.file.evict(b)
	}
}

// written returns a buffer for an extent: of want bytes if there is room at
// once, else it waits until there is room for least bytes. The caller holds no lock.
func (c *Cache) written(ctx context.Context, want, least int) (*buffer, error) {
	for {
		c.mu.Lock()
		n := want
		if c.dirty+int64(n) > c.maxDirty {
			n = least
		}
		if c.closed {
			c.mu.Unlock()
			return nil, fs.ErrClosed
		}
		if c.dirty+int64(n) <= c.maxDirty {
			c.dirty += int64(n)
			c.mu.Unlock()
			if !c.reserve(int64(n)) {
				c.count(int64(n)) // dirty data has its own bound
			}
			return c.get(n), nil
		}
		if c.wake == nil {
			c.wake = make(chan struct{})
		}
		wake := c.wake
		c.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// joined returns a buffer of n bytes to take the place of several extents. It
// does not wait, since room comes of those.
func (c *Cache) joined(n int) *buffer {
	size := int64(bufferSize(n))
	c.mu.Lock()
	c.used += size
	c.dirty += size
	c.mu.Unlock()
	return c.get(n)
}

// sent takes back the buffer of an extent.
func (c *Cache) sent(b *buffer) {
	c.mu.Lock()
	last := c.putLocked(b)
	c.dirty -= int64(len(b.b))
	c.wakeLocked()
	c.mu.Unlock()
	if last {
		c.recycle(b)
	}
}

// trim makes room for what was counted without being reserved. The caller
// holds no lock.
func (c *Cache) trim() { c.reserve(0) }

// wakeLocked wakes the writers that wait for room. The caller holds c.mu.
func (c *Cache) wakeLocked() {
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// maxExtent is the size of the largest buffer for an extent, such that a few
// fit into the bound.
func (c *Cache) maxExtent() int {
	n := maxIO
	for n > minBuffer && int64(n) > c.maxDirty/4 {
		n /= 2
	}
	return n
}

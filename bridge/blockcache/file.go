package blockcache

import (
	"context"
	"slices"
	"sync"
)

// A File is the content of one file, whoever has it open.
type File struct {
	cache  *Cache
	ctx    context.Context // of this file's fetches and sends
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	version uint64 // counts what makes data that was read before worthless

	blocks  map[int64]*block // by index
	reads   []*fetch         // all under way
	pending map[int64]*fetch // those that will store the block, by its index
	streams [maxStreams]stream
	tick    uint64 // counts reads, for the age of streams

	dirty    []*extent     // in order of offset, not overlapping
	sending  []*extent     // in flight, not overlapping
	held     int64         // bytes of the buffers of both
	cursor   int64         // where the last write ended
	lastSize int           // the size of the extent made last
	purged   uint64        // counts what makes data in flight not worth keeping
	epoch    uint64        // counts calls of Flush
	flushers int           // calls of Flush that wait
	err      error         // the first error of a write that Failed has not returned
	wake     chan struct{} // closed when an extent is gone; nil if nobody waits
	// guarded by mu
}

// NewFile returns a File of which nothing is known.
func (c *Cache) NewFile() *File {
	f := &File{cache: c, blocks: map[int64]*block{}, pending: map[int64]*fetch{}}
	f.ctx, f.cancel = context.WithCancel(c.ctx)
	return f
}

// Close forgets everything, also what is dirty, ends the file's own fetches
// and sends and waits for them. Use of a closed file is fs.ErrClosed.
func (f *File) Close() {
	f.mu.Lock()
	f.closed = true
	for _, e := range f.dirty {
		f.freeLocked(e)
	}
	f.dirty = nil
	f.wakeLocked()
	f.mu.Unlock()

	f.cancel()
	f.wg.Wait()

	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropBlocksLocked(0)
}

// Release ends the fetches that use src and waits for them. It is to be called
// before src is closed, by who has flushed what was written through it.
func (f *File) Release(src Source) {
	var ended []*fetch
	f.mu.Lock()
	for _, ft := range f.reads {
		if ft.done != nil && ft.src == src {
			f.detachLocked(ft)
			ft.cancel()
			ended = append(ended, ft)
		}
	}
	f.mu.Unlock()
	for _, ft := range ended {
		<-ft.done
	}
}

// Invalidate forgets all that was read, because the file was changed behind
// our back. Fetches under way are not stored. Written data stays.
func (f *File) Invalidate() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.purged++
	f.dropBlocksLocked(0)
	f.detachRangeLocked(0, maxOffset)
}

// Truncate forgets everything from size on, read or written, because the file
// was given that size at the backend. Data in flight is no longer seen, but may
// still arrive there: who cares flushes before.
func (f *File) Truncate(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.version++
	f.purged++
	f.dropBlocksLocked((size + BlockSize - 1) / BlockSize)
	if b := f.blocks[size/BlockSize]; b != nil {
		b.n = min(b.n, int(size%BlockSize))
	}
	f.detachRangeLocked(size, maxOffset)
	f.cutLocked(size)
}

// dropBlocksLocked forgets the blocks from the index first on. The caller
// holds f.mu.
func (f *File) dropBlocksLocked(first int64) {
	for idx, b := range f.blocks {
		if idx >= first {
			f.dropLocked(b)
		}
	}
}

// Version returns a number that changes with all that makes data read before
// worthless: writes, truncation, invalidation. It is 0 for a new File.
func (f *File) Version() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.version
}

// Fill stores data that was read at off by other means, if the File was not
// written to, truncated or invalidated since it was new. off is a multiple of
// BlockSize.
func (f *File) Fill(p []byte, off int64) { f.FillVersion(p, off, 0) }

// FillVersion stores data that was read at off by other means after Version
// returned version, unless the version is another by now. off is a multiple of
// BlockSize.
func (f *File) FillVersion(p []byte, off int64, version uint64) {
	if off < 0 || off%BlockSize != 0 {
		return
	}
	for part := range slices.Chunk(p, BlockSize) {
		buf := f.cache.clean(len(part))
		if buf == nil {
			return
		}
		f.fillBlock(part, off/BlockSize, version, buf)
		f.cache.put(buf)
		off += BlockSize
	}
}

// fillBlock stores p as the block idx in buf, unless a block is there or under
// way.
func (f *File) fillBlock(p []byte, idx int64, version uint64, buf *buffer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.version != version || f.blocks[idx] != nil || f.pending[idx] != nil {
		return
	}
	copy(buf.b, p)
	f.storeLocked(idx, buf, 0, len(p))
	f.overlayLocked(buf.b[:len(p)], idx*BlockSize)
}

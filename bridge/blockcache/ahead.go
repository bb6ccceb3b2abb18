package blockcache

import "math/bits"

const (
	maxStreams  = 8         // places in one file where it may be read in sequence
	firstWindow = 256 << 10 // of a stream
	widen       = 4         // how many times larger a window becomes at once
	minRun      = 16 << 10  // bytes in sequence that make a stream
	aheadRun    = 32 << 10  // bytes in sequence that are worth reading ahead
	reorder     = 8         // how many reads may overtake each other in a stream
)

// A stream is a place in a file where it is read, and perhaps in sequence.
type stream struct {
	used   uint64 // File.tick at the last read; 0 for no stream
	next   int64  // where the reader is
	run    int64  // bytes that were read in sequence
	window int64  // how far to fetch ahead; 0 if it is not known to be a sequence
	ahead  int64  // how far was fetched
	mark   int64  // the window grows when a reader waits at or after it
}

// prepareLocked begins the fetches for a read of [off, end): of the blocks in
// it, if it is one of a sequence, and of those that will be read next. The
// caller holds f.mu.
func (f *File) prepareLocked(src Source, off, end, size int64) {
	s := f.streamLocked(src, off, end)
	switch {
	case size <= smallFile:
		f.demandLocked(src, off, end, size, nil)
	case s.window > 0:
		f.demandLocked(src, off, end, size, s)
		f.aheadLocked(src, size, s)
	}
}

// streamLocked returns the stream to which a read of [off, end) belongs,
// perhaps a new one: then src is read elsewhere than before. The caller holds
// f.mu.
func (f *File) streamLocked(src Source, off, end int64) *stream {
	f.tick++
	var s *stream
	oldest := &f.streams[0]
	for i := range f.streams {
		t := &f.streams[i]
		if t.matches(off, end-off) && (s == nil || t.window > s.window) {
			s = t
		}
		if t.used < oldest.used {
			oldest = t
		}
	}
	if s == nil {
		s = oldest
		*s = stream{next: end}
		f.turnLocked(src)
	}
	s.used = f.tick
	s.run += end - off
	s.next = max(s.next, end)
	if s.window == 0 && (off == 0 || s.run >= minRun && s.run > end-off) {
		s.window = f.cache.firstWindow()
	}
	return s
}

// turnLocked takes up that who reads src has turned to another place: what is
// being fetched ahead for him and was not sent yet is not sent. A stream that is
// carried on all the same fetches it again. The caller holds f.mu.
func (f *File) turnLocked(src Source) {
	for _, ft := range f.reads {
		if ft.src == src {
			ft.dropLocked()
		}
	}
	for i := range f.streams {
		f.streams[i].ahead = 0
	}
}

// firstWindow is the window of a new stream. It is never 0: a sequence is
// cached even where there is no room to read ahead.
func (c *Cache) firstWindow() int64 { return max(1, min(firstWindow, c.maxWindow)) }

// matches reports whether a read of n bytes at off carries the stream on.
// Readers that have several reads under way are seen out of order.
func (s *stream) matches(off, n int64) bool {
	if s.used == 0 {
		return false
	}
	d := off - s.next
	if s.window == 0 {
		return -n < d && d <= n
	}
	return -reorder*n <= d && d <= reorder*n
}

// demandLocked begins to fetch the blocks of [off, end) that are not there. If
// the reader has to wait, the window of the stream s grows, once per window;
// it shrinks if what had been fetched ahead was evicted before it was read. The
// caller holds f.mu.
func (f *File) demandLocked(src Source, off, end, size int64, s *stream) {
	wait, lost := false, false
	for idx := off / BlockSize; idx*BlockSize < end; {
		if f.hasLocked(idx, min(end, (idx+1)*BlockSize)) {
			idx++
			continue
		}
		wait = true
		n := f.missingLocked(idx, end, size, maxIO/BlockSize)
		if n == 0 { // under way
			idx++
			continue
		}
		lost = lost || s != nil && idx*BlockSize < s.ahead && end == s.next
		if !f.fetchLocked(src, idx, n, size, false) {
			break
		}
		idx += n
	}
	if s == nil {
		return
	}
	switch {
	case lost:
		s.window = max(s.window/2, f.cache.firstWindow())
		s.mark, s.ahead = s.ahead, 0
	case wait && off >= s.mark:
		s.mark = s.ahead
		s.window = max(s.window, min(widen*s.window, f.cache.maxWindow))
	}
	s.ahead = max(s.ahead, (end+BlockSize-1)&^(BlockSize-1))
}

// aheadLocked begins the fetches ahead of s, when the way to the end of the
// window is long enough to be worth it. The caller holds f.mu.
func (f *File) aheadLocked(src Source, size int64, s *stream) {
	if s.run < aheadRun || s.ahead+min(s.window/2, maxIO) > s.next+s.window {
		return
	}
	group := min(max(s.window/4/BlockSize, 1), maxIO/BlockSize)
	to := min(s.next+s.window, size)
	for s.ahead < to {
		idx := s.ahead / BlockSize
		n := f.missingLocked(idx, to, size, group)
		if n > 0 && !f.fetchLocked(src, idx, n, size, true) {
			return
		}
		s.ahead += max(n, 1) * BlockSize
	}
}

// hasLocked reports whether the block idx is known up to end, an offset in the
// file. The caller holds f.mu.
func (f *File) hasLocked(idx, end int64) bool {
	b := f.blocks[idx]
	return b != nil && b.end() >= end
}

// missingLocked returns how many blocks from idx on, up to end but at most
// limit, are neither known nor under way, or less than that such that they fill
// a buffer. Blocks that are known in part are dropped. The caller holds f.mu.
func (f *File) missingLocked(idx, end, size, limit int64) int64 {
	n := int64(0)
	for ; n < limit && (idx+n)*BlockSize < end; n++ {
		i := idx + n
		if f.pending[i] != nil || f.hasLocked(i, min(size, (i+1)*BlockSize)) {
			break
		}
		if b := f.blocks[i]; b != nil {
			f.dropLocked(b)
		}
	}
	if n == 0 {
		return 0
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

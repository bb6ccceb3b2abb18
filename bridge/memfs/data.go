package memfs

import (
	"iter"
	"math/bits"
	"sync/atomic"
	"syscall"
)

const (
	pageSize   = 4 << 10
	chunkPages = 16
	chunkSize  = chunkPages * pageSize
)

// A data is the content of a file without its size: chunks of 64 KiB by their
// number, and zeros where there is none. Bytes past the end of the file are
// zero too, so that a file grows by a change of its size.
type data struct {
	chunks map[int64]*chunk
	pages  int64 // in use, in all chunks
}

// A chunk is 64 KiB of a file, of which at least one page is in use. Pages
// that are not in use are zero, as is what lies past the end of bytes.
type chunk struct {
	bytes []byte // whole pages, as many as have been written to
	used  uint16 // pages in use: the lowest bit is the first
}

// readAt copies the bytes at off to p.
func (d *data) readAt(p []byte, off int64) {
	for len(p) > 0 {
		at := off % chunkSize
		piece := p[:min(int64(len(p)), chunkSize-at)]
		n := 0
		if c := d.chunks[off/chunkSize]; c != nil && at < int64(len(c.bytes)) {
			n = copy(piece, c.bytes[at:])
		}
		clear(piece[n:])
		off += int64(len(piece))
		p = p[len(piece):]
	}
}

// writeAt puts p at off, and returns how much there was space for.
func (d *data) writeAt(s *space, p []byte, off int64) (int, error) {
	done := 0
	step := int64(chunkSize)
	for done < len(p) {
		at := off % chunkSize
		end := at + min(int64(len(p)-done), step-at%step)
		c, ok := d.use(s, off/chunkSize, pagesOf(at, end))
		if !ok && step > pageSize {
			step = pageSize // what fits of the chunk
			continue
		}
		if !ok {
			return done, syscall.ENOSPC
		}
		c.grow(end)
		n := copy(c.bytes[at:end], p[done:])
		off += int64(n)
		done += n
	}
	return done, nil
}

// use has the pages of chunk i in use, and returns the chunk if there is space.
func (d *data) use(s *space, i int64, pages uint16) (*chunk, bool) {
	missing := pages
	if c := d.chunks[i]; c != nil {
		missing &^= c.used
	}
	if !s.take(int64(bits.OnesCount16(missing))) {
		return nil, false
	}
	return d.mark(i, pages), true
}

// mark has the pages of chunk i in use, which were taken already, and returns
// the chunk.
func (d *data) mark(i int64, pages uint16) *chunk {
	c := d.chunks[i]
	if c == nil {
		c = &chunk{}
		if d.chunks == nil {
			d.chunks = make(map[int64]*chunk)
		}
		d.chunks[i] = c
	}
	d.pages += int64(bits.OnesCount16(pages &^ c.used))
	c.used |= pages
	return c
}

// punch makes a hole of the bytes from off to end: they are zero, and pages
// that lie between them are no longer in use.
func (d *data) punch(s *space, off, end int64) {
	for i, c := range d.in(off, end) {
		from, to := i.clip(off, end)
		c.clear(from, to)
		first := (from + pageSize - 1) / pageSize
		inside := uint16(1)<<(to/pageSize) - 1
		inside &^= uint16(1)<<first - 1
		less := int64(bits.OnesCount16(c.used & inside))
		c.used &^= inside
		d.pages -= less
		s.give(less)
		if c.used == 0 {
			delete(d.chunks, int64(i))
		}
	}
}

// zero clears the bytes from off to end, whose pages stay in use.
func (d *data) zero(off, end int64) {
	for i, c := range d.in(off, end) {
		c.clear(i.clip(off, end))
	}
}

// reserve has all pages from off to end in use, or none more than before.
func (d *data) reserve(s *space, off, end int64) bool {
	missing := (end-1)/pageSize - off/pageSize + 1
	for i, c := range d.in(off, end) {
		missing -= int64(bits.OnesCount16(c.used & pagesOf(i.clip(off, end))))
	}
	if !s.take(missing) {
		return false
	}
	for i := chunkNo(off / chunkSize); i <= chunkNo((end-1)/chunkSize); i++ {
		d.mark(int64(i), pagesOf(i.clip(off, end)))
	}
	return true
}

// seekData returns the first offset from off on that is in a page in use.
func (d *data) seekData(off int64) (int64, bool) {
	i := off / chunkSize
	if c := d.chunks[i]; c != nil {
		page := off % chunkSize / pageSize
		if ahead := c.used >> page; ahead != 0 {
			return max(off, i*chunkSize+(page+int64(bits.TrailingZeros16(ahead)))*pageSize), true
		}
	}
	next := int64(-1)
	for j := range d.chunks {
		if j > i && (next < 0 || j < next) {
			next = j
		}
	}
	if next < 0 {
		return 0, false
	}
	return next*chunkSize + int64(bits.TrailingZeros16(d.chunks[next].used))*pageSize, true
}

// seekHole returns the first offset from off on that is not in a page in use.
func (d *data) seekHole(off int64) int64 {
	for i := off / chunkSize; ; i++ {
		c := d.chunks[i]
		if c == nil {
			return max(off, i*chunkSize)
		}
		page := max(off-i*chunkSize, 0) / pageSize
		if ahead := ^c.used >> page; ahead != 0 {
			return max(off, i*chunkSize+(page+int64(bits.TrailingZeros16(ahead)))*pageSize)
		}
	}
}

// A chunkNo is the number of a chunk in its file.
type chunkNo int64

// clip returns what of the bytes from off to end of a file is in the chunk, as
// offsets in the chunk.
func (i chunkNo) clip(off, end int64) (from, to int64) {
	start := int64(i) * chunkSize
	return max(off-start, 0), min(end-start, chunkSize)
}

// in yields the chunks that have bytes from off to end; they may be removed.
func (d *data) in(off, end int64) iter.Seq2[chunkNo, *chunk] {
	first, last := off/chunkSize, (end-1)/chunkSize
	return func(yield func(chunkNo, *chunk) bool) {
		if off >= end {
			return
		}
		if last-first < int64(len(d.chunks)) {
			for i := first; i <= last; i++ {
				if c := d.chunks[i]; c != nil && !yield(chunkNo(i), c) {
					return
				}
			}
			return
		}
		for i, c := range d.chunks {
			if first <= i && i <= last && !yield(chunkNo(i), c) {
				return
			}
		}
	}
}

// grow has the chunk hold bytes up to the offset end in it.
func (c *chunk) grow(end int64) {
	have := int64(len(c.bytes))
	if end <= have {
		return
	}
	size := max((end+pageSize-1)/pageSize*pageSize, min(2*have, chunkSize))
	bytes := make([]byte, size)
	copy(bytes, c.bytes)
	c.bytes = bytes
}

// clear has the bytes between two offsets in the chunk be zero.
func (c *chunk) clear(from, to int64) {
	if have := int64(len(c.bytes)); from < have {
		clear(c.bytes[from:min(to, have)])
	}
}

// pagesOf returns the pages of a chunk that have bytes from from to to.
func pagesOf(from, to int64) uint16 {
	first, last := from/pageSize, (to-1)/pageSize
	return uint16(1<<(last+1)-1) &^ uint16(1<<first-1)
}

// A space counts the pages in use against a limit.
type space struct {
	max  int64
	used atomic.Int64
}

// take has n more pages in use, if there are as many.
func (s *space) take(n int64) bool {
	if n <= 0 || s.used.Add(n) <= s.max {
		return true
	}
	s.used.Add(-n)
	return false
}

func (s *space) give(n int64) { s.used.Add(-n) }
func (s *space) free() int64  { return max(s.max-s.used.Load(), 0) }

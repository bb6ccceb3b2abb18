package blockcache

import (
	"slices"
	"sort"
)

// An extent is written data that its source does not have yet.
type extent struct {
	src   Source
	off   int64
	buf   *buffer
	n     int    // bytes of buf that are data
	sent  int    // bytes in flight; n is less if the file was truncated since
	epoch uint64 // File.epoch when it was made
	begun bool   // in flight, and on its way in order: see Starter
	// guarded by File.mu
}

func (e *extent) end() int64   { return e.off + int64(e.n) }
func (e *extent) data() []byte { return e.buf.b[:e.n] }

// fill returns how much of a write at off e can take up: over what it has, or
// at its end, but not beyond the offset next.
func (e *extent) fill(off, next int64) int64 {
	return min(e.off+int64(len(e.buf.b)), next) - off
}

// putLocked puts the beginning of p into the dirty extents and the cached
// blocks and returns how much. If that is not all, it needs a buffer: it takes
// *spare for a new extent. The caller holds f.mu.
func (f *File) putLocked(src Source, p []byte, off int64, spare **buffer) int {
	done := 0
	for done < len(p) {
		pos := off + int64(done)
		i := f.searchLocked(pos)
		next := int64(maxOffset)
		if i < len(f.dirty) {
			next = f.dirty[i].off
		}
		var e *extent
		var n int64
		switch {
		case next <= pos: // over what is there
			e = f.dirty[i]
			n = e.end() - pos
		case i > 0 && f.dirty[i-1].end() == pos && f.dirty[i-1].src == src && f.dirty[i-1].fill(pos, next) > 0:
			e = f.dirty[i-1]
			n = e.fill(pos, next)
		case *spare != nil:
			e = &extent{src: src, off: pos, buf: *spare, epoch: f.epoch}
			*spare = nil
			f.dirty = slices.Insert(f.dirty, i, e)
			f.held += int64(len(e.buf.b))
			f.lastSize = len(e.buf.b)
			n = e.fill(pos, next)
		default:
			return done
		}
		m := int(min(n, int64(len(p)-done)))
		at := int(pos - e.off)
		copy(e.buf.b[at:], p[done:done+m])
		e.n = max(e.n, at+m)
		f.updateLocked(p[done:done+m], pos)
		done += m
	}
	return done
}

// searchLocked returns the index of the first dirty extent that ends after
// off. The caller holds f.mu.
func (f *File) searchLocked(off int64) int {
	return sort.Search(len(f.dirty), func(i int) bool { return f.dirty[i].end() > off })
}

// overlayLocked puts the written data over p, a part of the file at off: first
// what is in flight, then what is dirty and newer. The caller holds f.mu.
func (f *File) overlayLocked(p []byte, off int64) {
	end := off + int64(len(p))
	for _, e := range f.sending {
		e.overlay(p, off)
	}
	for i := f.searchLocked(off); i < len(f.dirty) && f.dirty[i].off < end; i++ {
		f.dirty[i].overlay(p, off)
	}
}

// overlay puts the data of e over p, a part of the file at off.
func (e *extent) overlay(p []byte, off int64) {
	lo, hi := max(off, e.off), min(off+int64(len(p)), e.end())
	if lo < hi {
		copy(p[lo-off:hi-off], e.buf.b[lo-e.off:])
	}
}

// writtenLocked reports whether all of [off, end) is dirty or in flight. The
// caller holds f.mu.
func (f *File) writtenLocked(off, end int64) bool {
	for off < end {
		at := off
		if i := f.searchLocked(off); i < len(f.dirty) && f.dirty[i].off <= off {
			off = f.dirty[i].end()
		}
		for _, e := range f.sending {
			if e.off <= off && e.end() > off {
				off = e.end()
			}
		}
		if off == at {
			return false
		}
	}
	return true
}

// endLocked returns the highest end of dirty data or data in flight, or 0. The
// caller holds f.mu.
func (f *File) endLocked() int64 {
	var end int64
	if n := len(f.dirty); n > 0 {
		end = f.dirty[n-1].end()
	}
	for _, e := range f.sending {
		if e.n > 0 {
			end = max(end, e.end())
		}
	}
	return end
}

// cutLocked forgets written data from size on. The caller holds f.mu.
func (f *File) cutLocked(size int64) {
	for len(f.dirty) > 0 {
		e := f.dirty[len(f.dirty)-1]
		if e.end() <= size {
			break
		}
		if e.off < size {
			e.n = int(size - e.off)
			break
		}
		f.dirty = f.dirty[:len(f.dirty)-1]
		f.freeLocked(e)
	}
	for _, e := range f.sending {
		e.n = int(min(int64(e.n), max(0, size-e.off)))
	}
}

// freeLocked frees the memory of e, which is in no list any more, and wakes
// who waits for that. The caller holds f.mu.
func (f *File) freeLocked(e *extent) {
	f.held -= int64(len(e.buf.b))
	f.cache.sent(e.buf)
	f.wakeLocked()
}

// nextLocked takes from the dirty extents what is best sent next, several that
// touch joined to one, or returns nil. What ends where the last write ended may
// be carried on by the next write: it waits until it is as large as it can be,
// or nothing else is in flight, or a Flush waits. The caller holds f.mu.
func (f *File) nextLocked() *extent {
	for i := 0; i < len(f.dirty); {
		if f.inFlightLocked(f.dirty[i]) {
			i++
			continue
		}
		j, full := f.runLocked(i)
		if full || f.dirty[j-1].end() != f.cursor || len(f.sending) == 0 || f.flushers > 0 {
			e := f.joinExtentsLocked(f.dirty[i:j])
			f.dirty = slices.Delete(f.dirty, i, j)
			return e
		}
		i = j
	}
	return nil
}

// runLocked returns the end of the run of extents from the index i on that
// touch and can be sent as one, and whether it can take no more. The caller
// holds f.mu.
func (f *File) runLocked(i int) (j int, full bool) {
	first := f.dirty[i]
	n := first.n
	for j = i + 1; j < len(f.dirty); j++ {
		e, prev := f.dirty[j], f.dirty[j-1]
		if e.off != prev.end() || e.src != first.src {
			return j, false
		}
		if n+e.n > maxIO || f.inFlightLocked(e) {
			return j, true
		}
		n += e.n
	}
	last := f.dirty[j-1]
	return j, n >= maxIO || j == i+1 && last.n == len(last.buf.b) && last.n >= f.cache.maxExtent()
}

// inFlightLocked reports whether e overlaps an extent in flight. The caller
// holds f.mu.
func (f *File) inFlightLocked(e *extent) bool {
	for _, s := range f.sending {
		if s.off < e.end() && e.off < s.off+int64(s.sent) {
			return true
		}
	}
	return false
}

// joinExtentsLocked makes one extent of several that touch. The caller holds
// f.mu.
func (f *File) joinExtentsLocked(run []*extent) *extent {
	first := run[0]
	if len(run) == 1 {
		return first
	}
	n := int(run[len(run)-1].end() - first.off)
	e := &extent{src: first.src, off: first.off, buf: f.cache.joined(n), epoch: first.epoch}
	f.held += int64(len(e.buf.b))
	for _, part := range run {
		e.n += copy(e.buf.b[e.n:], part.data())
		e.epoch = min(e.epoch, part.epoch)
		f.freeLocked(part)
	}
	return e
}

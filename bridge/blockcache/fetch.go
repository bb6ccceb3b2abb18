package blockcache

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"syscall"
)

const maxOffset = math.MaxInt64

// errNotSent ends a fetch for which there is no memory, or which nobody wanted
// any more before it was sent.
var errNotSent = errors.New("blockcache: not sent")

// A fetch is a read of a source that is under way: in the background for
// blocks, or by a reader for itself (then src and all up to err are unused).
type fetch struct {
	off  int64
	size int // bytes asked for

	src      Source
	cancel   context.CancelFunc
	unwanted chan struct{} // of a fetch ahead: closed when nobody wants it
	done     chan struct{} // closed at the end
	buf      *buffer       // valid after done, while refs are held
	n        int           // valid after done, as err
	err      error         // not io.EOF

	refs  int    // of buf
	patch []byte // what was written and sent since the fetch began, of size bytes; or nil
	spans spans  // the parts of patch that are set
	wend  int64  // the highest end of what was sent since
	// guarded by File.mu
}

func (ft *fetch) end() int64 { return ft.off + int64(ft.size) }

// fetchLocked begins to fetch count blocks from the index first on, as far as
// the file's size goes; ahead says that nobody waits for them. It reports whether
// there is room for it. The caller holds f.mu.
func (f *File) fetchLocked(src Source, first, count, size int64, ahead bool) bool {
	off := first * BlockSize
	n := min(count*BlockSize, size-off)
	if f.closed || !f.cache.beginFetch(n) {
		return false
	}
	ft := &fetch{src: src, off: off, size: int(n), refs: 1, done: make(chan struct{})}
	if ahead {
		ft.unwanted = make(chan struct{})
	}
	var ctx context.Context
	ctx, ft.cancel = context.WithCancel(f.ctx)
	f.reads = append(f.reads, ft)
	for idx := first; idx*BlockSize < ft.end(); idx++ {
		f.pending[idx] = ft
	}
	f.wg.Go(func() {
		defer f.cache.endFetch(n)
		f.fetch(ctx, ft)
	})
	return true
}

// fetch runs ft: it reads, stores the blocks and tells who waits.
func (f *File) fetch(ctx context.Context, ft *fetch) {
	defer ft.cancel()
	n, err := 0, errNotSent
	buf := f.cache.clean(ft.size)
	if buf != nil {
		n, err = ft.read(ctx, buf.b[:ft.size])
	}
	if err == nil && n < ft.size {
		err = io.ErrUnexpectedEOF
	}
	if err == io.EOF || n == ft.size {
		err = nil
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetLocked(ft)
	ft.buf, ft.err = buf, err
	if err == nil {
		ft.n = f.patchLocked(ft, buf.b[:ft.size], n)
		f.storeFetchLocked(ft)
	}
	f.detachLocked(ft)
	close(ft.done)
	f.unrefLocked(ft)
}

// read reads p, all of ft, from the source.
func (ft *fetch) read(ctx context.Context, p []byte) (int, error) {
	s, ok := ft.src.(AheadSource)
	if !ok || ft.unwanted == nil {
		return ft.src.ReadAt(ctx, p, ft.off)
	}
	n, err := s.ReadAhead(ctx, ft.unwanted, p, ft.off)
	if errors.Is(err, syscall.ECANCELED) {
		err = errNotSent
	}
	return n, err
}

// dropLocked says that nobody wants ft, unless somebody waits for it. The caller
// holds the file's mu.
func (ft *fetch) dropLocked() {
	if ft.unwanted == nil || ft.refs > 1 {
		return
	}
	select {
	case <-ft.unwanted:
	default:
		close(ft.unwanted)
	}
}

// storeFetchLocked makes blocks of what ft brought, except for those that were
// detached since. The caller holds f.mu.
func (f *File) storeFetchLocked(ft *fetch) {
	for lo := 0; lo < ft.n; lo += BlockSize {
		idx := (ft.off + int64(lo)) / BlockSize
		if f.pending[idx] == ft && f.blocks[idx] == nil {
			f.storeLocked(idx, ft.buf, lo, min(BlockSize, ft.n-lo))
		}
	}
}

// patchLocked puts what was written since ft began over p, of whose bytes the
// source gave n and then the end of the file, and returns how many there are
// now. The caller holds f.mu.
func (f *File) patchLocked(ft *fetch, p []byte, n int) int {
	if end := max(ft.wend, f.endLocked()); end > ft.off+int64(n) && n < len(p) {
		m := int(min(int64(len(p)), end-ft.off))
		clear(p[n:m])
		n = m
	}
	for _, s := range ft.spans {
		if s.lo < n {
			copy(p[s.lo:n], ft.patch[s.lo:s.hi])
		}
	}
	f.overlayLocked(p[:n], ft.off)
	return n
}

// recordLocked has the reads under way know of the data p, which the source
// has got at off while they ran. The caller holds f.mu.
func (f *File) recordLocked(p []byte, off int64) {
	for _, ft := range f.reads {
		ft.wend = max(ft.wend, off+int64(len(p)))
		lo, hi := max(off, ft.off), min(off+int64(len(p)), ft.end())
		if lo >= hi {
			continue
		}
		if ft.patch == nil {
			ft.patch = make([]byte, ft.size)
			f.cache.count(int64(ft.size))
		}
		copy(ft.patch[lo-ft.off:], p[lo-off:hi-off])
		ft.spans = ft.spans.add(int(lo-ft.off), int(hi-ft.off))
	}
}

// forgetLocked ends the recording for ft. The caller holds f.mu.
func (f *File) forgetLocked(ft *fetch) {
	i := slices.Index(f.reads, ft)
	f.reads = slices.Delete(f.reads, i, i+1)
	if ft.patch != nil {
		f.cache.count(-int64(ft.size))
	}
}

// unrefLocked gives up one use of ft.buf. The caller holds f.mu.
func (f *File) unrefLocked(ft *fetch) {
	ft.refs--
	if ft.refs == 0 && ft.buf != nil {
		f.cache.put(ft.buf)
	}
}

// detachLocked lets nobody join ft any more, nor its blocks be stored. The
// caller holds f.mu.
func (f *File) detachLocked(ft *fetch) {
	for idx := ft.off / BlockSize; idx*BlockSize < ft.end(); idx++ {
		if f.pending[idx] == ft {
			delete(f.pending, idx)
		}
	}
}

// detachRangeLocked detaches the fetches that overlap [off, end). The caller
// holds f.mu.
func (f *File) detachRangeLocked(off, end int64) {
	for _, ft := range f.reads {
		if ft.off < end && ft.end() > off {
			f.detachLocked(ft)
		}
	}
}

// A span is a range [lo, hi).
type span struct{ lo, hi int }

// spans are in order and do not touch.
type spans []span

// add returns s with [lo, hi) in it.
func (s spans) add(lo, hi int) spans {
	i := 0
	for i < len(s) && s[i].hi < lo {
		i++
	}
	j := i
	for j < len(s) && s[j].lo <= hi {
		lo, hi = min(lo, s[j].lo), max(hi, s[j].hi)
		j++
	}
	return slices.Replace(s, i, j, span{lo, hi})
}

package blockcache

import (
	"context"
	"io"
	"io/fs"
	"syscall"
)

// smallFile is the size up to which a file is fetched whole, whatever is read
// of it: it costs the same round trip.
const smallFile = 64 << 10

// ReadAt reads into p at off: from memory what is there, through src what is
// not. size is the size of the file as the caller knows it; the file ends
// there, or where dirty data ends if that is further, or where src says so.
// Fewer bytes than len(p) come only with an error, which is io.EOF at the end
// of the file. When ctx ends, the reader stops to wait; a fetch that others may
// use goes on. Fetches that were begun may use src after the return, until
// Release.
func (f *File) ReadAt(ctx context.Context, src Source, p []byte, off, size int64) (int, error) {
	if off < 0 {
		return 0, syscall.EINVAL
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	size = max(size, f.endLocked())
	if off >= size {
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > size-off {
		p, eof = p[:size-off], io.EOF
	}
	if f.writtenLocked(off, off+int64(len(p))) {
		f.overlayLocked(p, off)
		return len(p), eof
	}
	f.prepareLocked(src, off, off+int64(len(p)), size)
	n, err := f.readLocked(ctx, src, p, off)
	if err == nil {
		err = eof
	}
	return n, err
}

// Holds reports whether a read of [off, end) needs nothing of its source now.
func (f *File) Holds(off, end int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	for off < end {
		idx := off / BlockSize
		next := min(end, (idx+1)*BlockSize)
		if !f.hasLocked(idx, next) && !f.writtenLocked(off, next) {
			return false
		}
		off = next
	}
	return true
}

// readLocked fills p from blocks, then from fetches under way, and the rest
// from src. The caller holds f.mu, which it releases while it waits.
func (f *File) readLocked(ctx context.Context, src Source, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		pos := off + int64(n)
		idx := pos / BlockSize
		if b := f.blocks[idx]; b != nil && b.end() > pos {
			n += copy(p[n:], b.p[pos%BlockSize:b.n])
			f.cache.touch(b)
			continue
		}
		ft := f.pending[idx]
		if ft == nil || ft.end() <= pos {
			m, err := f.directLocked(ctx, src, p[n:], pos)
			return n + m, err
		}
		m, err := f.joinLocked(ctx, ft, p[n:], pos)
		n += m
		switch {
		case ctx.Err() != nil && err != nil:
			return n, err
		case err == io.EOF || err != nil && ft.src == src && err != errNotSent:
			return n, err
		case err != nil: // of somebody else's source
			m, err = f.directLocked(ctx, src, p[n:], pos)
			return n + m, err
		}
	}
	return n, nil
}

// joinLocked waits for ft and copies what it brought to p, a part of the file
// at off. The caller holds f.mu, which it releases meanwhile.
func (f *File) joinLocked(ctx context.Context, ft *fetch, p []byte, off int64) (int, error) {
	ft.refs++
	f.mu.Unlock()
	var err error
	select {
	case <-ft.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	f.mu.Lock()
	defer f.unrefLocked(ft)
	if err != nil {
		return 0, err
	}
	return ft.copyLocked(p, off)
}

// copyLocked copies what ft has brought to p, a part of the file at off, which
// is before ft.end. The caller holds one of ft.refs, and the file's mu: what is
// written goes into the blocks that share the buffer.
func (ft *fetch) copyLocked(p []byte, off int64) (int, error) {
	if ft.err != nil {
		return 0, ft.err
	}
	n := 0
	if at := off - ft.off; at < int64(ft.n) {
		n = copy(p, ft.buf.b[at:ft.n])
	}
	if n < len(p) && ft.n < ft.size {
		return n, io.EOF
	}
	return n, nil
}

// directLocked reads p from src at off and keeps nothing. The caller holds
// f.mu, which it releases meanwhile.
func (f *File) directLocked(ctx context.Context, src Source, p []byte, off int64) (int, error) {
	ft := &fetch{off: off, size: len(p)}
	f.reads = append(f.reads, ft)
	f.mu.Unlock()
	n, err := src.ReadAt(ctx, p, off)
	f.mu.Lock()
	defer f.forgetLocked(ft)
	switch {
	case n == len(p):
		err = nil
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF {
		return f.patchLocked(ft, p[:n], n), err
	}
	if n = f.patchLocked(ft, p, n); n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

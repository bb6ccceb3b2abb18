package sftpfs

import (
	"context"
	"io"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// inFlight is how many requests one ReadAt or WriteAt has under way at most.
const inFlight = 64

// chunk is the size of the parts into which n bytes are cut that go out in
// requests of max bytes at most: equal ones, so that several sessions end at
// the same time, of whole pages.
func chunk(n, max int) int {
	const page = 4096
	parts := (n + max - 1) / max
	size := (n + parts - 1) / parts
	if r := (size + page - 1) / page * page; r <= max {
		size = r
	}
	return size
}

// ReadAt reads in parallel requests, and goes on where it was when the
// connection breaks.
func (fl *file) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return fl.ReadAhead(ctx, nil, p, off)
}

// ReadAhead implements bridge.AheadFile.
func (fl *file) ReadAhead(ctx context.Context, unwanted <-chan struct{}, p []byte, off int64) (int, error) {
	switch {
	case !fl.flags.Reads():
		return 0, syscall.EBADF
	case off < 0:
		return 0, syscall.EINVAL
	case len(p) == 0:
		return 0, nil
	}
	if err := givenUp(ctx, unwanted); err != nil {
		return 0, err
	}
	ctx = started(ctx)
	done := 0
	for {
		hs, sent, err := fl.admit(ctx, unwanted, len(p)-done)
		if err == nil {
			var n int
			n, err = fl.readOn(ctx, hs, p[done:], off+int64(done), sent)
			done += n
		}
		if !fl.f.again(ctx, err) {
			return done, err
		}
	}
}

// A part is one request of a ReadAt or WriteAt.
type part struct {
	h   handle
	c   *call
	p   []byte
	off int64
}

// parts sends the requests for p, cut into chunks of size bytes, so many at a
// time as may be under way, and calls each with them in order, and sent when
// the first are sent. It returns the number of bytes up to the first error, and
// that.
func (fl *file) parts(ctx context.Context, hs []handle, p []byte, off int64, size int, req func(handle, []byte, int64) request, sent func(), each func(part) (int, error)) (int, error) {
	var queue []part
	defer func() {
		sent()
		for _, q := range queue {
			q.c.drop()
		}
	}()
	done, next := 0, 0
	for done < len(p) {
		if len(queue) <= inFlight/2 && next < len(p) {
			more, n, err := begin(hs, p[next:], off+int64(next), size, inFlight-len(queue), req)
			if err != nil && len(queue) == 0 {
				return done, err
			}
			queue = append(queue, more...)
			next += n
			sent()
		}
		q := queue[0]
		n, err := each(q)
		queue = queue[1:]
		done += n
		if err != nil {
			q.c.drop()
			return done, err
		}
		progress(ctx)
	}
	return done, nil
}

// begin sends the requests for the first chunks of p, most of them, spread
// over the handles, and those of each session together. It returns them in
// order, and how many bytes they are for. After an error there are none.
func begin(hs []handle, p []byte, off int64, size, most int, req func(handle, []byte, int64) request) ([]part, int, error) {
	var parts []part
	loads := make([]int64, len(hs))
	for i, h := range hs {
		loads[i] = h.s.load.Load()
	}
	n := 0
	reqs := make([][]request, len(hs))
	which := make([]int, 0, most)
	for n < len(p) && len(parts) < most {
		i := leastOf(loads)
		q := part{h: hs[i], p: p[n:min(n+size, len(p))], off: off + int64(n)}
		loads[i] += int64(len(q.p))
		n += len(q.p)
		parts = append(parts, q)
		which = append(which, i)
		reqs[i] = append(reqs[i], req(q.h, q.p, q.off))
	}
	calls := make([][]*call, len(hs))
	for i, h := range hs {
		if len(reqs[i]) == 0 {
			continue
		}
		var err error
		if calls[i], err = h.s.begin(reqs[i]...); err != nil {
			for _, c := range calls {
				drop(c)
			}
			return nil, 0, err
		}
	}
	for j, i := range which {
		parts[j].c, calls[i] = calls[i][0], calls[i][1:]
	}
	return parts, n, nil
}

// leastOf returns the index of the smallest.
func leastOf(loads []int64) int {
	best := 0
	for i, l := range loads {
		if l < loads[best] {
			best = i
		}
	}
	return best
}

// readOn reads through the handles hs.
func (fl *file) readOn(ctx context.Context, hs []handle, p []byte, off int64, sent func()) (int, error) {
	read := func(h handle, p []byte, off int64) request {
		return request{packet: &sshfx.ReadPacket{Handle: h.h, Offset: uint64(off), Length: uint32(len(p))}, dst: p}
	}
	size := chunk(len(p), fl.chunkRead(hs))
	return fl.parts(ctx, hs, p, off, size, read, sent, func(q part) (int, error) {
		if err := q.c.wait(ctx); err != nil {
			return 0, err
		}
		n, err := q.c.data()
		for err == nil && n < len(q.p) { // a short answer: ask for the rest
			if n == 0 {
				return 0, q.c.garbage("an empty answer to a read")
			}
			var calls []*call
			if calls, err = q.h.s.exchange(ctx, read(q.h, q.p[n:], q.off+int64(n))); err != nil {
				return n, err
			}
			var m int
			if m, err = calls[0].data(); err == nil {
				if m == 0 {
					return n, calls[0].garbage("an empty answer to a read")
				}
				q.h.s.shortRead(n)
				n += m
			}
		}
		if err != nil && err != io.EOF {
			err = fl.why(ctx, q.h, err)
		}
		return n, err
	})
}

func (fl *file) chunkRead(hs []handle) int {
	return hs[0].s.readSize()
}

// readSize is how many bytes one READ asks for.
func (s *session) readSize() int {
	if n := int(s.readCap.Load()); n > 0 {
		return min(n, s.server.maxRead)
	}
	return s.server.maxRead
}

// shortRead notes that the server gives no more than n bytes at once, as those
// do that have a limit which they do not tell.
func (s *session) shortRead(n int) {
	const least = 4096
	if n >= least && n < s.readSize() {
		s.readCap.Store(int64(n))
	}
}

// WriteAt writes in parallel requests. When the connection breaks, what was
// not acknowledged is written again at the same place.
func (fl *file) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	switch {
	case !fl.flags.Writes():
		return 0, syscall.EBADF
	case off < 0:
		return 0, syscall.EINVAL
	case len(p) == 0:
		return 0, nil
	case ctx.Err() != nil:
		return 0, ctxError(ctx)
	}
	ctx = started(ctx)
	defer fl.loosely()()
	if fl.flags.Has(syscall.O_APPEND) {
		return fl.append(ctx, p)
	}
	done := 0
	for {
		hs, sent, err := fl.admit(ctx, nil, len(p)-done)
		if err == nil {
			var n int
			n, err = fl.writeOn(ctx, hs, p[done:], off+int64(done), sent)
			done += n
		}
		if !fl.f.again(ctx, err) {
			return done, err
		}
	}
}

func write(h handle, p []byte, off int64) request {
	return request{packet: &sshfx.WritePacket{Handle: h.h, Offset: uint64(off), Data: p}}
}

// writeOn writes through the handles hs.
func (fl *file) writeOn(ctx context.Context, hs []handle, p []byte, off int64, sent func()) (int, error) {
	fl.writing.RLock()
	defer fl.writing.RUnlock()
	fl.begun()
	size := chunk(len(p), hs[0].s.server.maxWrite)
	n, err := fl.parts(ctx, hs, p, off, size, write, sent, func(q part) (int, error) {
		if err := q.c.wait(ctx); err != nil {
			return 0, err
		}
		if err := q.c.status(); err != nil {
			return 0, fl.why(ctx, q.h, err)
		}
		return len(q.p), nil
	})
	if n > 0 {
		fl.written(off + int64(n))
	}
	return n, err
}

// begun notes that something is being written.
func (fl *file) begun() {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.wrote = true
	fl.mtime = unknownTime
}

// written notes that the file reaches to end at least.
func (fl *file) written(end int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.size = max(fl.size, end)
	fl.mtime = unknownTime
}

// append writes p at the end of the file, one request after the other. When
// the connection breaks, the size tells whether the last one was carried out;
// EIO if it does not.
func (fl *file) append(ctx context.Context, p []byte) (int, error) {
	fl.appending.Lock()
	defer fl.appending.Unlock()
	fl.begun()
	done := 0
	for done < len(p) {
		n, err := fl.appendOne(ctx, p[done:])
		done += n
		if err != nil {
			return done, err
		}
		progress(ctx)
	}
	return done, nil
}

// appendOne appends as much of p as one request takes.
func (fl *file) appendOne(ctx context.Context, p []byte) (int, error) {
	before := int64(-1) // the size in front of a request whose outcome is open
	for {
		hs, err := fl.live(ctx)
		var n int
		if err == nil {
			n, before, err = fl.tryAppend(ctx, hs[0], p, before)
		}
		if !fl.f.again(ctx, err) {
			return n, err
		}
	}
}

// tryAppend sends one WRITE, together with an FSTAT in front of it that tells
// where the end is. before is what that told of an earlier request that was
// cut off, negative if there was none.
func (fl *file) tryAppend(ctx context.Context, h handle, p []byte, before int64) (n int, end int64, err error) {
	p = p[:min(len(p), h.s.server.maxWrite)]
	calls, err := h.s.exchange(ctx, fstat(h.h))
	if err != nil {
		return 0, before, err
	}
	a, err := calls[0].attrs()
	if err != nil {
		return 0, before, err
	}
	switch {
	case before < 0 || a.Size == before:
	case a.Size == before+int64(len(p)):
		fl.written(a.Size)
		return len(p), before, nil
	default:
		return 0, before, syscall.EIO // nobody knows
	}
	calls, err = h.s.exchange(ctx, write(h, p, a.Size))
	if err != nil {
		return 0, a.Size, err
	}
	if err := calls[0].status(); err != nil {
		return 0, a.Size, fl.why(ctx, h, err)
	}
	fl.written(a.Size + int64(len(p)))
	return len(p), a.Size, nil
}

// copyChunk is what one copy-data request copies: the server does nothing else
// meanwhile.
const copyChunk = 32 << 20

// CopyRange copies on the upstream: EOPNOTSUPP if it cannot, or not between
// these two files.
func (fl *file) CopyRange(ctx context.Context, off int64, dst bridge.File, dstOff, n int64) (int64, error) {
	to, ok := dst.(*file)
	if !ok || to.f != fl.f || to == fl || !fl.f.info.has(extCopyData, "1") || to.flags.Has(syscall.O_APPEND) {
		return 0, syscall.EOPNOTSUPP
	}
	if off < 0 || dstOff < 0 || n < 0 {
		return 0, syscall.EINVAL
	}
	a, err := fl.Attr(ctx)
	if err != nil {
		return 0, err
	}
	n = min(n, max(a.Size-off, 0))
	to.begun()
	done := int64(0)
	for done < n {
		m := min(n-done, copyChunk)
		if err := fl.copyOne(started(ctx), off+done, to, dstOff+done, m); err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		done += m
		to.written(dstOff + done)
	}
	return done, nil
}

// copyOne sends one copy-data on a session that has both files open.
func (fl *file) copyOne(ctx context.Context, off int64, to *file, dstOff, n int64) error {
	src, err := fl.live(ctx)
	if err != nil {
		return err
	}
	dst, err := to.live(ctx)
	if err != nil {
		return err
	}
	for _, a := range src {
		for _, b := range dst {
			if a.s != b.s {
				continue
			}
			calls, err := a.s.exchange(ctx, copyData(a.h, off, n, b.h, dstOff))
			if err != nil {
				return err
			}
			if err = calls[0].status(); isVague(err) {
				err = to.why(ctx, b, err)
			}
			if isVague(err) {
				return syscall.EOPNOTSUPP // as between names of one file
			}
			return err
		}
	}
	return syscall.EOPNOTSUPP
}

func copyData(from string, off, n int64, to string, dstOff int64) request {
	r := extended(extCopyData, func(b *sshfx.Buffer) {
		b.AppendString(from)
		b.AppendUint64(uint64(off))
		b.AppendUint64(uint64(n))
		b.AppendString(to)
		b.AppendUint64(uint64(dstOff))
	})
	r.slow = true
	return r
}

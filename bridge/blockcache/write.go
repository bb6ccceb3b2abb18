package blockcache

import (
	"context"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// maxSends is how many writes of one file are in flight at most.
const maxSends = 64

// WriteAt takes the data p for the offset off, to be sent through src, which
// stays open until Flush has returned. All readers see it at once. It waits
// only when there is too much dirty data. It may return at once the error of
// an earlier write. Fewer bytes than len(p) are taken only with an error.
func (f *File) WriteAt(ctx context.Context, src Source, p []byte, off int64) (int, error) {
	if off < 0 || off > maxOffset-int64(len(p)) {
		return 0, syscall.EINVAL
	}
	var spare *buffer
	f.mu.Lock()
	defer func() {
		f.mu.Unlock()
		if spare != nil {
			f.cache.sent(spare)
		}
	}()
	for n := 0; ; {
		if f.closed {
			return n, fs.ErrClosed
		}
		if f.err != nil {
			return n, f.err
		}
		n += f.putLocked(src, p[n:], off+int64(n), &spare)
		f.version++
		f.cursor = off + int64(n)
		f.sendLocked()
		if n == len(p) {
			return n, nil
		}
		var err error
		spare, err = f.spareLocked(ctx, off+int64(n), len(p)-n)
		if err != nil {
			return n, err
		}
	}
}

// spareLocked returns a buffer for a write of n bytes at off, when there is
// room, or nil to try again. One that carries on a sequence gets a larger one.
// The caller holds f.mu, which it releases while it waits.
func (f *File) spareLocked(ctx context.Context, off int64, n int) (*buffer, error) {
	most := f.cache.maxExtent()
	least := bufferSize(min(n, most))
	if f.held > 0 && f.held+int64(least) > maxFileDirty {
		return nil, f.waitLocked(ctx)
	}
	want := least
	if off == f.cursor && f.held > 0 {
		want = min(most, max(least, 2*f.lastSize))
	}
	if f.held+int64(want) > maxFileDirty {
		want = least
	}
	f.mu.Unlock()
	defer f.mu.Lock()
	return f.cache.written(ctx, want, least)
}

// Flush is Settle and then Failed.
func (f *File) Flush(ctx context.Context) error {
	if err := f.Settle(ctx); err != nil {
		return err
	}
	return f.Failed()
}

// Failed returns the first error of a write that it has not returned yet.
func (f *File) Failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.err
	f.err = nil
	return err
}

// Settle waits until everything that was written before has reached its
// source, or could not be sent, whereupon it is forgotten.
func (f *File) Settle(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	epoch := f.epoch
	f.epoch++
	f.flushers++
	defer func() { f.flushers-- }()
	f.sendLocked()
	for !f.closed && f.olderLocked(epoch) {
		if err := f.waitLocked(ctx); err != nil {
			return err
		}
	}
	if f.closed && f.err == nil {
		return fs.ErrClosed
	}
	return nil
}

// Dirty reports whether there is data that its source does not have yet.
func (f *File) Dirty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dirty)+len(f.sending) > 0
}

// End returns the highest end of dirty data or data in flight, or 0 if there
// is none. The true size of the file is that or the backend's, whichever is
// more.
func (f *File) End() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.endLocked()
}

// olderLocked reports whether there are extents as old as epoch. The caller
// holds f.mu.
func (f *File) olderLocked(epoch uint64) bool {
	old := func(e *extent) bool { return e.epoch <= epoch }
	return slices.ContainsFunc(f.dirty, old) || slices.ContainsFunc(f.sending, old)
}

// waitLocked waits until an extent is gone. The caller holds f.mu, which it
// releases meanwhile.
func (f *File) waitLocked(ctx context.Context) error {
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	wake := f.wake
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wakeLocked wakes all who wait for extents to go. The caller holds f.mu.
func (f *File) wakeLocked() {
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

// sendLocked sends what is to be sent. Afterwards something is in flight if
// anything is dirty. The caller holds f.mu.
func (f *File) sendLocked() {
	for !f.closed && len(f.sending) < maxSends {
		e := f.nextLocked()
		if e == nil {
			return
		}
		if !f.cache.begin() {
			f.failLocked(e, fs.ErrClosed)
			continue
		}
		e.sent = e.n
		f.sending = append(f.sending, e)
		data, purged := e.data(), f.purged
		wait := e.start(data)
		f.wg.Go(func() {
			defer f.cache.wg.Done()
			f.sent(e, wait(f.ctx), purged)
			f.cache.trim()
		})
	}
}

// start sends the data of e, or has that done by wait, which returns the
// outcome. The caller holds File.mu.
func (e *extent) start(data []byte) (wait func(ctx context.Context) error) {
	if s, ok := e.src.(Starter); ok {
		if wait := s.StartWrite(data, e.off); wait != nil {
			e.begun = true
			return wait
		}
	}
	return func(ctx context.Context) error {
		n, err := e.src.WriteAt(ctx, data, e.off)
		if err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		return err
	}
}

// Push sends what was written, and reports whether all that has not arrived
// yet is on its way through src in order, so that what is started behind it now
// comes after it.
func (f *File) Push(src Source) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flushers++
	f.sendLocked()
	f.flushers--
	return !f.closed && len(f.dirty) == 0 && !slices.ContainsFunc(f.sending, func(e *extent) bool { return e.src != src || !e.begun })
}

// nextBlock returns where the first block at or after off begins.
func nextBlock(off int64) int64 { return (off + BlockSize - 1) / BlockSize * BlockSize }

// keepLocked makes what e has written the content of blocks that are not known.
// Who reads what was just written need not fetch it. The caller holds f.mu.
func (f *File) keepLocked(e *extent) {
	for at := nextBlock(e.off); at < e.end(); at += BlockSize {
		idx := at / BlockSize
		if f.closed || f.blocks[idx] != nil || f.pending[idx] != nil {
			continue
		}
		lo, n := int(at-e.off), int(min(BlockSize, e.end()-at))
		f.storeLocked(idx, e.buf, lo, n)
		f.overlayLocked(e.buf.b[lo:lo+n], at) // what is newer
	}
}

// sent ends the flight of e, which began when f.purged was purged, and sends
// what waited for it. What was written is kept, if the file has it still.
func (f *File) sent(e *extent, err error, purged uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.sending, e)
	f.sending = slices.Delete(f.sending, i, i+1)
	if err != nil {
		f.failLocked(e, err)
	} else {
		f.version++ // what was read before it arrived is worthless
		if e.n > 0 {
			f.recordLocked(e.data(), e.off)
			if f.purged == purged {
				f.keepLocked(e)
			}
		}
		f.freeLocked(e)
	}
	f.sendLocked()
}

// failLocked gives up e, which is in no list any more, and what was read of its
// range. The caller holds f.mu.
func (f *File) failLocked(e *extent, err error) {
	if f.err == nil {
		f.err = err
	}
	f.version++
	end := e.off + int64(max(e.n, e.sent))
	f.dropRangeLocked(e.off, end)
	f.detachRangeLocked(e.off, end)
	f.freeLocked(e)
}

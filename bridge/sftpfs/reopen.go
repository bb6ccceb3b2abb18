package sftpfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// do runs op, which may be repeated, on a handle; again if the session ends
// under it and there is time left.
func (fl *file) do(ctx context.Context, op func(ctx context.Context, h handle) error) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	ctx = started(ctx)
	for {
		hs, err := fl.live(ctx)
		if err == nil {
			err = op(ctx, least(hs))
		}
		if !fl.f.again(ctx, err) {
			return err
		}
	}
}

// least returns the handle whose session has the least to do.
func least(hs []handle) handle {
	best := hs[0]
	for _, h := range hs[1:] {
		if h.s.load.Load() < best.s.load.Load() {
			best = h
		}
	}
	return best
}

// live returns the handles of sessions that are alive, one at least: if there
// is none, the file is opened again.
func (fl *file) live(ctx context.Context) ([]handle, error) {
	for {
		fl.mu.Lock()
		if fl.closed {
			fl.mu.Unlock()
			return nil, syscall.EBADF
		}
		fl.handles = slices.DeleteFunc(fl.handles, func(h handle) bool { return !h.s.alive() })
		if len(fl.handles) > 0 {
			hs := slices.Clone(fl.handles)
			fl.mu.Unlock()
			return hs, nil
		}
		if busy := fl.opening; busy != nil {
			fl.mu.Unlock()
			select {
			case <-busy:
				continue
			case <-ctx.Done():
				return nil, ctxError(ctx)
			}
		}
		fl.opening = make(chan struct{})
		fl.mu.Unlock()
		h, err := fl.reopen(ctx)
		fl.mu.Lock()
		close(fl.opening)
		fl.opening = nil
		if err == nil {
			fl.handles = append(fl.handles, h)
		}
		fl.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// reopen opens the file by its present name. A name that is not there may just
// be changing: it is tried again if it did.
func (fl *file) reopen(ctx context.Context) (handle, error) {
	const tries = 4
	for range tries {
		name, named := fl.f.names.nameOf(fl)
		if !named {
			return handle{}, stale(errors.New("its name is gone"))
		}
		h, err := fl.openAs(ctx, name)
		if err != nil && !isStatus(err) && !errors.Is(err, syscall.ESTALE) && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR) {
			return handle{}, err
		}
		if err != nil { // let renames and removals under way end
			fl.f.naming.Lock()
			//lint:ignore SA2001 the wait is all that is wanted
			fl.f.naming.Unlock()
		}
		now, named := fl.f.names.nameOf(fl)
		if named && now == name {
			if err != nil {
				return handle{}, stale(err)
			}
			return h, nil
		}
		if err == nil {
			h.s.send(closing(h.h))
		}
	}
	return handle{}, stale(errors.New("its name changes all the time"))
}

// stale is the error of a file that cannot be opened again.
func stale(err error) error {
	if errors.Is(err, syscall.ESTALE) {
		return err
	}
	return fmt.Errorf("a file that was open cannot be opened again: %w: %w", syscall.ESTALE, err)
}

// openAs opens the file as name and makes sure that it is the same file.
func (fl *file) openAs(ctx context.Context, name string) (handle, error) {
	s, err := fl.f.pool.session(ctx)
	if err != nil {
		return handle{}, err
	}
	h, err := fl.openOn(ctx, s, name)
	if err != nil {
		return handle{}, err
	}
	calls, err := s.exchange(ctx, fstat(h.h))
	if err != nil {
		return handle{}, err
	}
	a, err := calls[0].attrs()
	if err == nil && !fl.same(a) {
		err = syscall.ESTALE
	}
	if err != nil {
		s.send(closing(h.h))
	}
	return h, err
}

// openOn opens the file as name on the session s, without what the first open
// did beyond opening.
func (fl *file) openOn(ctx context.Context, s *session, name string) (handle, error) {
	p, err := fl.f.path(name)
	if err != nil {
		return handle{}, err
	}
	h, _, err := fl.f.openThere(ctx, s, name, request{packet: &sshfx.OpenPacket{Filename: p, PFlags: pflags(fl.flags)}})
	return handle{s, h}, err
}

// same reports whether a file with the attributes a may be the one that was
// open: it has the same mtime, or is not smaller.
func (fl *file) same(a bridge.Attr) bool {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	return a.IsRegular() && (a.Size >= fl.size || fl.mtime != unknownTime && a.Mtime.Equal(fl.mtime) && a.Size == fl.size)
}

// How many bytes must have moved before a further handle is worth it, and
// before it is tried again.
const (
	widenFirst = 2 << 20
	widenNext  = 8 << 20
)

// moves notes that n bytes have moved. When the sessions of all handles have
// enough to do, the file is opened on a further one, beside the transfer.
func (fl *file) moves(n int) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.moved += int64(n)
	if fl.moved < fl.widenAt || fl.closed || fl.flags.Has(syscall.O_APPEND) {
		return
	}
	if fl.flags.Writes() && !fl.f.info.posix() {
		return
	}
	for _, h := range fl.handles {
		if !h.s.alive() || h.s.load.Load() < busy {
			return
		}
	}
	s := fl.f.pool.other(fl.handles)
	if s == nil {
		return
	}
	fl.widenAt = fl.moved + widenNext
	first := fl.handles[0]
	fl.widening.Add(1)
	go func() {
		defer fl.widening.Done()
		fl.widen(first, s)
	}()
}

// widen opens the file on the session s too, if what its name means there is
// at the same time as large and as old as the file that is open.
func (fl *file) widen(first handle, s *session) {
	ctx, cancel := context.WithTimeout(context.Background(), fl.f.opt.Timeout)
	defer cancel()
	name, named := fl.f.names.nameOf(fl)
	if !named {
		return
	}
	h, err := fl.openOn(ctx, s, name)
	if err != nil {
		return
	}
	if fl.flags.Writes() {
		fl.writing.Lock()
		defer fl.writing.Unlock()
	}
	if !fl.agree(ctx, first, h) {
		s.send(closing(h.h))
		return
	}
	if now, named := fl.f.names.nameOf(fl); !named || now != name {
		s.send(closing(h.h))
		return
	}
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.handles = append(fl.handles, h)
}

// agree reports whether two handles show the same attributes.
func (fl *file) agree(ctx context.Context, a, b handle) bool {
	ca, err := a.s.begin(fstat(a.h))
	if err != nil {
		return false
	}
	cb, err := b.s.begin(fstat(b.h))
	if err != nil {
		drop(ca)
		return false
	}
	if wait(ctx, ca[0], cb[0]) != nil {
		return false
	}
	x, err := ca[0].attrs()
	if err != nil {
		return false
	}
	y, err := cb[0].attrs()
	if err != nil {
		return false
	}
	x.Atime, y.Atime = unknownTime, unknownTime
	return x == y
}

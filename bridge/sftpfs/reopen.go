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

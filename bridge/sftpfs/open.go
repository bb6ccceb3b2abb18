package sftpfs

import (
	"context"
	"errors"
	"io"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// pflags are the flags of OPEN for those of open(2), without those that make
// or empty a file.
func pflags(flags bridge.OpenFlags) uint32 {
	var p uint32
	if flags.Reads() {
		p |= sshfx.FlagRead
	}
	if flags.Writes() || flags.Has(syscall.O_TRUNC) {
		p |= sshfx.FlagWrite
	}
	if flags.Has(syscall.O_APPEND) {
		p |= sshfx.FlagAppend
	}
	return p
}

// Open opens a file. Making one and opening one that is there are two
// different requests, so that no symbolic link is ever followed to make or to
// empty a file: O_CREAT first tries to make it with O_EXCL.
func (f *FS) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	p, err := f.path(name)
	if err != nil {
		return nil, err
	}
	if name == "." {
		return nil, syscall.EISDIR
	}
	o := &opening{f: f, name: name, path: p, flags: flags, attr: attr}
	ctx = started(ctx)
	const tries = 3 // somebody may make and remove the name all the time
	for range tries {
		if flags.Has(syscall.O_CREAT) {
			fl, err := o.create(ctx)
			if !errors.Is(err, syscall.EEXIST) || flags.Has(syscall.O_EXCL) {
				return fl, err
			}
		}
		fl, err := o.existing(ctx)
		if !errors.Is(err, syscall.ENOENT) || !flags.Has(syscall.O_CREAT) {
			return fl, err
		}
	}
	return nil, syscall.EIO
}

// An opening is a run of Open.
type opening struct {
	f          *FS
	name, path string
	flags      bridge.OpenFlags
	attr       bridge.SetAttr
	ahead      []byte // what is read together with opening, if it can
	got        int    // how much of it was read, -1 if it was not
}

// open is an OPEN request.
func (o *opening) open(more uint32, attrs sshfx.Attributes) request {
	return request{packet: &sshfx.OpenPacket{Filename: o.path, PFlags: pflags(o.flags) | more, Attrs: attrs}}
}

// existing opens a file that is there.
func (o *opening) existing(ctx context.Context) (bridge.File, error) {
	var fl *file
	err := o.f.do(ctx, func(ctx context.Context, s *session) error {
		h, a, got, err := o.f.openReading(ctx, s, o.name, o.open(0, sshfx.Attributes{}), o.ahead)
		if err != nil {
			return err
		}
		o.got = got
		if o.flags.Has(syscall.O_TRUNC) {
			if err := o.truncate(ctx, s, h); err != nil {
				s.send(closing(h))
				return err
			}
			a.Size, a.Mtime = 0, unknownTime
		}
		fl = newFile(o, s, h, a)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fl, nil
}

// OpenRead implements bridge.ReadOpenBackend.
func (f *FS) OpenRead(ctx context.Context, name string, p []byte) (bridge.File, int, error) {
	path, err := f.path(name)
	if err != nil {
		return nil, 0, err
	}
	if name == "." {
		return nil, 0, syscall.EISDIR
	}
	o := &opening{f: f, name: name, path: path, flags: syscall.O_RDONLY, ahead: p}
	fl, err := o.existing(ctx)
	return fl, o.got, err
}

// openThere sends the OPEN of a file that is there, with an LSTAT in front of
// it: ELOOP for a symbolic link, EISDIR for a directory, ENXIO for what is no
// file at all.
func (f *FS) openThere(ctx context.Context, s *session, name string, open request) (string, bridge.Attr, error) {
	h, a, _, err := f.openReading(ctx, s, name, open, nil)
	return h, a, err
}

// openReading is openThere, and reads the beginning of the file into ahead, if
// the handle can be foreseen: got is -1 if not.
func (f *FS) openReading(ctx context.Context, s *session, name string, open request, ahead []byte) (h string, a bridge.Attr, got int, err error) {
	p, err := f.path(name)
	if err != nil {
		return "", a, -1, err
	}
	reqs := []request{lstat(p), open}
	if len(ahead) > 0 {
		ahead = ahead[:min(len(ahead), s.readSize())]
		reqs = append(reqs, foreseen(request{packet: &sshfx.ReadPacket{Length: uint32(len(ahead))}, dst: ahead}))
	}
	calls, err := f.guarded(ctx, s, name, reqs...)
	if err != nil {
		return "", a, -1, err
	}
	h, a, err = f.opened(ctx, s, name, calls)
	if err != nil || len(ahead) == 0 || !calls[2].went(h) {
		return h, a, -1, err
	}
	got, err = calls[2].data()
	if err != nil && err != io.EOF {
		got = -1 // who reads is told
	}
	return h, a, got, nil
}

// opened takes the answers to the LSTAT and the OPEN of a file.
func (f *FS) opened(ctx context.Context, s *session, name string, calls []*call) (string, bridge.Attr, error) {
	a, err := calls[0].attrs()
	switch {
	case err != nil:
	case a.IsSymlink():
		err = syscall.ELOOP
	case a.IsDir():
		err = syscall.EISDIR
	case !a.IsRegular():
		err = syscall.ENXIO
	}
	if err != nil {
		drop(calls)
		return "", a, err
	}
	h, err := calls[1].handle()
	return h, a, f.why(ctx, s, err, name)
}

// truncate empties the open file.
func (o *opening) truncate(ctx context.Context, s *session, handle string) error {
	var a sshfx.Attributes
	a.SetSize(0)
	calls, err := s.exchange(ctx, request{packet: &sshfx.FSetStatPacket{Handle: handle, Attrs: a}})
	if err != nil {
		return err
	}
	return o.f.why(ctx, s, calls[0].status(), o.name)
}

// create makes a file that must not be there: EEXIST. What it has become is
// asked for in the same write.
func (o *opening) create(ctx context.Context) (bridge.File, error) {
	if err := checkSet(o.attr); err != nil {
		return nil, err
	}
	var fl *file
	var now bridge.Attr
	err := o.f.once(ctx, func(ctx context.Context, s *session) error {
		if err := o.f.guard(ctx, s, o.name); err != nil {
			return err
		}
		var a sshfx.Attributes
		if o.attr.Has(bridge.SetMode) {
			a.SetPermissions(sshfx.FileMode(o.attr.Mode & 0o7777))
		}
		calls, err := s.exchange(ctx, o.open(sshfx.FlagWrite|sshfx.FlagCreate|sshfx.FlagExclusive, a), lstat(o.path))
		if err != nil {
			return err
		}
		h, err := calls[0].handle()
		if err != nil {
			return o.f.whyNotMade(ctx, s, err, o.name, calls[1])
		}
		if now, err = calls[1].attrs(); err != nil { // a server may answer this one first
			now = bridge.Attr{}
		}
		fl = newFile(o, s, h, now)
		return nil
	}, func(ctx context.Context, s *session) (done bool, err error) {
		fl, done, err = o.created(ctx, s)
		return done, err
	})
	if err != nil {
		return nil, err
	}
	if err := fl.dress(ctx, o.attr, now); err != nil {
		fl.Close(ctx)
		o.f.Remove(ctx, o.name)
		return nil, err
	}
	return fl, nil
}

// created looks, after the connection broke, whether the file was made: it is
// there and empty.
func (o *opening) created(ctx context.Context, s *session) (*file, bool, error) {
	a, err := o.f.look(ctx, s, o.name)
	if absent(err) || err == nil && !(a.IsRegular() && a.Size == 0) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	h, a, err := o.f.openThere(ctx, s, o.name, o.open(0, sshfx.Attributes{}))
	if err != nil {
		return nil, false, err
	}
	return newFile(o, s, h, a), true, nil
}

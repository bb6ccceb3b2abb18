package sftpfs

import (
	"context"
	"errors"
	"io"
	"iter"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// How many READDIR are in flight on one listing, at first and at most.
const (
	readDirMin = 2
	readDirMax = 16
)

// ReadDir yields the entries of a directory. When the connection breaks, it
// goes on with a new listing, without the names that it has had.
func (f *FS) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		l := &listing{f: f, name: name, yield: yield, seen: make(map[string]struct{})}
		p, err := f.path(name)
		if err == nil {
			l.path = p
			err = f.do(ctx, l.run)
		}
		if err != nil && !l.stopped {
			yield(bridge.DirEntry{}, err)
		}
	}
}

// A listing is a run of ReadDir.
type listing struct {
	f          *FS
	name, path string
	yield      func(bridge.DirEntry, error) bool
	seen       map[string]struct{} // names that were yielded
	stopped    bool                // yield wants no more
}

// run lists the directory on the session s.
func (l *listing) run(ctx context.Context, s *session) error {
	handle, err := l.open(ctx, s)
	if err != nil {
		return err
	}
	defer s.send(closing(handle))
	var queue []*call
	defer func() { drop(queue) }()
	for window, end := readDirMin, false; ; {
		for !end && len(queue) < window {
			calls, err := s.begin(request{packet: &sshfx.ReadDirPacket{Handle: handle}})
			if err != nil {
				return err
			}
			queue = append(queue, calls...)
		}
		if len(queue) == 0 {
			return nil
		}
		c := queue[0]
		if err := c.wait(ctx); err != nil {
			return err
		}
		queue = queue[1:]
		entries, err := c.names()
		if err == io.EOF || err == nil && len(entries) == 0 {
			end = true // answers to later requests may hold names all the same
			continue
		}
		if err != nil {
			return err
		}
		if err := l.take(c, entries); err != nil || l.stopped {
			return err
		}
		progress(ctx)
		window = min(2*window, readDirMax)
	}
}

// open opens the directory. That it is one, and no link to one, is made sure
// in the same write.
func (l *listing) open(ctx context.Context, s *session) (string, error) {
	opendir := request{packet: &sshfx.OpenDirPacket{Path: l.path}}
	below := l.name + "/."
	if l.name == "." {
		below = "."
	}
	calls, err := l.f.guarded(ctx, s, below, opendir)
	if err != nil {
		return "", err
	}
	handle, err := calls[0].handle()
	if !isStatus(err) {
		return handle, err
	}
	if a, lerr := l.f.look(ctx, s, l.name); lerr != nil {
		err = lerr
	} else if !a.IsDir() {
		err = syscall.ENOTDIR
	}
	return "", err
}

// take yields the entries of one answer.
func (l *listing) take(c *call, entries []entry) error {
	for _, e := range entries {
		if e.name == "." || e.name == ".." {
			continue
		}
		if err := checkEntryName(e.name); err != nil {
			return c.garbage("%w", err)
		}
		if len(e.name) > bridge.NameMax {
			continue // nobody could ask for it
		}
		if _, ok := l.seen[e.name]; ok {
			continue
		}
		if len(l.seen) >= maxListing {
			return c.garbage("a listing without end")
		}
		l.seen[e.name] = struct{}{}
		d := toEntry(e)
		if d.Attr.IsDir() {
			l.f.dirs.add(joinName(l.name, e.name))
		}
		if !l.yield(d, nil) {
			l.stopped = true
			return nil
		}
	}
	return nil
}

// joinName returns the name of an entry of dir.
func joinName(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// Mkdir makes a directory. The mode is set a second time if the upstream's
// umask may have cut it.
func (f *FS) Mkdir(ctx context.Context, name string, attr bridge.SetAttr) error {
	p, err := f.path(name)
	if err != nil {
		return err
	}
	if name == "." {
		return syscall.EEXIST
	}
	mkdir := func(ctx context.Context, s *session) error {
		if err := f.guard(ctx, s, name); err != nil {
			return err
		}
		var a sshfx.Attributes
		if attr.Has(bridge.SetMode) {
			a.SetPermissions(sshfx.FileMode(attr.Mode & 0o7777))
		}
		calls, err := s.exchange(ctx, request{packet: &sshfx.MkdirPacket{Path: p, Attrs: a}})
		if err != nil {
			return err
		}
		return f.whyNotMade(ctx, s, calls[0].status(), name)
	}
	made := func(ctx context.Context, s *session) (bool, error) { return f.isEmptyDir(ctx, s, name, p) }
	if err := f.once(ctx, mkdir, made); err != nil {
		return err
	}
	f.dirs.add(name)
	if err := f.finishDir(ctx, name, p, attr); err != nil {
		f.Rmdir(ctx, name)
		return err
	}
	return nil
}

// whyNotMade finds out why name could not be made.
func (f *FS) whyNotMade(ctx context.Context, s *session, err error, name string) error {
	if !isStatus(err) {
		return err
	}
	_, lerr := f.look(ctx, s, name)
	switch {
	case lerr == nil:
		return syscall.EEXIST
	case errors.Is(err, syscall.ENOENT) && errors.Is(lerr, syscall.ENOTDIR):
		return syscall.ENOTDIR
	}
	return f.why(ctx, s, err, name)
}

// isEmptyDir reports whether name is a directory with nothing in it.
func (f *FS) isEmptyDir(ctx context.Context, s *session, name, path string) (bool, error) {
	a, err := f.look(ctx, s, name)
	if absent(err) || err == nil && !a.IsDir() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	empty := true
	l := &listing{f: f, name: name, path: path, seen: make(map[string]struct{}),
		yield: func(bridge.DirEntry, error) bool { empty = false; return false }}
	err = l.run(ctx, s)
	return empty, err
}

// finishDir gives a new directory the mode and owner that MKDIR cannot.
func (f *FS) finishDir(ctx context.Context, name, p string, attr bridge.SetAttr) error {
	set := attr.Without(^(bridge.SetMode | bridge.SetUID | bridge.SetGID))
	if set.Valid == 0 {
		return nil
	}
	return f.do(ctx, func(ctx context.Context, s *session) error {
		return f.setAttr(ctx, s, name, p, set)
	})
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(ctx context.Context, name string) error {
	p, err := f.path(name)
	if err != nil {
		return err
	}
	if name == "." {
		return syscall.EBUSY
	}
	f.naming.RLock()
	defer f.naming.RUnlock()
	f.dirs.drop(name)
	return f.once(ctx, func(ctx context.Context, s *session) error {
		if err := f.guard(ctx, s, name); err != nil {
			return err
		}
		calls, err := s.exchange(ctx, request{packet: &sshfx.RmdirPacket{Path: p}})
		if err != nil {
			return err
		}
		err = calls[0].status()
		if !isStatus(err) {
			return err
		}
		a, lerr := f.look(ctx, s, name)
		switch {
		case lerr != nil:
			return lerr
		case !a.IsDir():
			return syscall.ENOTDIR
		case !isVague(err):
			return err
		}
		if err = f.why(ctx, s, err, name); isVague(err) {
			return syscall.ENOTEMPTY
		}
		return err
	}, f.gone(name))
}

// gone returns a function that reports whether name is there no more.
func (f *FS) gone(name string) func(context.Context, *session) (bool, error) {
	return func(ctx context.Context, s *session) (bool, error) {
		_, err := f.look(ctx, s, name)
		if absent(err) {
			return true, nil
		}
		return false, err
	}
}

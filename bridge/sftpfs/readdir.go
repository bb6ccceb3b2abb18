package sftpfs

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// How many READDIR are in flight on one listing, at first and at most.
const (
	readDirMin = 2
	readDirMax = 16
)

// fullBatch is how many names OpenSSH gives at once: as long as answers are so
// full, more requests are put in flight.
const fullBatch = 100

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
	handle, queue, err := l.open(ctx, s)
	if err != nil {
		return err
	}
	defer s.send(closing(handle))
	defer func() { drop(queue) }()
	window, batch := readDirMin, fullBatch
	more, end := len(queue) == 0, false
	for {
		if more {
			calls, err := s.begin(readDirs(handle, window-len(queue))...)
			if err != nil {
				return err
			}
			queue = append(queue, calls...)
		}
		c := queue[0]
		if err := c.wait(ctx); err != nil {
			return err
		}
		queue = queue[1:]
		entries, err := c.names()
		if err != nil && err != io.EOF {
			return err
		}
		if err := l.take(c, entries); err != nil || l.stopped {
			return err
		}
		progress(ctx)
		switch {
		case len(entries) == 0: // the end, or an answer that came before others
			end = true
		case len(entries) >= batch:
			batch = len(entries)
			window = min(2*window, readDirMax)
		}
		if end && len(queue) == 0 {
			return nil
		}
		// An answer that is not full is likely to be the last with names.
		more = !end && (len(entries) >= batch || len(queue) == 0)
	}
}

// readDirs are n requests for entries.
func readDirs(handle string, n int) []request {
	reqs := make([]request, n)
	for i := range reqs {
		reqs[i].packet = &sshfx.ReadDirPacket{Handle: handle}
	}
	return reqs
}

// open opens the directory. That it is one, and no link to one, is made sure
// in the same write, with which its first entries are asked for too if the
// handle can be foreseen.
func (l *listing) open(ctx context.Context, s *session) (handle string, first []*call, err error) {
	reqs := []request{{packet: &sshfx.OpenDirPacket{Path: l.path}}}
	for _, r := range readDirs("", readDirMin) {
		reqs = append(reqs, foreseen(r))
	}
	below := l.name + "/."
	if l.name == "." {
		below = "."
	}
	calls, err := l.f.guarded(ctx, s, below, reqs...)
	if err != nil {
		return "", nil, err
	}
	handle, err = calls[0].handle()
	if !isStatus(err) {
		first = calls[1:]
		if err != nil || slices.ContainsFunc(first, func(c *call) bool { return !c.went(handle) }) {
			first = nil
		}
		return handle, first, err
	}
	if a, lerr := l.f.look(ctx, s, l.name); lerr != nil {
		err = lerr
	} else if !a.IsDir() {
		err = syscall.ENOTDIR
	}
	return "", nil, err
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
		d.Asked = c.born
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

// Mkdir makes a directory.
func (f *FS) Mkdir(ctx context.Context, name string, attr bridge.SetAttr) error {
	_, err := f.MkdirAttr(ctx, name, attr)
	return err
}

// MkdirAttr implements bridge.MkdirAttrBackend. What the directory has become is
// asked for in the same write; what the upstream's umask has cut of its mode
// is set then.
func (f *FS) MkdirAttr(ctx context.Context, name string, attr bridge.SetAttr) (now bridge.Attr, err error) {
	p, err := f.path(name)
	if err != nil {
		return now, err
	}
	if name == "." {
		return now, syscall.EEXIST
	}
	if err := checkSet(attr); err != nil {
		return now, err
	}
	mkdir := func(ctx context.Context, s *session) error {
		if err := f.guard(ctx, s, name); err != nil {
			return err
		}
		var a sshfx.Attributes
		if attr.Has(bridge.SetMode) {
			a.SetPermissions(sshfx.FileMode(attr.Mode & 0o7777))
		}
		calls, err := s.exchange(ctx, request{packet: &sshfx.MkdirPacket{Path: p, Attrs: a}}, lstat(p))
		if err != nil {
			return err
		}
		if err := calls[0].status(); err != nil {
			return f.whyNotMade(ctx, s, err, name, calls[1])
		}
		if now, err = calls[1].attrs(); err != nil { // a server may answer this one first
			now = bridge.Attr{}
		}
		return nil
	}
	made := func(ctx context.Context, s *session) (bool, error) { return f.isEmptyDir(ctx, s, name, p) }
	if err := f.once(ctx, mkdir, made); err != nil {
		return now, err
	}
	f.dirs.add(name)
	set := lacking(attr.Without(bridge.SetSize), now)
	if set.Valid == 0 {
		return now, nil
	}
	err = f.do(ctx, func(ctx context.Context, s *session) error {
		return f.setAttr(ctx, s, name, p, set)
	})
	if err != nil {
		f.Rmdir(ctx, name)
	}
	return applied(set, now), err
}

// whyNotMade finds out why name could not be made. seen is an LSTAT of it that
// was sent along.
func (f *FS) whyNotMade(ctx context.Context, s *session, err error, name string, seen *call) error {
	return f.why(ctx, s, f.whyTaken(ctx, s, err, name, seen), name)
}

// whyTaken finds out whether name could not be made because of what is there.
func (f *FS) whyTaken(ctx context.Context, s *session, err error, name string, seen *call) error {
	if !isStatus(err) {
		return err
	}
	if _, serr := seen.attrs(); serr == nil {
		return syscall.EEXIST
	}
	_, lerr := f.look(ctx, s, name)
	switch {
	case lerr == nil:
		return syscall.EEXIST
	case errors.Is(err, syscall.ENOENT) && errors.Is(lerr, syscall.ENOTDIR):
		return syscall.ENOTDIR
	}
	return err
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

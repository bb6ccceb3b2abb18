package sftpfs

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How long a name that was seen to be a directory is believed to be one, and
// how many such names are kept.
const (
	dirTrust = 5 * time.Second
	dirsMax  = 2048
)

// knownDirs are the names that were just seen to be directories, and not
// symbolic links, so that what is below them need not be checked again.
type knownDirs struct {
	mu   sync.Mutex
	seen map[string]time.Time // guarded by mu
}

// add notes that name is a directory.
func (k *knownDirs) add(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.seen == nil || len(k.seen) >= dirsMax {
		k.seen = make(map[string]time.Time)
	}
	k.seen[name] = time.Now()
}

// drop forgets name and all below it.
func (k *knownDirs) drop(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n := range k.seen {
		if within(n, name) {
			delete(k.seen, n)
		}
	}
}

// unknown returns those directories on the way to name, itself not among them,
// that are not known to be any, from the top down. The root is one.
func (k *knownDirs) unknown(name string) []string {
	var dirs []string
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range len(name) {
		if name[i] != '/' {
			continue
		}
		if t, ok := k.seen[name[:i]]; !ok || time.Since(t) > dirTrust {
			dirs = append(dirs, name[:i])
		}
	}
	return dirs
}

// within reports whether name is dir or below it.
func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, dir+"/")
}

// parentOf returns the directory of name.
func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}

// guarded sends requests that change nothing, and in front of them, in the
// same write, those that make sure that no directory on the way to name is a
// symbolic link: ENOTDIR.
func (f *FS) guarded(ctx context.Context, s *session, name string, reqs ...request) ([]*call, error) {
	dirs := f.dirs.unknown(name)
	all := make([]request, 0, len(dirs)+len(reqs))
	for _, d := range dirs {
		p, err := f.path(d)
		if err != nil {
			return nil, err
		}
		all = append(all, lstat(p))
	}
	calls, err := s.exchange(ctx, append(all, reqs...)...)
	if err != nil {
		return nil, err
	}
	for i, d := range dirs {
		if err := f.checkDir(d, calls[i]); err != nil {
			drop(calls)
			return nil, err
		}
	}
	return calls[len(dirs):], nil
}

// guard makes sure, before something is changed, that no directory on the way
// to the names is a symbolic link. It costs nothing when they are known.
func (f *FS) guard(ctx context.Context, s *session, names ...string) error {
	for _, name := range names {
		if len(f.dirs.unknown(name)) == 0 {
			continue
		}
		if _, err := f.guarded(ctx, s, name); err != nil {
			return err
		}
	}
	return nil
}

// checkDir takes the answer to an LSTAT of the directory name.
func (f *FS) checkDir(name string, c *call) error {
	a, err := c.attrs()
	if err != nil {
		return err
	}
	if !a.IsDir() {
		return syscall.ENOTDIR
	}
	f.dirs.add(name)
	return nil
}

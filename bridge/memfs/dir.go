package memfs

import (
	"context"
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

// A dir is a directory that is held open.
type dir struct {
	fs *FS
	n  *inode
}

// OpenDir returns the directory name.
func (fs *FS) OpenDir(ctx context.Context, name string) (bridge.Dir, error) {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, syscall.ENOTDIR
	}
	return &dir{fs, n}, nil
}

// Attr returns the attributes of the directory.
func (d *dir) Attr(ctx context.Context) (bridge.Attr, error) { return d.n.stat(), alive(ctx) }

// Lstat returns the attributes of the entry name.
func (d *dir) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	if err := alive(ctx); err != nil {
		return bridge.Attr{}, err
	}
	if err := checkElem(name); err != nil {
		return bridge.Attr{}, err
	}
	if strings.IndexByte(name, '/') >= 0 {
		return bridge.Attr{}, syscall.EINVAL
	}
	d.fs.mu.RLock()
	n := d.n.entries[name]
	d.fs.mu.RUnlock()
	if n == nil {
		return bridge.Attr{}, syscall.ENOENT
	}
	return n.stat(), nil
}

// Close has nothing to give back.
func (d *dir) Close() error { return nil }

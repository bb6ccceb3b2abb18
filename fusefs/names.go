package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

// withMode is the attributes of what is made with a mode, from which the
// kernel has taken the caller's umask already.
func withMode(mode uint32) bridge.SetAttr {
	return bridge.SetAttr{Valid: bridge.SetMode, Mode: mode & 0o7777}
}

// Mkdir makes a directory.
func (d *door) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	since := d.notices.count.Load()
	c, dir, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	n, a, err := d.tree.Mkdir(d.ctx, c, dir, name, withMode(in.Mode))
	if err != nil {
		return status(err)
	}
	d.entry(out, n, a, 1, since)
	return d.done(nil)
}

// Mknod makes a file that is not opened: a regular one, a pipe, a socket, a device.
func (d *door) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	since := d.notices.count.Load()
	c, dir, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	n, a, err := d.tree.Mknod(d.ctx, c, dir, name, in.Mode, in.Rdev)
	if err != nil {
		return status(err)
	}
	d.entry(out, n, a, 1, since)
	return d.done(nil)
}

// Symlink makes a symbolic link.
func (d *door) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	since := d.notices.count.Load()
	c, dir, code := d.begin(h)
	if !code.Ok() {
		return code
	}
	n, a, err := d.tree.Symlink(d.ctx, c, dir, name, target)
	if err != nil {
		return status(err)
	}
	d.entry(out, n, a, 1, since)
	return d.done(nil)
}

// Readlink returns what a symbolic link holds.
func (d *door) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	c, n, code := d.begin(h)
	if !code.Ok() {
		return nil, code
	}
	target, err := d.tree.Readlink(d.ctx, c, n)
	if code := d.nodeStatus(h, err); !code.Ok() {
		return nil, code
	}
	return []byte(target), fuse.OK
}

// Link gives a file a further name.
func (d *door) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	since := d.notices.count.Load()
	c, dir, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	n := d.nodes.node(in.Oldnodeid)
	if n == nil {
		return estale
	}
	a, err := d.tree.Link(d.ctx, c, n, dir, name)
	if err != nil {
		return status(err)
	}
	d.entry(out, n, a, 0, since)
	return d.done(nil)
}

// Unlink removes a name that is not a directory.
func (d *door) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c, dir, code := d.begin(h)
	if !code.Ok() {
		return code
	}
	return d.done(d.tree.Unlink(d.ctx, c, dir, name))
}

// Rmdir removes an empty directory.
func (d *door) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c, dir, code := d.begin(h)
	if !code.Ok() {
		return code
	}
	return d.done(d.tree.Rmdir(d.ctx, c, dir, name))
}

// The flags of renameat2(2).
const (
	renameNoReplace = 1
	renameExchange  = 2
)

// Rename is renameat2(2).
func (d *door) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	c, dir, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	newDir := d.nodes.node(in.Newdir)
	if newDir == nil {
		return estale
	}
	var flags bridge.RenameFlags
	switch in.Flags {
	case 0:
	case renameNoReplace:
		flags = bridge.RenameNoReplace
	case renameExchange:
		flags = bridge.RenameExchange
	default:
		return fuse.Status(syscall.EINVAL)
	}
	return d.done(d.tree.Rename(d.ctx, c, dir, oldName, newDir, newName, flags))
}

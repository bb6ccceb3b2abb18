package fusefs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

// A dir is an open directory.
type dir struct {
	h    *bridge.DirHandle
	node *bridge.Node

	mu   sync.Mutex // serializes listings
	read bool       // guarded by mu; something was read
}

// OpenDir begins a listing.
func (d *door) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c, n, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	h, err := d.tree.OpenDir(d.ctx, c, n)
	if err != nil {
		return status(err)
	}
	out.Fh = d.nodes.addDir(&dir{h: h, node: n})
	return fuse.OK
}

// ReleaseDir ends a listing.
func (d *door) ReleaseDir(in *fuse.ReleaseIn) {
	if dir := d.nodes.removeDir(in.Fh); dir != nil {
		dir.h.Close()
	}
}

// FsyncDir has nothing to do: changes of directories are made when they are answered.
func (d *door) FsyncDir(_ <-chan struct{}, _ *fuse.FsyncIn) fuse.Status { return fuse.OK }

// What an entry takes beside its name in the answers of READDIR and
// READDIRPLUS, and to what it is aligned.
const (
	direntSize     = 24
	direntPlusSize = direntSize + 128
	direntAlign    = 8
)

// ReadDir lists names and types.
func (d *door) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return d.list(in, func(_ *dir, e bridge.DirEntry, next uint64) bool {
		return out.AddDirEntry(fuse.DirEntry{Name: e.Name, Mode: e.Attr.Mode, Off: next})
	})
}

// maxGone is how many entries in one answer are looked up in vain: who lists
// names that are not there must not keep others waiting.
const maxGone = 500

// ReadDirPlus lists names with their nodes and attributes, which saves the
// kernel looking them up.
func (d *door) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	since := d.notices.count.Load()
	c, _, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	var look *bridge.DirLook
	defer func() {
		if look != nil {
			look.Close()
		}
	}()
	gone := 0
	return d.list(in, func(dir *dir, e bridge.DirEntry, next uint64) bool {
		size := (direntPlusSize + len(e.Name) + direntAlign - 1) &^ (direntAlign - 1)
		if len(out.Bytes())+size > int(in.Size) {
			return false
		}
		entry := fuse.DirEntry{Name: e.Name, Mode: e.Attr.Mode, Off: next}
		if e.Name == "." || e.Name == ".." {
			if e.Name == "." {
				entry.Ino = in.NodeId
			}
			return out.AddDirLookupEntry(entry) != nil
		}
		if look == nil {
			look = dir.h.Look(d.ctx, c)
		}
		n, a, err := look.Lookup(d.ctx, e)
		code := status(err)
		if code == fuse.ENOENT {
			gone++
		}
		switch {
		case code.Ok():
			entry.Ino = d.nodes.id(n)
			entry.Mode = a.Mode
			if reply := out.AddDirLookupEntry(entry); reply != nil {
				d.entry(reply, n, a, 1, since)
				return true
			}
			d.tree.Forget(n, 1)
			return false
		case code == fuse.ENOENT && gone <= maxGone: // it went since the directory was listed
			return true
		default: // the name may be listed, what it means is not for the caller
			return out.AddDirLookupEntry(entry) != nil
		}
	})
}

// seekable is the place in a listing up to which all of it is kept, for seekdir(3).
// Who seeks back in a longer one has the directory listed again.
const seekable = 100_000

// list calls add for each entry from the offset of in on, with the offset of
// the one after it, until it returns false.
func (d *door) list(in *fuse.ReadIn, add func(dir *dir, e bridge.DirEntry, next uint64) bool) fuse.Status {
	dir := d.nodes.dir(in.Fh)
	if dir == nil {
		return fuse.EBADF
	}
	dir.mu.Lock()
	defer dir.mu.Unlock()
	if in.Offset == 0 && dir.read {
		dir.h.Rewind()
	}
	dir.read = true
	if in.Offset > seekable {
		dir.h.Passed(in.Offset) // the kernel may ask again for what comes after that
	}
	next, added := in.Offset, false
	for e, err := range dir.h.Entries(d.ctx, in.Offset) {
		if err != nil {
			if added {
				break // it is told when the kernel goes on
			}
			return status(err)
		}
		next++
		if !add(dir, e, next) {
			break
		}
		added = true
	}
	return fuse.OK
}

package memfs

import (
	"sync"
	"syscall"

	"sftpbridge/bridge"
)

// device is the Dev of all file ids, and the file system's id.
const device = 0x6d656d6673

// An inode is a file of any type.
type inode struct {
	typ    uint32 // S_IFMT
	ino    uint64
	target string // of a symbolic link

	// The entries of a directory and the directory it is in, which is nil for
	// the root and for what was removed. Guarded by FS.mu.
	entries map[string]*inode
	parent  *inode

	mu     sync.RWMutex
	attr   bridge.Attr // but for Blocks, and the Size of directories
	opens  int         // open files
	data   data
	xattrs map[string][]byte
}

// newInode returns an inode without a link. Attributes that attr does not name
// are the given mode and the owner of the process.
func (fs *FS) newInode(typ, mode uint32, attr bridge.SetAttr) *inode {
	fs.inodes.Add(1)
	n := &inode{typ: typ, ino: fs.lastIno.Add(1)}
	if typ == syscall.S_IFDIR {
		n.entries = make(map[string]*inode)
	}
	t := now()
	uid, gid := owner()
	made := bridge.Attr{
		ID:   bridge.FileID{Dev: device, Ino: n.ino},
		Mode: typ | mode&0o7777,
		UID:  uid, GID: gid,
		Atime: t, Mtime: t, Ctime: t,
	}
	n.attr = attr.Without(bridge.SetSize).Apply(made, t)
	return n
}

func (n *inode) isDir() bool { return n.typ == syscall.S_IFDIR }

// stat returns the attributes as they are now.
func (n *inode) stat() bridge.Attr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.statLocked()
}

// statLocked is stat under n.mu.
func (n *inode) statLocked() bridge.Attr {
	a := n.attr
	a.Blocks = n.data.pages * (pageSize / 512)
	return a
}

// setAttr makes the changes of set, all or none.
func (n *inode) setAttr(s *space, set bridge.SetAttr) error {
	if err := n.checkSet(set); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if set.Has(bridge.SetSize) {
		n.data.punch(s, set.Size, maxSize)
	}
	n.attr = set.Apply(n.attr, now())
	return nil
}

// checkSet returns the errno for a change that n cannot have.
func (n *inode) checkSet(set bridge.SetAttr) error {
	if set.Has(bridge.SetMode) && n.typ == syscall.S_IFLNK {
		return syscall.EOPNOTSUPP
	}
	if !set.Has(bridge.SetSize) {
		return nil
	}
	switch {
	case n.typ == syscall.S_IFLNK:
		return syscall.ELOOP
	case n.isDir():
		return syscall.EISDIR
	case n.typ != syscall.S_IFREG || set.Size < 0:
		return syscall.EINVAL
	}
	return nil
}

// link counts one more link of n.
func (n *inode) link() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attr.Nlink++
	n.attr.Ctime = now()
}

// changed notes that the entries of the directory n have changed, and that
// there are d more directories among them. FS.mu is held.
func (n *inode) changed(d int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attr.Nlink += uint32(d)
	n.attr.Size = int64(len(n.entries)) * entrySize
	n.attr.Mtime = now()
	n.attr.Ctime = n.attr.Mtime
}

// entrySize is what an entry adds to the size of a directory, as on a tmpfs.
const entrySize = 20

// open counts one more open file.
func (n *inode) open() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opens++
}

// close counts one open file less.
func (fs *FS) close(n *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opens--
	fs.reapLocked(n)
}

// unlink takes away one link of n, which is a file, or all those of a
// directory.
func (fs *FS) unlink(n *inode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.attr.Ctime = now()
	n.attr.Nlink--
	if n.isDir() {
		n.attr.Nlink = 0
	}
	fs.reapLocked(n)
}

// reapLocked frees n if nobody has it any more. n.mu is held.
func (fs *FS) reapLocked(n *inode) {
	if n.attr.Nlink > 0 || n.opens > 0 {
		return
	}
	n.data.punch(&fs.space, 0, maxSize)
	fs.inodes.Add(-1)
}

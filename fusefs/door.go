package fusefs

import (
	"context"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
)

// closeTimeout bounds the closing of what is still open when a mount ends.
const closeTimeout = 30 * time.Second

// A door answers the kernel's requests.
type door struct {
	fuse.RawFileSystem // answers ENOSYS to what is not here

	ctx     context.Context // of all operations: an interrupt does not end them
	tree    *bridge.Tree
	sub     *bridge.Subscription
	opt     Options
	callers callers
	nodes   *nodeTable
	notices notices
	pass    passthrough
	retries retries
	blksize uint32
	stop    context.CancelFunc // ends the notifier
	running sync.WaitGroup     // the notifier
	closing sync.Once
}

// newDoor finds the root of the mount and subscribes to changes.
func newDoor(ctx context.Context, tree *bridge.Tree, opt Options) (*door, error) {
	root, a, err := tree.Walk(ctx, opt.root())
	if err != nil {
		return nil, err
	}
	if !a.IsDir() {
		tree.Forget(root, 1)
		return nil, &bridge.Error{Op: "mount", Path: opt.root(), Errno: syscall.ENOTDIR}
	}
	d := &door{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		ctx:           context.WithoutCancel(ctx),
		tree:          tree,
		sub:           tree.Subscribe(),
		opt:           opt,
		nodes:         newNodeTable(tree, root),
	}
	d.notices.init()
	d.callers.avatar = opt.Avatar
	d.callers.realm = opt.Realm
	d.callers.root = opt.root()
	d.callers.door = d.sub.Door()
	d.callers.uncached.Store(opt.Rules || opt.Avatar != nil && len(opt.Avatar.Rules) > 0)
	if tree.Traits().Slow {
		d.blksize = 128 << 10
	}
	return d, nil
}

// String names the file system.
func (d *door) String() string { return typeName }

// close ends the notifier and gives back all that the kernel held: files that
// are still open are closed, and with that written.
func (d *door) close() {
	d.closing.Do(func() {
		if d.stop != nil {
			d.stop()
		}
		d.running.Wait()
		d.sub.Close()
		ctx, cancel := context.WithTimeout(d.ctx, closeTimeout)
		defer cancel()
		files, dirs, nodes := d.nodes.drain()
		var wg sync.WaitGroup
		for _, f := range files {
			wg.Go(func() { d.closeFile(ctx, f) })
		}
		for _, dir := range dirs {
			dir.h.Close()
		}
		wg.Wait()
		for _, e := range nodes {
			d.tree.Forget(e.node, e.held)
		}
		d.tree.Forget(d.nodes.root, 1)
	})
}

// status is the errno of err. ENOSYS would have the kernel never ask again.
func status(err error) fuse.Status {
	errno := bridge.Errno(err)
	if errno == syscall.ENOSYS {
		errno = syscall.EOPNOTSUPP
	}
	return fuse.Status(errno)
}

const (
	estale = fuse.Status(syscall.ESTALE)
	enotty = fuse.Status(syscall.ENOTTY)
)

// begin returns who made the request h and the node it is about.
func (d *door) begin(h *fuse.InHeader) (bridge.Caller, *bridge.Node, fuse.Status) {
	n := d.nodes.node(h.NodeId)
	if n == nil {
		return bridge.Caller{}, nil, estale
	}
	c, code := d.callers.caller(h)
	return c, n, code
}

// timeout is for how long the kernel may believe an answer that was begun at
// the count of notices since. What was changed elsewhere in the meantime is
// not to be remembered, as its notification may have come too early.
func (d *door) timeout(since uint64) time.Duration {
	switch {
	case d.callers.uncached.Load(), d.notices.count.Load() != since, d.opt.AttrTimeout < 0:
		return 0
	case d.opt.AttrTimeout > 0:
		return d.opt.AttrTimeout
	}
	return d.tree.AttrTimeout()
}

// entry answers with the node n, of which it takes over held references.
func (d *door) entry(out *fuse.EntryOut, n *bridge.Node, a bridge.Attr, held, since uint64) {
	out.NodeId = d.nodes.add(n, a.IsDir(), held)
	d.fillAttr(&out.Attr, out.NodeId, a)
	t := d.timeout(since)
	out.SetEntryTimeout(t)
	out.SetAttrTimeout(t)
}

// attr answers with attributes.
func (d *door) attr(out *fuse.AttrOut, id uint64, a bridge.Attr, since uint64) {
	d.fillAttr(&out.Attr, id, a)
	out.SetTimeout(d.timeout(since))
}

func (d *door) fillAttr(out *fuse.Attr, id uint64, a bridge.Attr) {
	out.Ino = id
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Blocks)
	if a.Blocks < 0 {
		out.Blocks = uint64(a.Size+511) / 512
	}
	if a.Ctime.IsZero() {
		a.Ctime = a.Mtime
	}
	out.SetTimes(&a.Atime, &a.Mtime, &a.Ctime)
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid = a.UID
	out.Gid = a.GID
	out.Rdev = a.Rdev
	out.Blksize = d.blksize
}

// Lookup answers with the node of a name. That there is none is remembered too.
func (d *door) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	since := d.notices.count.Load()
	c, dir, code := d.begin(h)
	if !code.Ok() {
		return code
	}
	n, a, err := d.tree.Lookup(d.ctx, c, dir, name)
	if err == nil {
		d.entry(out, n, a, 1, since)
		return fuse.OK
	}
	code = status(err)
	if t := d.timeout(since); code == fuse.ENOENT && t > 0 && len(name) <= bridge.NameMax {
		out.SetEntryTimeout(t) // with node id 0
		return fuse.OK
	}
	return code
}

// Forget takes back what Lookup and its like gave out.
func (d *door) Forget(id, refs uint64) { d.nodes.forget(id, refs) }

// GetAttr answers with attributes, of the open file if there is one.
func (d *door) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	since := d.notices.count.Load()
	if in.Flags()&fuse.FUSE_GETATTR_FH != 0 {
		if f := d.nodes.file(in.Fh()); f != nil {
			a, err := f.h.Attr(d.ctx)
			if err != nil {
				return status(err)
			}
			d.attr(out, in.NodeId, a, since)
			return fuse.OK
		}
	}
	c, n, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	a, err := d.tree.GetAttr(d.ctx, c, n)
	if code := d.nodeStatus(&in.InHeader, err); !code.Ok() {
		return code
	}
	d.attr(out, in.NodeId, a, since)
	return fuse.OK
}

// SetAttr changes attributes, by the open file if there is one.
func (d *door) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	since := d.notices.count.Load()
	c, n, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	var f *file
	if fh, ok := in.GetFh(); ok {
		f = d.nodes.file(fh)
	}
	set := setAttr(in)
	var a bridge.Attr
	var err error
	switch {
	case set.Valid == 0:
		a, err = d.tree.GetAttr(d.ctx, c, n)
	case f != nil:
		a, err = f.h.SetAttrAs(d.ctx, c, set)
	default:
		a, err = d.tree.SetAttr(d.ctx, c, n, set)
	}
	if code := d.nodeStatus(&in.InHeader, err); !code.Ok() {
		return code
	}
	d.attr(out, in.NodeId, a, since)
	if a.IsDir() && set.Any(bridge.SetMode|bridge.SetUID|bridge.SetGID) {
		d.searchChanged(n, a)
	}
	return d.done(nil)
}

// setAttr returns what a SETATTR request asks for.
func setAttr(in *fuse.SetAttrIn) bridge.SetAttr {
	set := bridge.SetAttr{
		Mode:  in.Mode & 0o7777,
		UID:   in.Uid,
		GID:   in.Gid,
		Size:  int64(in.Size),
		Atime: time.Unix(int64(in.Atime), int64(in.Atimensec)),
		Mtime: time.Unix(int64(in.Mtime), int64(in.Mtimensec)),
	}
	for _, f := range [...]struct {
		fuse uint32
		set  bridge.SetFields
	}{
		{fuse.FATTR_MODE, bridge.SetMode},
		{fuse.FATTR_UID, bridge.SetUID},
		{fuse.FATTR_GID, bridge.SetGID},
		{fuse.FATTR_SIZE, bridge.SetSize},
		{fuse.FATTR_ATIME, bridge.SetAtime},
		{fuse.FATTR_MTIME, bridge.SetMtime},
		{fuse.FATTR_ATIME_NOW, bridge.SetAtimeNow},
		{fuse.FATTR_MTIME_NOW, bridge.SetMtimeNow},
	} {
		if in.Valid&f.fuse != 0 {
			set.Valid |= f.set
		}
	}
	return set
}

// Access is access(2), and chdir(2).
func (d *door) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	c, n, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	return d.nodeStatus(&in.InHeader, d.tree.Access(d.ctx, c, n, in.Mask&7))
}

// StatFs tells of the free space, or of none if the backend does not know.
func (d *door) StatFs(_ <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	c, n, code := d.begin(h)
	if !code.Ok() {
		return code
	}
	s, err := d.tree.StatFS(d.ctx, c, n)
	if code := status(err); code == fuse.ENOTSUP {
		s = bridge.StatFS{BlockSize: 4096, FragSize: 4096}
	} else if !code.Ok() {
		return code
	}
	*out = fuse.StatfsOut{
		Blocks:  s.Blocks,
		Bfree:   s.BlocksFree,
		Bavail:  s.BlocksAvl,
		Files:   s.Files,
		Ffree:   s.FilesFree,
		Bsize:   s.BlockSize,
		Frsize:  s.FragSize,
		NameLen: s.NameMax,
	}
	if out.NameLen == 0 {
		out.NameLen = bridge.NameMax
	}
	return fuse.OK
}

// Ioctl knows none.
func (d *door) Ioctl(_ <-chan struct{}, _ *fuse.IoctlIn, _ []byte, _ *fuse.IoctlOut, _ []byte) fuse.Status {
	return enotty
}

var _ fuse.RawFileSystem = (*door)(nil)

package main

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"syscall"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
)

// An idSwap makes two accounts, each on its own machine, one: the ids of the
// one there are those of the one here, and the other way round, so that no id
// stands for two. It is its own inverse.
type idSwap struct {
	there, here ids
}

func (s idSwap) uid(id uint32) uint32 { return swap(id, s.there.uid, s.here.uid) }
func (s idSwap) gid(id uint32) uint32 { return swap(id, s.there.gid, s.here.gid) }

func swap(id, a, b uint32) uint32 {
	switch id {
	case a:
		return b
	case b:
		return a
	}
	return id
}

func (s idSwap) attr(a bridge.Attr) bridge.Attr {
	a.UID, a.GID = s.uid(a.UID), s.gid(a.GID)
	return a
}

func (s idSwap) set(set bridge.SetAttr) bridge.SetAttr {
	set.UID, set.GID = s.uid(set.UID), s.gid(set.GID)
	return set
}

// parseIDs parses UID:GID.
func parseIDs(text string) (ids, error) {
	u, g, ok := strings.Cut(text, ":")
	uid, err1 := strconv.ParseUint(u, 10, 32)
	gid, err2 := strconv.ParseUint(g, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return ids{}, fmt.Errorf("%q is not UID:GID", text)
	}
	return ids{uint32(uid), uint32(gid)}, nil
}

// findIDs returns the ids of the account on the server: those of the directory
// that a login begins in.
func findIDs(ctx context.Context, dial sftpfs.Dialer, opt sftpfs.Options) (ids, error) {
	opt.Root, opt.Connections, opt.Channels = "", 1, 1
	home, err := sftpfs.New(ctx, dial, opt)
	if err != nil {
		return ids{}, err
	}
	defer home.Close()
	a, err := home.Lstat(ctx, ".")
	return ids{a.UID, a.GID}, err
}

// A swappable backend is what an SFTP upstream is.
type swappable interface {
	bridge.Backend
	bridge.SymlinkBackend
	bridge.LinkBackend
	bridge.StatFSBackend
}

// A swapped backend shows and takes the ids that an idSwap makes of its own.
type swapped struct {
	swappable
	ids idSwap
}

var (
	_ swappable               = swapped{}
	_ bridge.MkdirAttrBackend = swapped{}
	_ bridge.ReadOpenBackend  = swapped{}
)

func (b swapped) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	a, err := b.swappable.Lstat(ctx, name)
	return b.ids.attr(a), err
}

func (b swapped) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for e, err := range b.swappable.ReadDir(ctx, name) {
			e.Attr = b.ids.attr(e.Attr)
			if !yield(e, err) {
				return
			}
		}
	}
}

func (b swapped) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := b.swappable.Open(ctx, name, flags, b.ids.set(attr))
	if err != nil {
		return nil, err
	}
	return &swappedFile{f, b.ids}, nil
}

func (b swapped) OpenRead(ctx context.Context, name string, p []byte) (bridge.File, int, error) {
	r, ok := b.swappable.(bridge.ReadOpenBackend)
	if !ok {
		f, err := b.Open(ctx, name, syscall.O_RDONLY, bridge.SetAttr{})
		return f, -1, err
	}
	f, n, err := r.OpenRead(ctx, name, p)
	if err != nil {
		return nil, n, err
	}
	return &swappedFile{f, b.ids}, n, nil
}

func (b swapped) Mkdir(ctx context.Context, name string, attr bridge.SetAttr) error {
	return b.swappable.Mkdir(ctx, name, b.ids.set(attr))
}

func (b swapped) MkdirAttr(ctx context.Context, name string, attr bridge.SetAttr) (bridge.Attr, error) {
	m, ok := b.swappable.(bridge.MkdirAttrBackend)
	if !ok {
		return bridge.Attr{}, b.Mkdir(ctx, name, attr)
	}
	a, err := m.MkdirAttr(ctx, name, b.ids.set(attr))
	return b.ids.attr(a), err
}

func (b swapped) Symlink(ctx context.Context, target, name string, attr bridge.SetAttr) error {
	return b.swappable.Symlink(ctx, target, name, b.ids.set(attr))
}

func (b swapped) SetAttr(ctx context.Context, name string, attr bridge.SetAttr) error {
	return b.swappable.SetAttr(ctx, name, b.ids.set(attr))
}

// A swappedFile is an open file of a swapped backend.
type swappedFile struct {
	bridge.File
	ids idSwap
}

var (
	_ bridge.AheadFile   = (*swappedFile)(nil)
	_ bridge.CopyFile    = (*swappedFile)(nil)
	_ bridge.OpenedFile  = (*swappedFile)(nil)
	_ bridge.OrderedFile = (*swappedFile)(nil)
)

func (f *swappedFile) Opened() (bridge.Attr, bool) {
	o, ok := f.File.(bridge.OpenedFile)
	if !ok {
		return bridge.Attr{}, false
	}
	a, ok := o.Opened()
	return f.ids.attr(a), ok
}

func (f *swappedFile) Attr(ctx context.Context) (bridge.Attr, error) {
	a, err := f.File.Attr(ctx)
	return f.ids.attr(a), err
}

func (f *swappedFile) SetAttr(ctx context.Context, attr bridge.SetAttr) error {
	return f.File.SetAttr(ctx, f.ids.set(attr))
}

func (f *swappedFile) ReadAhead(ctx context.Context, unwanted <-chan struct{}, p []byte, off int64) (int, error) {
	if a, ok := f.File.(bridge.AheadFile); ok {
		return a.ReadAhead(ctx, unwanted, p, off)
	}
	select {
	case <-unwanted:
		return 0, syscall.ECANCELED
	default:
		return f.File.ReadAt(ctx, p, off)
	}
}

func (f *swappedFile) StartWrite(p []byte, off int64) func(context.Context) error {
	if o, ok := f.File.(bridge.OrderedFile); ok {
		return o.StartWrite(p, off)
	}
	return nil
}

func (f *swappedFile) StartSetAttr(attr bridge.SetAttr) func(context.Context) error {
	if o, ok := f.File.(bridge.OrderedFile); ok {
		return o.StartSetAttr(f.ids.set(attr))
	}
	return nil
}

func (f *swappedFile) StartAttr() func(context.Context) (bridge.Attr, error) {
	o, ok := f.File.(bridge.OrderedFile)
	if !ok {
		return nil
	}
	wait := o.StartAttr()
	if wait == nil {
		return nil
	}
	return func(ctx context.Context) (bridge.Attr, error) {
		a, err := wait(ctx)
		return f.ids.attr(a), err
	}
}

func (f *swappedFile) StartClose() bool {
	o, ok := f.File.(bridge.OrderedFile)
	return ok && o.StartClose()
}

func (f *swappedFile) CopyRange(ctx context.Context, off int64, dst bridge.File, dstOff, n int64) (int64, error) {
	from, ok := f.File.(bridge.CopyFile)
	if to, same := dst.(*swappedFile); ok && same {
		return from.CopyRange(ctx, off, to.File, dstOff, n)
	}
	return 0, syscall.EOPNOTSUPP
}

package sftpfs

import (
	"context"
	"errors"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
	"github.com/pkg/sftp/v2/encoding/ssh/filexfer/openssh"

	"sftpbridge/bridge"
)

// Lstat returns the attributes of name, with times in whole seconds.
func (f *FS) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	p, err := f.path(name)
	if err != nil {
		return bridge.Attr{}, err
	}
	var a bridge.Attr
	err = f.do(ctx, func(ctx context.Context, s *session) error {
		calls, err := f.guarded(ctx, s, name, lstat(p))
		if err != nil {
			return err
		}
		a, err = calls[0].attrs()
		if err == nil && a.IsDir() {
			f.dirs.add(name)
		}
		return err
	})
	return a, err
}

// look is Lstat for finding out why something failed, or whether it happened:
// it believes nothing that was known before, and asks for name and all
// directories on the way to it in one write.
func (f *FS) look(ctx context.Context, s *session, name string) (bridge.Attr, error) {
	p, err := f.path(name)
	if err != nil {
		return bridge.Attr{}, err
	}
	for d := parentOf(name); d != "."; d = parentOf(d) {
		f.dirs.drop(d)
	}
	calls, err := f.guarded(ctx, s, name, lstat(p))
	if err != nil {
		return bridge.Attr{}, err
	}
	return calls[0].attrs()
}

// absent reports whether a look at a name found nothing.
func absent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

// SetAttr changes attributes of name. It is EOPNOTSUPP for what the upstream
// cannot set of a symbolic link.
func (f *FS) SetAttr(ctx context.Context, name string, set bridge.SetAttr) error {
	p, err := f.path(name)
	if err != nil {
		return err
	}
	if err := checkSet(set); err != nil {
		return err
	}
	if set.Has(bridge.SetSize) {
		f.names.mayShrink(name, set.Size)
	}
	err = f.do(ctx, func(ctx context.Context, s *session) error {
		if err := f.guard(ctx, s, name); err != nil {
			return err
		}
		return f.setAttr(ctx, s, name, p, set)
	})
	if err == nil && set.Has(bridge.SetSize) {
		f.names.resized(name, set.Size)
	}
	return err
}

// setAttr asks first what name is where that decides how to go on: when the
// size is among the attributes, when a half of a pair is missing, and when
// there is no lsetstat. Otherwise lsetstat is tried at once; a server whose
// system cannot change modes without following links refuses it for all files.
func (f *FS) setAttr(ctx context.Context, s *session, name, p string, set bridge.SetAttr) error {
	l := f.info.has(extLSetStat, "1")
	if l && !set.Has(bridge.SetSize) && !halfPair(set) {
		err := f.sendAttrs(ctx, s, set, bridge.Attr{}, func(a sshfx.Attributes) request { return lsetstat(p, a) })
		if !isVague(err) && !errors.Is(err, syscall.EOPNOTSUPP) {
			return err
		}
	}
	now, err := f.look(ctx, s, name)
	if err != nil {
		return err
	}
	if now.IsSymlink() && set.Any(bridge.SetSize|bridge.SetMode) || now.IsSymlink() && !l {
		return syscall.EOPNOTSUPP
	}
	if set.Has(bridge.SetSize) && !now.IsRegular() {
		if now.IsDir() {
			return syscall.EISDIR
		}
		return syscall.EINVAL
	}
	err = f.sendAttrs(ctx, s, set, now, func(a sshfx.Attributes) request {
		if now.IsSymlink() {
			return lsetstat(p, a)
		}
		return request{packet: &sshfx.SetStatPacket{Path: p, Attrs: a}}
	})
	return tooLarge(f.why(ctx, s, err, name), set)
}

// tooLarge is EFBIG for the failure of setting a size that has no other reason.
func tooLarge(err error, set bridge.SetAttr) error {
	if set.Has(bridge.SetSize) && isVague(err) {
		return syscall.EFBIG
	}
	return err
}

// halfPair reports whether set has one of two attributes that the protocol
// only sets together.
func halfPair(set bridge.SetAttr) bool {
	return set.Has(bridge.SetUID) != set.Has(bridge.SetGID) || set.Has(bridge.SetAtime) != set.Has(bridge.SetMtime)
}

// sendAttrs sends the change set of what has the attributes now. Size and
// owner go first if the mode has set-id bits, which a change of owner takes away.
func (f *FS) sendAttrs(ctx context.Context, s *session, set bridge.SetAttr, now bridge.Attr, packet func(sshfx.Attributes) request) error {
	if set.Any(bridge.SetUID|bridge.SetGID) && set.Has(bridge.SetMode) && set.Mode&0o6000 != 0 {
		const first = bridge.SetSize | bridge.SetUID | bridge.SetGID
		rest := set.Without(first)
		if err := f.sendAttrs(ctx, s, set.Without(^first), now, packet); err != nil {
			return err
		}
		set = rest
	}
	attrs := toAttributes(set, now, time.Now())
	if attrs.Flags == 0 {
		return nil
	}
	calls, err := s.exchange(ctx, packet(attrs))
	if err != nil {
		return err
	}
	return setAttrError(calls[0].status(), set)
}

// setAttrError is the error of a change that the server refused with err.
func setAttrError(err error, set bridge.SetAttr) error {
	if errors.Is(err, syscall.EACCES) && !set.Has(bridge.SetSize) {
		return syscall.EPERM // what chmod(2), chown(2) and utimes(2) say
	}
	return err
}

// toAttributes puts a change into the form of the protocol.
func toAttributes(set bridge.SetAttr, now bridge.Attr, clock time.Time) sshfx.Attributes {
	var a sshfx.Attributes
	want := set.Apply(now, clock)
	if set.Has(bridge.SetSize) {
		a.SetSize(uint64(set.Size))
	}
	if set.Any(bridge.SetUID | bridge.SetGID) {
		a.SetUserGroup(want.UID, want.GID)
	}
	if set.Has(bridge.SetMode) {
		a.SetPermissions(sshfx.FileMode(set.Mode & 0o7777))
	}
	if set.Any(bridge.SetAtime | bridge.SetMtime) {
		if !set.Has(bridge.SetMtime) {
			want.Mtime = now.Mtime // Apply lets a new size touch it
		}
		a.SetACModTime(seconds(want.Atime), seconds(want.Mtime))
	}
	return a
}

// StatFS tells of the file system that has name: EOPNOTSUPP if the upstream
// does not.
func (f *FS) StatFS(ctx context.Context, name string) (bridge.StatFS, error) {
	p, err := f.path(name)
	if err != nil {
		return bridge.StatFS{}, err
	}
	var st bridge.StatFS
	err = f.do(ctx, func(ctx context.Context, s *session) error {
		st, err = f.statFS(ctx, s, extStatVFS, &openssh.StatVFSExtendedPacket{Path: p})
		return err
	})
	return st, err
}

// statFS sends statvfs or fstatvfs.
func (f *FS) statFS(ctx context.Context, s *session, ext string, packet sshfx.PacketMarshaller) (bridge.StatFS, error) {
	if !f.info.has(ext, "2") {
		return bridge.StatFS{}, syscall.EOPNOTSUPP
	}
	calls, err := s.exchange(ctx, request{packet: packet})
	if err != nil {
		return bridge.StatFS{}, err
	}
	body, err := calls[0].extendedReply()
	if err != nil {
		return bridge.StatFS{}, err
	}
	var r openssh.StatVFSExtendedReplyPacket
	if err := r.UnmarshalBinary(body); err != nil {
		return bridge.StatFS{}, calls[0].garbage("statvfs: %w", err)
	}
	return bridge.StatFS{
		BlockSize: uint32(r.BlockSize), FragSize: uint32(r.FragmentSize),
		Blocks: r.Blocks, BlocksFree: r.BlocksFree, BlocksAvl: r.BlocksAvail,
		Files: r.Files, FilesFree: r.FilesFree, FilesAvl: r.FilesAvail,
		FSID:     r.FilesystemID,
		ReadOnly: r.MountFlags&openssh.MountFlagsReadOnly != 0,
		NoSUID:   r.MountFlags&openssh.MountFlagsNoSUID != 0,
		NameMax:  uint32(r.MaxNameLength),
	}, nil
}

// why looks for the reason of a failure, for which the server gave none, in
// the file system that has name: EROFS or ENOSPC.
func (f *FS) why(ctx context.Context, s *session, err error, name string) error {
	if !isVague(err) {
		return err
	}
	p, perr := f.path(parentOf(name))
	if perr != nil {
		return err
	}
	st, serr := f.statFS(ctx, s, extStatVFS, &openssh.StatVFSExtendedPacket{Path: p})
	if serr != nil {
		return err
	}
	return because(err, st)
}

// because returns what the state of a file system explains, or err.
func because(err error, st bridge.StatFS) error {
	switch {
	case st.ReadOnly:
		return syscall.EROFS
	case st.Blocks > 0 && st.BlocksAvl == 0, st.Files > 0 && st.FilesAvl == 0:
		return syscall.ENOSPC
	}
	return err
}

package sftpfs

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
	"github.com/pkg/sftp/v2/encoding/ssh/filexfer/openssh"

	"sftpbridge/bridge"
)

// Rename renames as rename(2), or with RenameNoReplace as the protocol's own
// RENAME. RenameExchange is EINVAL.
func (f *FS) Rename(ctx context.Context, from, to string, flags bridge.RenameFlags) error {
	r := &renaming{f: f, from: from, to: to, noReplace: flags == bridge.RenameNoReplace}
	var err error
	if r.fromPath, err = f.path(from); err != nil {
		return err
	}
	if r.toPath, err = f.path(to); err != nil {
		return err
	}
	switch {
	case flags&^bridge.RenameNoReplace != 0:
		return syscall.EINVAL
	case from == "." || to == ".":
		return syscall.EBUSY
	case from == to:
		return r.self(ctx)
	case strings.HasPrefix(to, from+"/"):
		return r.intoItself(ctx)
	}
	f.naming.RLock()
	defer f.naming.RUnlock()
	f.dirs.drop(from)
	f.dirs.drop(to)
	run := r.posix
	switch {
	case r.noReplace:
		run = r.plain
	case !f.info.has(extPosixRename, "1"):
		run = r.emulate
	}
	err = f.once(ctx, run, r.happened)
	f.dirs.drop(from) // what others have looked up meanwhile
	f.dirs.drop(to)
	if err == nil {
		f.names.renamed(from, to)
	}
	return err
}

// A renaming is a run of Rename.
type renaming struct {
	f                *FS
	from, to         string
	fromPath, toPath string
	noReplace        bool
	aside            string // path at which what had the name to is kept meanwhile
}

// self is a rename of a name to itself.
func (r *renaming) self(ctx context.Context) error {
	if _, err := r.f.Lstat(ctx, r.from); err != nil {
		return err
	}
	if r.noReplace {
		return syscall.EEXIST
	}
	return nil
}

// intoItself is a rename of a directory to a name below itself.
func (r *renaming) intoItself(ctx context.Context) error {
	a, err := r.f.Lstat(ctx, parentOf(r.to))
	switch {
	case err != nil:
		return err
	case !a.IsDir():
		return syscall.ENOTDIR
	}
	return syscall.EINVAL
}

// send sends one request that renames.
func (r *renaming) send(ctx context.Context, s *session, p sshfx.PacketMarshaller) error {
	calls, err := s.exchange(ctx, request{packet: p})
	if err != nil {
		return err
	}
	return calls[0].status()
}

// rename sends RENAME.
func (r *renaming) rename(ctx context.Context, s *session, from, to string) error {
	return r.send(ctx, s, &sshfx.RenamePacket{OldPath: from, NewPath: to})
}

// posix renames with posix-rename@openssh.com.
func (r *renaming) posix(ctx context.Context, s *session) error {
	if err := r.f.guard(ctx, s, r.from, r.to); err != nil {
		return err
	}
	err := r.send(ctx, s, &openssh.POSIXRenameExtendedPacket{OldPath: r.fromPath, NewPath: r.toPath})
	if isStatus(err) {
		return r.why(ctx, s, err)
	}
	return err
}

// plain renames to a name that must be free. OpenSSH refuses one that is not:
// for a file through link(2), for a directory after a look, which would not
// see a symbolic link to nowhere; other servers may not refuse at all. So
// both names are looked at first.
func (r *renaming) plain(ctx context.Context, s *session) error {
	if err := r.f.guard(ctx, s, r.from, r.to); err != nil {
		return err
	}
	if _, _, err := r.stat(ctx, s); err != nil {
		return err
	}
	err := r.rename(ctx, s, r.fromPath, r.toPath)
	if !isStatus(err) {
		return err
	}
	if _, _, lerr := r.look(ctx, s); lerr != nil {
		return lerr
	}
	if r.f.info.has(extPosixRename, "1") { // its system may refuse link(2): fs.protected_hardlinks
		return r.posix(ctx, s)
	}
	return r.why(ctx, s, err)
}

// stat asks for both names: the first must be there and, with noReplace, the
// second must not.
func (r *renaming) stat(ctx context.Context, s *session) (from, to bridge.Attr, err error) {
	calls, err := s.exchange(ctx, lstat(r.fromPath), lstat(r.toPath))
	if err != nil {
		return from, to, err
	}
	if from, err = calls[0].attrs(); err != nil {
		return from, to, err
	}
	to, err = calls[1].attrs()
	return from, to, r.second(err)
}

// second judges the answer to a look at the new name.
func (r *renaming) second(err error) error {
	switch {
	case err == nil && r.noReplace:
		return syscall.EEXIST
	case errors.Is(err, syscall.ENOENT):
		return nil
	}
	return err
}

// look is stat that makes sure of the directories on the way to both names.
func (r *renaming) look(ctx context.Context, s *session) (from, to bridge.Attr, err error) {
	if from, err = r.f.look(ctx, s, r.from); err != nil {
		return from, to, err
	}
	to, err = r.f.look(ctx, s, r.to)
	return from, to, r.second(err)
}

// emulate renames on a server that has no posix-rename. What is in the way is
// put aside under a name of its own, put back if the rename then fails, and
// removed at the end: at every moment all files are there under some name.
func (r *renaming) emulate(ctx context.Context, s *session) error {
	from, to, err := r.look(ctx, s)
	if err != nil {
		return err
	}
	if to.Mode == 0 { // the name is free
		if err := r.rename(ctx, s, r.fromPath, r.toPath); err != nil {
			return r.why(ctx, s, err)
		}
		return r.removeAside(ctx, s)
	}
	if err := replaceable(from, to); err != nil {
		return err
	}
	if to.IsDir() {
		return r.replaceDir(ctx, s, to)
	}
	if r.aside == "" {
		r.aside = r.toPath[:strings.LastIndexByte(r.toPath, '/')+1] + ".sftpbridge-" + rand.Text()
	}
	if err := r.rename(ctx, s, r.toPath, r.aside); err != nil {
		return r.why(ctx, s, err)
	}
	if err := r.rename(ctx, s, r.fromPath, r.toPath); err != nil {
		if isStatus(err) {
			err = errors.Join(err, r.rename(ctx, s, r.aside, r.toPath))
		}
		return err
	}
	return r.removeAside(ctx, s)
}

// replaceDir replaces an empty directory.
func (r *renaming) replaceDir(ctx context.Context, s *session, to bridge.Attr) error {
	calls, err := s.exchange(ctx, request{packet: &sshfx.RmdirPacket{Path: r.toPath}})
	if err == nil {
		err = calls[0].status()
	}
	if isStatus(err) {
		return syscall.ENOTEMPTY
	}
	if err != nil {
		return err
	}
	if err = r.rename(ctx, s, r.fromPath, r.toPath); isStatus(err) {
		var a sshfx.Attributes
		a.SetPermissions(sshfx.FileMode(to.Perm()))
		s.send(request{packet: &sshfx.MkdirPacket{Path: r.toPath, Attrs: a}})
	}
	return err
}

// removeAside removes what was put aside.
func (r *renaming) removeAside(ctx context.Context, s *session) error {
	if r.aside == "" {
		return nil
	}
	calls, err := s.exchange(ctx, request{packet: &sshfx.RemovePacket{Path: r.aside}})
	if err != nil {
		return err
	}
	if err := calls[0].status(); !errors.Is(err, syscall.ENOENT) {
		return err
	}
	return nil
}

// replaceable is what rename(2) says of the types of both files.
func replaceable(from, to bridge.Attr) error {
	switch {
	case from.IsDir() && !to.IsDir():
		return syscall.ENOTDIR
	case !from.IsDir() && to.IsDir():
		return syscall.EISDIR
	}
	return nil
}

// why finds out why a rename failed.
func (r *renaming) why(ctx context.Context, s *session, err error) error {
	if !isStatus(err) {
		return err
	}
	from, to, lerr := r.look(ctx, s)
	if lerr != nil {
		return lerr
	}
	if to.Mode != 0 {
		if terr := replaceable(from, to); terr != nil {
			return terr
		}
	}
	if !isVague(err) {
		return err
	}
	if err = r.f.whyTwo(ctx, s, err, r.from, r.to); isVague(err) && from.IsDir() && to.IsDir() {
		return syscall.ENOTEMPTY
	}
	return err
}

// whyTwo is why for two names, which may be on different file systems: EXDEV,
// before all else.
func (f *FS) whyTwo(ctx context.Context, s *session, err error, from, to string) error {
	if !isVague(err) {
		return err
	}
	var st [2]bridge.StatFS
	for i, name := range []string{from, to} {
		p, perr := f.path(parentOf(name))
		if perr != nil {
			return err
		}
		var serr error
		if st[i], serr = f.statFS(ctx, s, extStatVFS, &openssh.StatVFSExtendedPacket{Path: p}); serr != nil {
			return err
		}
	}
	if st[0].FSID != st[1].FSID {
		return syscall.EXDEV
	}
	return because(err, st[1])
}

// happened reports whether a rename was carried out before the connection
// broke: the old name is gone and the new one is there.
func (r *renaming) happened(ctx context.Context, s *session) (bool, error) {
	_, err := r.f.look(ctx, s, r.from)
	if err == nil || !absent(err) {
		return false, err
	}
	if _, err = r.f.look(ctx, s, r.to); absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, r.removeAside(ctx, s)
}

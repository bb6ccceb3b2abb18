package sftpfs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
	"github.com/pkg/sftp/v2/encoding/ssh/filexfer/openssh"

	"sftpbridge/bridge"
)

// Remove removes a name that is not a directory.
func (f *FS) Remove(ctx context.Context, name string) error {
	p, err := f.path(name)
	if err != nil {
		return err
	}
	if name == "." {
		return syscall.EISDIR
	}
	f.naming.RLock()
	defer f.naming.RUnlock()
	err = f.once(ctx, func(ctx context.Context, s *session) error {
		if !f.info.posix() { // its REMOVE may be unlink and rmdir in one
			a, err := f.look(ctx, s, name)
			if err == nil && a.IsDir() {
				err = syscall.EISDIR
			}
			if err != nil {
				return err
			}
		}
		if err := f.guard(ctx, s, name); err != nil {
			return err
		}
		calls, err := s.exchange(ctx, request{packet: &sshfx.RemovePacket{Path: p}})
		if err != nil {
			return err
		}
		return f.whyNotRemoved(ctx, s, calls[0].status(), name)
	}, f.gone(name))
	if err == nil {
		f.names.removed(name)
	}
	return err
}

// whyNotRemoved finds out why a name could not be removed.
func (f *FS) whyNotRemoved(ctx context.Context, s *session, err error, name string) error {
	if !isStatus(err) {
		return err
	}
	a, lerr := f.look(ctx, s, name)
	switch {
	case lerr != nil:
		return lerr
	case a.IsDir():
		return syscall.EISDIR
	}
	return f.why(ctx, s, err, name)
}

// Symlink makes a symbolic link. Its owner is set where that can be done.
func (f *FS) Symlink(ctx context.Context, target, name string, attr bridge.SetAttr) error {
	p, err := f.path(name)
	switch {
	case err != nil:
		return err
	case target == "":
		return syscall.ENOENT
	case len(target) > bridge.PathMax:
		return syscall.ENAMETOOLONG
	case strings.IndexByte(target, 0) >= 0:
		return syscall.EINVAL
	case name == ".":
		return syscall.EEXIST
	}
	var now bridge.Attr
	f.dirs.drop(name)
	err = f.once(ctx, func(ctx context.Context, s *session) error {
		if err := f.guard(ctx, s, name); err != nil {
			return err
		}
		calls, err := s.exchange(ctx, request{packet: &sshfx.SymlinkPacket{LinkPath: p, TargetPath: target}}, lstat(p))
		if err != nil {
			return err
		}
		if err := calls[0].status(); err != nil {
			return f.whyNotMade(ctx, s, err, name, calls[1])
		}
		if now, err = calls[1].attrs(); err != nil {
			now = bridge.Attr{}
		}
		return nil
	}, func(ctx context.Context, s *session) (bool, error) {
		t, err := f.readlink(ctx, s, name, p)
		if err != nil && !isLost(err) {
			return false, nil
		}
		return t == target, err
	})
	if err != nil {
		return err
	}
	set := lacking(attr.Without(^(bridge.SetUID | bridge.SetGID)), now)
	if set.Valid == 0 {
		return nil
	}
	err = f.do(ctx, func(ctx context.Context, s *session) error {
		return f.setAttr(ctx, s, name, p, set)
	})
	if err != nil {
		f.Remove(ctx, name)
	}
	return err
}

// Readlink returns what a symbolic link holds: EINVAL if name is none.
func (f *FS) Readlink(ctx context.Context, name string) (string, error) {
	p, err := f.path(name)
	if err != nil {
		return "", err
	}
	if name == "." {
		return "", syscall.EINVAL
	}
	var target string
	err = f.do(ctx, func(ctx context.Context, s *session) error {
		target, err = f.readlink(ctx, s, name, p)
		return err
	})
	return target, err
}

func (f *FS) readlink(ctx context.Context, s *session, name, p string) (string, error) {
	calls, err := f.guarded(ctx, s, name, request{packet: &sshfx.ReadLinkPacket{Path: p}})
	if err != nil {
		return "", err
	}
	target, err := calls[0].path()
	if err == nil && strings.IndexByte(target, 0) >= 0 {
		return "", calls[0].garbage("a link to %q", target)
	}
	if !isStatus(err) {
		return target, err
	}
	a, lerr := f.look(ctx, s, name)
	switch {
	case lerr != nil:
		return "", lerr
	case !a.IsSymlink():
		return "", syscall.EINVAL
	}
	return "", err
}

// Link makes a hard link: EPERM if the upstream has none.
func (f *FS) Link(ctx context.Context, old, new string) error {
	oldPath, err := f.path(old)
	if err != nil {
		return err
	}
	newPath, err := f.path(new)
	if err != nil {
		return err
	}
	switch {
	case old == ".":
		return syscall.EPERM
	case new == ".":
		return syscall.EEXIST
	case !f.info.has(extHardlink, "1"):
		return syscall.EPERM
	}
	f.dirs.drop(new)
	return f.once(ctx, func(ctx context.Context, s *session) error {
		if err := f.guard(ctx, s, old, new); err != nil {
			return err
		}
		calls, err := s.exchange(ctx, request{packet: &openssh.HardlinkExtendedPacket{OldPath: oldPath, NewPath: newPath}}, lstat(newPath))
		if err != nil {
			return err
		}
		if err = calls[0].status(); !isStatus(err) {
			return err
		}
		a, lerr := f.look(ctx, s, old)
		if lerr != nil {
			return lerr
		}
		if err = f.whyTaken(ctx, s, err, new, calls[1]); !isStatus(err) {
			return err
		}
		if a.IsDir() {
			return syscall.EPERM
		}
		return f.whyTwo(ctx, s, err, old, new)
	}, func(ctx context.Context, s *session) (bool, error) {
		a, err := f.look(ctx, s, old)
		if err != nil {
			return false, err
		}
		b, err := f.look(ctx, s, new)
		if errors.Is(err, syscall.ENOENT) {
			return false, nil
		}
		return a == b, err
	})
}

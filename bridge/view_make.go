package bridge

import (
	"context"
	"syscall"
)

// Modes of new files if the client says nothing: open(3) of SFTP clients.
const (
	defaultFileMode = 0o666
	defaultDirMode  = 0o777
)

// OpenFile implements Server. Without a mode in attr, a new file has 0666, and
// the avatar's umask is taken from either. If the other attributes cannot be
// given to a new file, it is removed again.
func (v *View) OpenFile(ctx context.Context, path string, flags OpenFlags, attr SetAttr) (ServerFile, error) {
	h, err := v.open(ctx, path, flags, attr)
	if err != nil {
		return nil, err
	}
	if flags.Has(syscall.O_CREAT) || flags.Has(syscall.O_TRUNC) {
		v.settle(ctx)
	}
	return &viewFile{v: v, h: h}, nil
}

func (v *View) open(ctx context.Context, path string, flags OpenFlags, attr SetAttr) (*Handle, error) {
	if flags.Has(syscall.O_CREAT) {
		return v.create(ctx, path, flags, attr)
	}
	w, _, err := v.walk(ctx, path, followLast)
	if err != nil {
		return nil, err
	}
	defer w.close()
	return v.tree.Open(ctx, v.caller, w.top().node, flags&^syscall.O_EXCL)
}

// create opens a path with O_CREAT. A symbolic link at its end is followed,
// also to what does not exist, but not with O_EXCL.
func (v *View) create(ctx context.Context, path string, flags OpenFlags, attr SetAttr) (*Handle, error) {
	w, last, err := v.walk(ctx, path, leaveLast)
	if err != nil {
		return nil, err
	}
	defer w.close()
	for {
		if !last.ordinary() || last.slash {
			return nil, v.fail("open", path, createDir(last, flags))
		}
		target, err := w.linkAt(ctx, last.name, flags)
		if err != nil {
			return nil, v.fail("open", path, err)
		}
		if target == "" {
			h, err := v.createAt(ctx, w.top().node, last.name, flags, attr)
			if Errno(err) == syscall.ELOOP && w.links < maxSymlinks && !flags.Has(syscall.O_EXCL) {
				w.links++ // a link was put there just now
				continue
			}
			return h, err
		}
		if last, err = w.follow(ctx, target, leaveLast); err != nil {
			return nil, v.fail("open", path, err)
		}
	}
}

// createDir returns what is wrong with making a file of what can only be a
// directory.
func createDir(last lastName, flags OpenFlags) error {
	if flags.Has(syscall.O_EXCL) && !last.ordinary() {
		return syscall.EEXIST
	}
	return syscall.EISDIR
}

// linkAt returns where the entry name leads if it is a symbolic link, or "".
func (w *walk) linkAt(ctx context.Context, name string, flags OpenFlags) (string, error) {
	t := w.v.tree
	n, a, err := t.Lookup(ctx, w.v.caller, w.top().node, name)
	if err != nil {
		if Errno(err) == syscall.ENOENT {
			return "", nil
		}
		return "", err
	}
	defer t.Forget(n, 1)
	if !a.IsSymlink() {
		return "", nil
	}
	if flags.Has(syscall.O_EXCL) {
		return "", syscall.EEXIST
	}
	return w.readlink(ctx, n, a, true)
}

// createAt opens the entry name of dir and gives it, if it is new, the
// attributes attr.
func (v *View) createAt(ctx context.Context, dir *Node, name string, flags OpenFlags, attr SetAttr) (*Handle, error) {
	mode := v.newMode(attr, defaultFileMode)
	n, h, _, made, err := v.tree.Create(ctx, v.caller, dir, name, flags, SetAttr{Valid: SetMode, Mode: mode})
	if err != nil {
		return nil, err
	}
	defer v.tree.Forget(n, 1)
	rest := attr.Without(SetMode)
	if !made || rest.Valid == 0 {
		return h, nil
	}
	if rest.Any(SetUID|SetGID) && mode&0o6000 != 0 {
		rest.Valid |= SetMode // a new owner takes the bits away
		rest.Mode = mode
	}
	if _, err := h.SetAttrAs(ctx, v.caller, rest); err != nil {
		h.Close(ctx)
		v.tree.Unlink(ctx, v.caller, dir, name)
		v.settle(ctx)
		return nil, err
	}
	return h, nil
}

// newMode returns the permissions of what is to be made.
func (v *View) newMode(attr SetAttr, mode uint32) uint32 {
	if attr.Has(SetMode) {
		mode = attr.Mode
	}
	return mode & 0o7777 &^ v.caller.Umask
}

// MakeDirectory implements Server. Without a mode in attr, it is 0777, and the
// avatar's umask is taken from either, as are set-id bits by mkdir(2). If the other attributes cannot be given
// to the directory, it is removed again.
func (v *View) MakeDirectory(ctx context.Context, path string, attr SetAttr) error {
	return v.makeAt(ctx, "mkdir", path, true, func(dir *Node, name string) error {
		mode := v.newMode(attr, defaultDirMode)
		n, _, err := v.tree.Mkdir(ctx, v.caller, dir, name, SetAttr{Valid: SetMode, Mode: mode})
		if err != nil {
			return err
		}
		defer v.tree.Forget(n, 1)
		rest := attr.Without(SetMode | SetSize)
		if rest.Valid == 0 {
			return nil
		}
		if _, err := v.tree.SetAttr(ctx, v.caller, n, rest); err != nil {
			v.tree.Rmdir(ctx, v.caller, dir, name)
			return err
		}
		return nil
	})
}

// MakeLink implements Server.
func (v *View) MakeLink(ctx context.Context, linkPath, targetPath string) error {
	if err := checkTarget(targetPath); err != nil {
		return v.fail("symlink", linkPath, err)
	}
	return v.makeAt(ctx, "symlink", linkPath, false, func(dir *Node, name string) error {
		n, _, err := v.tree.Symlink(ctx, v.caller, dir, name, targetPath)
		if err == nil {
			v.tree.Forget(n, 1)
		}
		return err
	})
}

// HardLink implements HardLinker. A symbolic link at the end of oldPath gets
// the new name itself.
func (v *View) HardLink(ctx context.Context, oldPath, newPath string) error {
	w, _, err := v.walk(ctx, oldPath, keepLast)
	if err != nil {
		return err
	}
	defer w.close()
	return v.makeAt(ctx, "link", newPath, false, func(dir *Node, name string) error {
		_, err := v.tree.Link(ctx, v.caller, w.top().node, dir, name)
		return err
	})
}

// makeAt has mk make the last component of a path. A slash after it is ENOENT
// for what is no directory, as filename_create of Linux has it.
func (v *View) makeAt(ctx context.Context, op, path string, isDir bool, mk func(dir *Node, name string) error) error {
	w, last, err := v.walk(ctx, path, leaveLast)
	if err != nil {
		return err
	}
	defer w.close()
	if !last.ordinary() {
		return v.fail(op, path, syscall.EEXIST)
	}
	if last.slash && !isDir {
		_, err := w.lookLast(ctx, last)
		if err == nil {
			err = syscall.EEXIST
		}
		return v.fail(op, path, err)
	}
	err = mk(w.top().node, last.name)
	v.settle(ctx)
	return err
}

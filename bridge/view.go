package bridge

import (
	"context"
	"path"
	"strings"
	"syscall"
)

// A View is one avatar's view of the tree, in the words of SFTP: the Server
// that comes with this package. It walks a path with the avatar's permissions,
// inside the avatar's root, and then calls one node operation, where everything
// else is decided. An answer to a change comes when the other doors have been
// told of it.
type View struct {
	tree   *Tree
	caller Caller
	root   *Node // with a reference
	names  idNames
}

var _ interface {
	Server
	PosixRenamer
	HardLinker
	LinkAttrSetter
	StatFSer
	PathExpander
	IDNamer
} = (*View)(nil)

// Modes of new files if the client says nothing: open(3) of SFTP clients.
const (
	defaultFileMode = 0o666
	defaultDirMode  = 0o777
)

// View returns the view that the avatar a has of the tree through the door d.
// ENOENT or ENOTDIR if the avatar's root is not there; a symbolic link on the
// way to it is not followed.
func (t *Tree) View(ctx context.Context, a *Avatar, d Door) (*View, error) {
	root, attr, err := t.Walk(ctx, a.Root)
	if err != nil {
		return nil, err
	}
	if !attr.IsDir() {
		t.Forget(root, 1)
		return nil, &Error{Op: "view", Path: a.Root, Errno: syscall.ENOTDIR}
	}
	return &View{tree: t, caller: Caller{Avatar: a, Door: d}, root: root}, nil
}

// Close ends the view. What it opened may be used on.
func (v *View) Close() error {
	v.tree.Forget(v.root, 1)
	return nil
}

// Avatar returns the user whose view it is.
func (v *View) Avatar() *Avatar { return v.caller.Avatar }

// GotVersion has no extensions to announce beside the door's.
func (v *View) GotVersion(version uint32, extensions []Extension) []Extension { return nil }

// ExtendedRequest knows no requests: ENOSYS.
func (v *View) ExtendedRequest(ctx context.Context, name string, data []byte) ([]byte, error) {
	return nil, &Error{Op: "extended", Path: name, Errno: syscall.ENOSYS}
}

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
	if len(w.steps) == 1 || w.top().attr.IsDir() {
		return nil, v.fail("open", path, syscall.EISDIR)
	}
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
	return w.readlink(ctx, n)
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
// avatar's umask is taken from either. If the other attributes cannot be given
// to the directory, it is removed again.
func (v *View) MakeDirectory(ctx context.Context, path string, attr SetAttr) error {
	return v.makeAt(ctx, "mkdir", path, true, func(dir *Node, name string) error {
		mode := v.newMode(attr, defaultDirMode)
		n, a, err := v.tree.Mkdir(ctx, v.caller, dir, name, SetAttr{Valid: SetMode, Mode: mode})
		if err != nil {
			return err
		}
		defer v.tree.Forget(n, 1)
		rest := attr.Without(SetMode | SetSize)
		if mode&^a.Mode&0o6000 != 0 {
			// mkdir(2) leaves them out, but they were asked for.
			rest.Valid |= SetMode
			rest.Mode = a.Perm() | mode
		}
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

// lookLast returns the attributes of the component at which the walk stopped.
func (w *walk) lookLast(ctx context.Context, last lastName) (Attr, error) {
	n, a, err := w.v.tree.Lookup(ctx, w.v.caller, w.top().node, last.name)
	if err == nil {
		w.v.tree.Forget(n, 1)
	}
	return a, err
}

// RemoveFile implements Server.
func (v *View) RemoveFile(ctx context.Context, path string) error {
	w, last, err := v.walk(ctx, path, leaveLast)
	if err != nil {
		return err
	}
	defer w.close()
	if !last.ordinary() {
		return v.fail("unlink", path, syscall.EISDIR)
	}
	if last.slash {
		a, err := w.lookLast(ctx, last)
		if err == nil {
			if err = syscall.ENOTDIR; a.IsDir() {
				err = syscall.EISDIR
			}
		}
		return v.fail("unlink", path, err)
	}
	err = v.tree.Unlink(ctx, v.caller, w.top().node, last.name)
	v.settle(ctx)
	return err
}

// RemoveDirectory implements Server. The avatar's root is EBUSY.
func (v *View) RemoveDirectory(ctx context.Context, path string) error {
	w, last, err := v.walk(ctx, path, leaveLast)
	if err != nil {
		return err
	}
	defer w.close()
	if last.name == "" {
		return v.fail("rmdir", path, syscall.EBUSY)
	}
	err = v.tree.Rmdir(ctx, v.caller, w.top().node, last.name)
	v.settle(ctx)
	return err
}

// RenameFile implements Server.
func (v *View) RenameFile(ctx context.Context, oldPath, newPath string) error {
	return v.rename(ctx, oldPath, newPath, RenameNoReplace)
}

// PosixRename implements PosixRenamer.
func (v *View) PosixRename(ctx context.Context, oldPath, newPath string) error {
	return v.rename(ctx, oldPath, newPath, 0)
}

func (v *View) rename(ctx context.Context, oldPath, newPath string, flags RenameFlags) error {
	from, old, err := v.walk(ctx, oldPath, leaveLast)
	if err != nil {
		return err
	}
	defer from.close()
	to, new, err := v.walk(ctx, newPath, leaveLast)
	if err != nil {
		return err
	}
	defer to.close()
	switch {
	case !old.ordinary():
		return v.fail("rename", oldPath, syscall.EBUSY)
	case !new.ordinary() && flags&RenameNoReplace != 0:
		return v.fail("rename", newPath, syscall.EEXIST)
	case !new.ordinary():
		return v.fail("rename", newPath, syscall.EBUSY)
	}
	if old.slash || new.slash {
		if err := checkSlashes(ctx, from, old, to, new, flags); err != nil {
			return v.fail("rename", oldPath, err)
		}
	}
	err = v.tree.Rename(ctx, v.caller, from.top().node, old.name, to.top().node, new.name, flags)
	v.settle(ctx)
	return err
}

// checkSlashes returns ENOTDIR unless what is renamed is a directory, as a slash
// after one of its names demands, and before that what Linux looks at before.
func checkSlashes(ctx context.Context, from *walk, old lastName, to *walk, new lastName, flags RenameFlags) error {
	a, err := from.lookLast(ctx, old)
	if err != nil || a.IsDir() {
		return err
	}
	_, err = to.lookLast(ctx, new)
	switch {
	case err != nil && Errno(err) != syscall.ENOENT:
		return err
	case err == nil && flags&RenameNoReplace != 0:
		return syscall.EEXIST
	}
	return syscall.ENOTDIR
}

// GetAttrs implements Server.
func (v *View) GetAttrs(ctx context.Context, path string, followLinks bool) (Attr, error) {
	w, _, err := v.walk(ctx, path, followedIf(followLinks))
	if err != nil {
		return Attr{}, err
	}
	defer w.close()
	return w.attr(ctx)
}

func followedIf(follow bool) walkEnd {
	if follow {
		return followLast
	}
	return keepLast
}

// SetAttrs implements Server.
func (v *View) SetAttrs(ctx context.Context, path string, attr SetAttr) error {
	return v.setAttrs(ctx, path, attr, followLast)
}

// SetLinkAttrs implements LinkAttrSetter.
func (v *View) SetLinkAttrs(ctx context.Context, path string, attr SetAttr) error {
	return v.setAttrs(ctx, path, attr, keepLast)
}

func (v *View) setAttrs(ctx context.Context, path string, attr SetAttr, end walkEnd) error {
	if attr.Has(SetSize) && attr.Size < 0 {
		return v.fail("setattr", path, syscall.EINVAL) // truncate(2) looks at it first
	}
	w, _, err := v.walk(ctx, path, end)
	if err != nil {
		return err
	}
	defer w.close()
	_, err = v.tree.SetAttr(ctx, v.caller, w.top().node, attr)
	v.settle(ctx)
	return err
}

// ReadLink implements Server.
func (v *View) ReadLink(ctx context.Context, path string) (string, error) {
	w, _, err := v.walk(ctx, path, keepLast)
	if err != nil {
		return "", err
	}
	defer w.close()
	return v.tree.Readlink(ctx, v.caller, w.top().node)
}

// StatFS implements StatFSer.
func (v *View) StatFS(ctx context.Context, path string) (StatFS, error) {
	w, _, err := v.walk(ctx, path, followLast)
	if err != nil {
		return StatFS{}, err
	}
	defer w.close()
	return v.tree.StatFS(ctx, v.caller, w.top().node)
}

// RealPath implements Server.
func (v *View) RealPath(ctx context.Context, path string) (string, error) {
	w, _, err := v.walk(ctx, path, allowNone)
	if err != nil {
		return "", err
	}
	defer w.close()
	return w.path(), nil
}

// ExpandPath implements PathExpander: "~" is the avatar's home and "~user" that
// of HomeDirectory; what comes of it is resolved as RealPath does.
func (v *View) ExpandPath(ctx context.Context, path string) (string, error) {
	if rest, ok := strings.CutPrefix(path, "~"); ok {
		user, below, slash := strings.Cut(rest, "/")
		home, err := v.HomeDirectory(ctx, user)
		if err != nil {
			return "", err
		}
		path = home
		if slash {
			path += "/" + below
		}
	}
	return v.RealPath(ctx, path)
}

// HomeDirectory implements PathExpander. A view knows its avatar's home only:
// that of others is ENOENT. The empty name is the avatar's.
func (v *View) HomeDirectory(ctx context.Context, user string) (string, error) {
	if user != "" && user != v.caller.Name {
		return "", &Error{Op: "home", Path: user, Errno: syscall.ENOENT}
	}
	return v.home(), nil
}

// home returns the avatar's home as the avatar sees it.
func (v *View) home() string { return path.Clean("/" + v.caller.Home) }

// settle waits until the other doors have been told of a change.
func (v *View) settle(ctx context.Context) { v.tree.Settle(ctx, v.caller.Door) }

// fail makes err the error of an operation on a path of the avatar's.
func (v *View) fail(op, name string, err error) error {
	if _, ok := err.(*Error); ok || err == nil {
		return err
	}
	inTree := path.Join("/", v.caller.Root, v.absolute(name))
	return &Error{Op: op, Path: inTree, Errno: Errno(err)}
}

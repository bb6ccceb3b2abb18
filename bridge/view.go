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
	AttrBatcher
} = (*View)(nil)

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

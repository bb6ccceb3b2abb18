package bridge

import (
	"context"
	"syscall"
)

// Protected says which protections against the files of others a tree has,
// beside permissions: those of Linux that are called fs.protected_symlinks,
// hardlinks, regular and fifos, with the values that they have there: proc(5).
// Nobody is exempt from them but who owns the file or, from CheckLink, root.
// The zero value protects nothing.
type Protected struct {
	Symlinks, Hardlinks bool
	Regular, FIFOs      int // 0, 1 or 2
}

// CheckFollow decides whether c may follow a symbolic link of the directory
// dir at the end of a path: EACCES if everybody may make links there, the
// directory being sticky and open to the world, and the link is neither c's nor
// the directory's owner's. A link on the way to something else is followed by
// everybody. Linux: may_follow_link.
func (p Protected) CheckFollow(c *Cred, dir, link Attr) error {
	const forAll = syscall.S_ISVTX | syscall.S_IWOTH
	if !p.Symlinks || link.UID == c.UID || dir.Mode&forAll != forAll || link.UID == dir.UID {
		return nil
	}
	return syscall.EACCES
}

// CheckLink decides whether c may give a file a further name: EPERM if neither
// c owns the file nor it is a regular one, without set-user-ID or effective
// set-group-ID, that c may read and write. It says nothing of the directory,
// nor that nobody may link directories, which Linux looks at after that. link(2);
// Linux: may_linkat, safe_hardlink_source.
func (p Protected) CheckLink(c *Cred, a Attr) error {
	if !p.Hardlinks || isOwner(c, a) {
		return nil
	}
	const setgidExec = syscall.S_ISGID | syscall.S_IXGRP
	if !a.IsRegular() || a.Mode&syscall.S_ISUID != 0 || a.Mode&setgidExec == setgidExec ||
		CheckAccess(c, a, MayRead|MayWrite) != nil {
		return syscall.EPERM
	}
	return nil
}

// CheckReuse decides whether c may open with O_CREAT, but without O_EXCL, what
// is already there in the directory dir: EACCES if that is sticky and open to
// the world, or with 2 also to its group, and the file is neither c's nor the
// directory's owner's. What is neither a regular file nor a fifo is always
// protected as by 1. Linux: may_create_in_sticky.
func (p Protected) CheckReuse(c *Cred, dir, file Attr) error {
	from := uint32(syscall.S_IWOTH)
	switch level := p.level(file); {
	case level == 0:
		return nil
	case level >= 2:
		from |= syscall.S_IWGRP
	}
	if dir.Mode&syscall.S_ISVTX == 0 || dir.Mode&from == 0 || file.UID == dir.UID || file.UID == c.UID {
		return nil
	}
	return syscall.EACCES
}

// level returns how a file of that type is protected from CheckReuse.
func (p Protected) level(file Attr) int {
	switch file.Type() {
	case syscall.S_IFREG:
		return p.Regular
	case syscall.S_IFIFO:
		return p.FIFOs
	}
	return 1
}

// mayFollow returns an error unless the caller may follow link, which is an
// entry of dir, at the end of a path. At a mount the kernel has asked itself.
func (t *Tree) mayFollow(ctx context.Context, c Caller, dir *Node, link Attr) error {
	if !t.opt.Protected.Symlinks || link.UID == c.Cred.UID {
		return nil
	}
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	a, err := t.permAttr(ctx, dir)
	if err != nil {
		return err
	}
	return t.opt.Protected.CheckFollow(&c.Cred, a, link)
}

// mayReuse returns an error unless the caller may open file, which is an entry
// of dir, with O_CREAT. renameMu is held.
func (t *Tree) mayReuse(ctx context.Context, c Caller, dir *Node, file Attr) error {
	if t.opt.Protected.level(file) == 0 || file.UID == c.Cred.UID || file.IsSymlink() {
		return nil // a symbolic link is not opened, but ELOOP
	}
	a, err := t.permAttr(ctx, dir)
	if err != nil {
		return err
	}
	return t.opt.Protected.CheckReuse(&c.Cred, a, file)
}

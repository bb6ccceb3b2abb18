package localfs

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// The modes of what is made when none is asked for.
const (
	fileMode = 0o644
	dirMode  = 0o755
)

// private are the permissions with which everything begins, until it has its
// owner.
const private = 0o700

// create makes the regular file name (EEXIST) and opens it.
func (fs *FS) create(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (int, error) {
	attr = withMode(attr.Without(bridge.SetSize), fileMode)
	fd, err := fs.open(name, uint64(flags&openFlags)|unix.O_CREAT|unix.O_EXCL, attr.Mode&private)
	if err == unix.ELOOP {
		return -1, fs.whichLink(name)
	}
	if err != nil {
		return -1, noLink(err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = setAttr(fd, lacking(&st, attr))
	}
	if err != nil {
		unix.Close(fd)
		fs.undo(ctx, name, &st)
		return -1, err
	}
	return fd, nil
}

// undo removes the regular file name that was made, if it still is that.
func (fs *FS) undo(ctx context.Context, name string, made *unix.Stat_t) {
	p, err := fs.parent(context.WithoutCancel(ctx), name)
	if err != nil {
		return
	}
	defer p.close()
	p.undo(made)
}

// undo removes what was made, if the name still means that.
func (p place) undo(made *unix.Stat_t) {
	var st unix.Stat_t
	if unix.Fstatat(p.fd, p.name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || idOf(&st) != idOf(made) {
		return
	}
	flags := 0
	if made.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	_ = unix.Unlinkat(p.fd, p.name, flags) // the error that led here counts
}

// withMode returns attr with the mode, if it asks for none.
func withMode(attr bridge.SetAttr, mode uint32) bridge.SetAttr {
	if !attr.Has(bridge.SetMode) {
		attr.Valid |= bridge.SetMode
		attr.Mode = mode
	}
	return attr
}

// lacking returns what attr asks for and a new file with st does not have yet.
func lacking(st *unix.Stat_t, attr bridge.SetAttr) bridge.SetAttr {
	if !ownerDiffers(st, attr) {
		attr = attr.Without(bridge.SetUID | bridge.SetGID)
	}
	// A change of owner takes set-id bits away, but none are there yet.
	if attr.Has(bridge.SetMode) && attr.Mode&0o7777 == st.Mode&0o7777 {
		attr = attr.Without(bridge.SetMode)
	}
	return attr
}

// Mkdir makes the directory name with the attributes of attr.
func (fs *FS) Mkdir(ctx context.Context, name string, attr bridge.SetAttr) error {
	if name == "." {
		return syscall.EEXIST
	}
	p, err := fs.parent(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	attr = withMode(attr.Without(bridge.SetSize), dirMode)
	if err := unix.Mkdirat(p.fd, p.name, private); err != nil {
		return err
	}
	return p.settle(unix.S_IFDIR, attr)
}

// Symlink makes the symbolic link name. Of attr, the owner and times count.
func (fs *FS) Symlink(ctx context.Context, target, name string, attr bridge.SetAttr) error {
	if name == "." {
		return syscall.EEXIST
	}
	p, err := fs.parent(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	if err := unix.Symlinkat(target, p.fd, p.name); err != nil {
		return err
	}
	attr = attr.Without(bridge.SetMode | bridge.SetSize)
	if attr.Valid == 0 {
		return nil
	}
	return p.settle(unix.S_IFLNK, attr)
}

// Mknod makes a fifo, a socket, an empty regular file, or, for root, a device.
// EPERM for a directory, EINVAL for any other type.
func (fs *FS) Mknod(ctx context.Context, name string, mode, rdev uint32, attr bridge.SetAttr) error {
	if name == "." {
		return syscall.EEXIST
	}
	attr = withMode(attr.Without(bridge.SetMode|bridge.SetSize), mode&0o7777)
	switch typ := mode & unix.S_IFMT; typ {
	case 0, unix.S_IFREG:
		return fs.mkfile(ctx, name, attr)
	case unix.S_IFIFO, unix.S_IFSOCK:
		return fs.mknod(ctx, name, typ, 0, attr)
	case unix.S_IFCHR, unix.S_IFBLK:
		return fs.mknod(ctx, name, typ, rdev, attr)
	case unix.S_IFDIR:
		return syscall.EPERM
	}
	return syscall.EINVAL
}

// mkfile makes an empty regular file.
func (fs *FS) mkfile(ctx context.Context, name string, attr bridge.SetAttr) error {
	if err := check(ctx, name); err != nil {
		return err
	}
	fd, err := fs.create(ctx, name, unix.O_WRONLY, attr)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// mknod makes a special file.
func (fs *FS) mknod(ctx context.Context, name string, typ, rdev uint32, attr bridge.SetAttr) error {
	p, err := fs.parent(ctx, name)
	if err != nil {
		return err
	}
	defer p.close()
	if err := unix.Mknodat(p.fd, p.name, typ|attr.Mode&private, int(rdev)); err != nil {
		return err
	}
	return p.settle(typ, attr)
}

// settle gives what was made under the name, of the type typ, the attributes
// attr, or removes it. ENOENT if somebody has moved or removed it meanwhile,
// also if he has put something else in its place.
func (p place) settle(typ uint32, attr bridge.SetAttr) error {
	fd, err := unix.Openat(p.fd, p.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != typ || !isNew(fd, &st, attr) {
		return syscall.ENOENT
	}
	err = setAttr(fd, lacking(&st, attr))
	if err != nil {
		p.undo(&st)
	}
	return err
}

// isNew reports whether the inode may be the one that was just made, and not
// one that somebody moved there in the hope that it will be given to him: it
// belongs to us or to whom it shall, is open to nobody else, has one link, and
// is empty. What passes for new by mistake is worth nothing to anybody.
func isNew(fd int, st *unix.Stat_t, attr bridge.SetAttr) bool {
	mine := st.Uid == fsuid() || attr.Has(bridge.SetUID) && st.Uid == attr.UID
	switch {
	case !mine:
		return false
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		return st.Nlink == 1
	case st.Mode&0o077 != 0:
		return false
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return !ownerDiffers(st, attr) || isEmpty(fd)
	}
	return st.Nlink == 1
}

// fsuid returns the user to whom what this thread makes belongs.
func fsuid() uint32 {
	uid, _ := unix.SetfsuidRetUid(-1) // no user, so that nothing is set
	return uint32(uid)
}

// isEmpty reports whether the directory, an O_PATH descriptor, has no entries.
func isEmpty(fd int) bool {
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	var buf [512]byte // room for ".", ".." and one more
	for {
		n, err := unix.ReadDirent(dir, buf[:])
		if err != nil || n == 0 {
			return err == nil
		}
		for range direntsOf(buf[:n]) {
			return false
		}
	}
}

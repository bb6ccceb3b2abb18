package localfs

import (
	"context"
	"math"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// attrOf returns what st tells.
func attrOf(st *unix.Stat_t) bridge.Attr {
	return bridge.Attr{
		ID:     idOf(st),
		Mode:   st.Mode,
		Nlink:  uint32(st.Nlink),
		UID:    st.Uid,
		GID:    st.Gid,
		Rdev:   uint32(st.Rdev),
		Size:   st.Size,
		Blocks: st.Blocks,
		Atime:  time.Unix(st.Atim.Unix()),
		Mtime:  time.Unix(st.Mtim.Unix()),
		Ctime:  time.Unix(st.Ctim.Unix()),
	}
}

func idOf(st *unix.Stat_t) bridge.FileID {
	return bridge.FileID{Dev: uint64(st.Dev), Ino: st.Ino}
}

// fstat returns the attributes of an open file.
func fstat(fd int) (bridge.Attr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return bridge.Attr{}, err
	}
	return attrOf(&st), nil
}

// statFSOf returns what st tells.
func statFSOf(st *unix.Statfs_t) bridge.StatFS {
	fragSize := uint32(st.Frsize)
	if fragSize == 0 {
		fragSize = uint32(st.Bsize)
	}
	return bridge.StatFS{
		BlockSize:  uint32(st.Bsize),
		FragSize:   fragSize,
		Blocks:     st.Blocks,
		BlocksFree: st.Bfree,
		BlocksAvl:  st.Bavail,
		Files:      st.Files,
		FilesFree:  st.Ffree,
		FilesAvl:   st.Ffree,
		FSID:       uint64(uint32(st.Fsid.Val[0])) | uint64(uint32(st.Fsid.Val[1]))<<32,
		ReadOnly:   st.Flags&unix.ST_RDONLY != 0,
		NoSUID:     st.Flags&unix.ST_NOSUID != 0,
		NameMax:    uint32(st.Namelen),
	}
}

// SetAttr changes attributes of name, all of the same inode. EOPNOTSUPP for
// the mode of a symbolic link and ELOOP for its size, EISDIR for the size of a
// directory and EINVAL for that of a special file; then nothing is changed.
func (fs *FS) SetAttr(ctx context.Context, name string, attr bridge.SetAttr) error {
	if !attr.Has(bridge.SetSize) {
		n, err := fs.inode(ctx, name)
		if err != nil {
			return err
		}
		defer n.close()
		if attr.Has(bridge.SetMode) {
			if err := checkMode(n.fd); err != nil {
				return err
			}
		}
		return setAttr(n.fd, attr)
	}
	if err := check(ctx, name); err != nil {
		return err
	}
	fd, err := fs.openRegular(name, unix.O_WRONLY)
	if err == unix.ENXIO {
		return syscall.EINVAL
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setAttr(fd, attr)
}

// setAttr changes the attributes of the file that fd, which may be an O_PATH
// descriptor, stands for.
func setAttr(fd int, attr bridge.SetAttr) error {
	if attr.Has(bridge.SetSize) {
		if err := retry(func() error { return unix.Ftruncate(fd, attr.Size) }); err != nil {
			return err
		}
	}
	if attr.Any(bridge.SetUID | bridge.SetGID) {
		if err := chown(fd, attr); err != nil {
			return err
		}
	}
	if attr.Has(bridge.SetMode) {
		if err := chmod(fd, attr.Mode&0o7777); err != nil {
			return err
		}
	}
	if attr.Any(bridge.SetAtime | bridge.SetMtime) {
		return utimes(fd, attr)
	}
	return nil
}

// checkMode returns EOPNOTSUPP for a symbolic link, whose mode some kernels
// would change and some would change and say that they did not.
func checkMode(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return syscall.EOPNOTSUPP
	}
	return nil
}

// chown sets the owner. Who may not set it may still ask for the one that
// there is.
func chown(fd int, attr bridge.SetAttr) error {
	uid, gid := -1, -1
	if attr.Has(bridge.SetUID) {
		if attr.UID == math.MaxUint32 { // would leave it as it is
			return syscall.EINVAL
		}
		uid = int(attr.UID)
	}
	if attr.Has(bridge.SetGID) {
		if attr.GID == math.MaxUint32 {
			return syscall.EINVAL
		}
		gid = int(attr.GID)
	}
	err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH)
	if err != unix.EPERM {
		return err
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && !ownerDiffers(&st, attr) {
		return nil
	}
	return err
}

// ownerDiffers reports whether attr asks for another owner than st has.
func ownerDiffers(st *unix.Stat_t, attr bridge.SetAttr) bool {
	return attr.Has(bridge.SetUID) && attr.UID != st.Uid ||
		attr.Has(bridge.SetGID) && attr.GID != st.Gid
}

// chmod sets the mode of what is not a symbolic link. An O_PATH descriptor
// needs fchmodat2(2), of Linux 6.6, or the way through /proc.
func chmod(fd int, mode uint32) error {
	err := unix.Fchmod(fd, mode)
	if err != unix.EBADF {
		return err
	}
	err = unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err != unix.EOPNOTSUPP && err != unix.EPERM {
		return err
	}
	return chmodProc(fd, mode)
}

// chmodProc is chmod where the kernel lacks fchmodat2(2) (EOPNOTSUPP from
// the library), or a filter of system calls denies it (EPERM).
func chmodProc(fd int, mode uint32) error {
	return unix.Chmod(inode{fd: fd}.path(), mode)
}

// utimes sets the times that attr names and leaves the others.
func utimes(fd int, attr bridge.SetAttr) error {
	atime, err := timespec(attr.Has(bridge.SetAtime), attr.Has(bridge.SetAtimeNow), attr.Atime)
	if err != nil {
		return err
	}
	mtime, err := timespec(attr.Has(bridge.SetMtime), attr.Has(bridge.SetMtimeNow), attr.Mtime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{atime, mtime}, unix.AT_EMPTY_PATH)
}

func timespec(set, now bool, t time.Time) (unix.Timespec, error) {
	switch {
	case !set:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}, nil
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}, nil
	}
	return unix.TimeToTimespec(t)
}

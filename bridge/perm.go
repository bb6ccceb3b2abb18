package bridge

import "syscall"

// The kinds of access that CheckAccess decides about, as in access(2). For a
// directory, MayExec is search permission.
const (
	MayExec  = 1
	MayWrite = 2
	MayRead  = 4
)

// The permission rules below are those of Linux, for a file system without
// access control lists. Each is a pure function of who asks and of what the
// files are like at that moment. A Cred with the user id 0 has what
// capabilities(7) calls CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID and CAP_CHOWN.

// CheckAccess decides whether c may have the access mask to a file: EACCES if
// not. Only one class of permission bits counts, the owner's, the group's or
// that of others. Root passes, but to execute a file that nobody may execute.
// path_resolution(7); Linux: generic_permission.
func CheckAccess(c *Cred, a Attr, mask uint32) error {
	if mask&^accessBits(c, a) == 0 {
		return nil
	}
	if c.IsRoot() && (a.IsDir() || mask&MayExec == 0 || a.Mode&0o111 != 0) {
		return nil
	}
	return syscall.EACCES
}

// accessBits returns the permission bits of the one class that c is in.
func accessBits(c *Cred, a Attr) uint32 {
	switch {
	case c.UID == a.UID:
		return a.Mode >> 6 & 7
	case c.InGroup(a.GID):
		return a.Mode >> 3 & 7
	}
	return a.Mode & 7
}

// isOwner reports whether c owns the file or passes for it. Linux:
// inode_owner_or_capable.
func isOwner(c *Cred, a Attr) bool { return c.UID == a.UID || c.IsRoot() }

// CheckDelete decides whether c may take the name of the file victim out of
// the directory dir, by removing or renaming it: EACCES without write and
// search permission on dir, EPERM if dir has the sticky bit and c owns neither.
// unlink(2), rename(2); Linux: may_delete, __check_sticky.
func CheckDelete(c *Cred, dir, victim Attr) error {
	if err := CheckAccess(c, dir, MayWrite|MayExec); err != nil {
		return err
	}
	if dir.Mode&syscall.S_ISVTX != 0 && !isOwner(c, victim) && c.UID != dir.UID {
		return syscall.EPERM
	}
	return nil
}

// CheckSetAttr decides whether c may make the change set to a file. byHandle
// says that c has the file open for writing, which permits a change of size.
//
// The size: EINVAL if negative, EISDIR for a directory, EINVAL for what else
// is not a regular file, EACCES without write permission. The owner: EPERM but
// for root, or the owner who changes nothing. The group: EPERM but for root, or
// the owner who gives it to a group of theirs. The mode, and times but for both
// being set to now: EPERM but for the owner and root. Both times to now: EACCES
// but for them and whoever has write permission.
//
// truncate(2), chown(2), chmod(2), utimensat(2); Linux: vfs_truncate,
// setattr_prepare, may_setattr.
func CheckSetAttr(c *Cred, a Attr, set SetAttr, byHandle bool) error {
	if set.Has(SetSize) {
		if err := checkResize(c, a, set.Size, byHandle); err != nil {
			return err
		}
	}
	if set.Has(SetUID) && !c.IsRoot() && (c.UID != a.UID || set.UID != a.UID) {
		return syscall.EPERM
	}
	if set.Has(SetGID) && !c.IsRoot() && (c.UID != a.UID || set.GID != a.GID && !c.InGroup(set.GID)) {
		return syscall.EPERM
	}
	if set.Has(SetMode) && !isOwner(c, a) {
		return syscall.EPERM
	}
	if set.Any(SetAtime|SetMtime) && !isOwner(c, a) {
		if !set.Has(SetAtime | SetAtimeNow | SetMtime | SetMtimeNow) {
			return syscall.EPERM
		}
		return CheckAccess(c, a, MayWrite)
	}
	return nil
}

// checkResize decides whether c may change the size of a file.
func checkResize(c *Cred, a Attr, size int64, byHandle bool) error {
	switch {
	case size < 0:
		return syscall.EINVAL
	case a.IsDir():
		return syscall.EISDIR
	case !a.IsRegular():
		return syscall.EINVAL
	case byHandle:
		return nil
	}
	return CheckAccess(c, a, MayWrite)
}

// SetAttrEffect returns the change set, which c may make, with what the kernel
// adds to it. A mode loses S_ISGID if c is neither root nor in the group that
// the file has then. A new owner or group, whoever sets it, and a new size set
// by who is not root, take the set-id bits from a file, unless the change has a
// mode of its own, which comes after. chmod(2), chown(2); Linux:
// setattr_prepare, chown_common, do_truncate.
func SetAttrEffect(c *Cred, a Attr, set SetAttr) SetAttr {
	if set.Has(SetMode) {
		gid := a.GID
		if set.Has(SetGID) {
			gid = set.GID
		}
		if !mayKeepSetGID(c, gid) {
			set.Mode &^= syscall.S_ISGID
		}
		return set
	}
	mode := a.Perm()
	if set.Any(SetUID|SetGID) && !a.IsDir() {
		mode = dropSetID(c, a)
	}
	if set.Has(SetSize) {
		if m, clear := WriteClears(c, a); clear {
			mode &= m
		}
	}
	if mode != a.Perm() {
		set.Valid |= SetMode
		set.Mode = mode
	}
	return set
}

// WriteClears returns the permission bits that a regular file is left with
// when c writes to it, and whether they differ from those it has: who is not
// root clears set-user-ID, and set-group-ID if the group may execute the file
// or the writer is not in it. write(2); Linux: file_remove_privs,
// setattr_should_drop_suidgid.
func WriteClears(c *Cred, a Attr) (mode uint32, clear bool) {
	if c.IsRoot() || !a.IsRegular() {
		return a.Perm(), false
	}
	mode = dropSetID(c, a)
	return mode, mode != a.Perm()
}

// dropSetID returns the permission bits of a without set-user-ID, and without
// set-group-ID if that has an effect or c could not set it. Linux:
// setattr_should_drop_sgid.
func dropSetID(c *Cred, a Attr) uint32 {
	mode := a.Perm() &^ syscall.S_ISUID
	if mode&syscall.S_IXGRP != 0 || !mayKeepSetGID(c, a.GID) {
		mode &^= syscall.S_ISGID
	}
	return mode
}

// mayKeepSetGID reports whether c may have a file of the group gid with
// S_ISGID. Linux: in_group_or_capable.
func mayKeepSetGID(c *Cred, gid uint32) bool { return c.IsRoot() || c.InGroup(gid) }

// NewAttr returns the owner, group and mode of a file that c makes in the
// directory dir with mode, whose type bits say of what type and from which the
// umask was taken. In a set-group-ID directory it gets the group of that, and
// a directory the bit as well; a file that the group may execute has the bit
// only from root or who is in the group. A new directory has no other set-id
// bits. open(2), mkdir(2), inode(7); Linux: inode_init_owner, mode_strip_sgid,
// vfs_mkdir.
func NewAttr(c *Cred, dir Attr, mode uint32) SetAttr {
	set := SetAttr{Valid: SetMode | SetUID | SetGID, Mode: mode & 0o7777, UID: c.UID, GID: c.GID}
	isDir := mode&syscall.S_IFMT == syscall.S_IFDIR
	if isDir {
		set.Mode &= 0o1777
	}
	if dir.Mode&syscall.S_ISGID == 0 {
		return set
	}
	set.GID = dir.GID
	switch {
	case isDir:
		set.Mode |= syscall.S_ISGID
	case set.Mode&syscall.S_IXGRP != 0 && !mayKeepSetGID(c, dir.GID):
		set.Mode &^= syscall.S_ISGID
	}
	return set
}

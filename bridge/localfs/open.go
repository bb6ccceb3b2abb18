package localfs

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// openFlags are the flags of open(2) that Open passes on.
const openFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_APPEND

// Open opens, and with O_CREAT makes, the regular file name. ELOOP for a
// symbolic link, EISDIR for a directory, ENXIO for any other special file.
func (fs *FS) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	if err := check(ctx, name); err != nil {
		return nil, err
	}
	if flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return nil, syscall.EINVAL
	}
	var fd int
	var err error
	switch {
	case !flags.Has(unix.O_CREAT):
		fd, err = fs.openRegular(name, uint64(flags&openFlags))
	case flags.Has(unix.O_EXCL):
		fd, err = fs.create(ctx, name, flags, attr)
	default:
		fd, err = fs.openOrCreate(ctx, name, flags, attr)
	}
	if err != nil {
		return nil, err
	}
	return &File{fd: fd, append: flags.Has(unix.O_APPEND)}, nil
}

// openOrCreate opens name if it is there and makes it if not, and knows which
// it was. Somebody who makes and removes the name all the time can keep it from
// doing either, for a while.
func (fs *FS) openOrCreate(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (int, error) {
	for again := 0; ; again++ {
		fd, err := fs.openRegular(name, uint64(flags&openFlags))
		if err != unix.ENOENT {
			return fd, err
		}
		fd, err = fs.create(ctx, name, flags, attr)
		if err != unix.EEXIST || again == maxAgain {
			return fd, err
		}
	}
}

// openRegular opens the regular file name, without blocking on any other.
func (fs *FS) openRegular(name string, flags uint64) (int, error) {
	fd, err := fs.open(name, flags|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	switch {
	case err == unix.ELOOP:
		return -1, fs.whichLink(name)
	case err == unix.EAGAIN:
		return fs.openLeased(name, flags)
	case err != nil:
		return -1, noLink(err)
	}
	if err := checkRegular(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openLeased opens a regular file of which somebody else has a lease
// (fcntl(2)), such as a Samba or NFS server for its clients. That has to be
// waited for, which is safe to do once the file is known to be a regular one.
func (fs *FS) openLeased(name string, flags uint64) (int, error) {
	path, err := fs.open(name, unix.O_PATH, 0)
	if err != nil {
		return -1, noLink(err)
	}
	defer unix.Close(path)
	if err := checkRegular(path); err != nil {
		return -1, err
	}
	var fd int
	err = retry(func() (err error) {
		fd, err = unix.Open(inode{fd: path}.path(), int(flags)|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// whichLink tells a symbolic link at the end of name, which is ELOOP, from one
// in the middle, which is ENOTDIR.
func (fs *FS) whichLink(name string) error {
	p, err := fs.parent(context.Background(), name)
	if err != nil {
		return err
	}
	p.close()
	return syscall.ELOOP
}

// checkRegular returns the errno for opening a file that is not a regular one.
func checkRegular(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return syscall.EISDIR
	case unix.S_IFLNK:
		return syscall.ELOOP
	}
	return syscall.ENXIO
}

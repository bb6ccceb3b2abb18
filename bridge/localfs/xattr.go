package localfs

import (
	"context"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// xattrBuf is the size of a value or list of names that is had at the first
// try, and maxXattr the largest that the kernel gives, in bytes.
const (
	xattrBuf = 512
	maxXattr = 64 << 10
)

// GetXattr returns the value of attr of name, also of a symbolic link itself.
func (fs *FS) GetXattr(ctx context.Context, name, attr string) ([]byte, error) {
	n, err := fs.inode(ctx, name)
	if err != nil {
		return nil, err
	}
	defer n.close()
	path := n.path()
	return grow(func(buf []byte) (int, error) { return unix.Getxattr(path, attr, buf) })
}

// SetXattr sets attr of name.
func (fs *FS) SetXattr(ctx context.Context, name, attr string, value []byte, flags int) error {
	if flags&^(unix.XATTR_CREATE|unix.XATTR_REPLACE) != 0 {
		return syscall.EINVAL
	}
	n, err := fs.inode(ctx, name)
	if err != nil {
		return err
	}
	defer n.close()
	return unix.Setxattr(n.path(), attr, value, flags)
}

// ListXattr returns the names of the extended attributes of name.
func (fs *FS) ListXattr(ctx context.Context, name string) ([]string, error) {
	n, err := fs.inode(ctx, name)
	if err != nil {
		return nil, err
	}
	defer n.close()
	path := n.path()
	list, err := grow(func(buf []byte) (int, error) { return unix.Listxattr(path, buf) })
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00"), nil
}

// RemoveXattr removes attr of name.
func (fs *FS) RemoveXattr(ctx context.Context, name, attr string) error {
	n, err := fs.inode(ctx, name)
	if err != nil {
		return err
	}
	defer n.close()
	return unix.Removexattr(n.path(), attr)
}

// grow calls get with a buffer that is large enough for what it returns.
func grow(get func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, xattrBuf)
	n, err := get(buf)
	if err == unix.ERANGE {
		buf = make([]byte, maxXattr)
		n, err = get(buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

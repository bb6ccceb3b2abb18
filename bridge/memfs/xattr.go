package memfs

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"syscall"

	"sftpbridge/bridge"
)

// Limits of extended attributes and the flags of setxattr(2), as Linux has
// them.
const (
	xattrValueMax = 64 << 10
	xattrCreate   = 1
	xattrReplace  = 2
)

// GetXattr returns the value of attr, ENODATA if there is none.
func (fs *FS) GetXattr(ctx context.Context, name, attr string) ([]byte, error) {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	value, ok := n.xattrs[attr]
	if !ok {
		return nil, syscall.ENODATA
	}
	return append([]byte{}, value...), nil
}

// SetXattr sets attr. ERANGE for its name and E2BIG for its value if they are
// longer than Linux has them.
func (fs *FS) SetXattr(ctx context.Context, name, attr string, value []byte, flags int) error {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case flags&^(xattrCreate|xattrReplace) != 0:
		return syscall.EINVAL
	case attr == "" || len(attr) > bridge.NameMax:
		return syscall.ERANGE
	case len(value) > xattrValueMax:
		return syscall.E2BIG
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.xattrs[attr]
	if ok && flags&xattrCreate != 0 {
		return syscall.EEXIST
	}
	if !ok && flags&xattrReplace != 0 {
		return syscall.ENODATA
	}
	if n.xattrs == nil {
		n.xattrs = make(map[string][]byte)
	}
	n.xattrs[attr] = bytes.Clone(value)
	n.attr.Ctime = now()
	return nil
}

// ListXattr returns the names of the extended attributes in order.
func (fs *FS) ListXattr(ctx context.Context, name string) ([]string, error) {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return slices.Sorted(maps.Keys(n.xattrs)), nil
}

// RemoveXattr removes attr, ENODATA if there is none.
func (fs *FS) RemoveXattr(ctx context.Context, name, attr string) error {
	n, err := fs.lookup(ctx, name)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.xattrs[attr]; !ok {
		return syscall.ENODATA
	}
	delete(n.xattrs, attr)
	n.attr.Ctime = now()
	return nil
}

package bridge

import (
	"context"
	"strings"
	"syscall"
)

// xattrMax is the size of an extended attribute's value that Linux takes at
// most, in bytes (XATTR_SIZE_MAX).
const xattrMax = 64 << 10

// GetXattr returns the value of an extended attribute (ENODATA, EOPNOTSUPP).
func (t *Tree) GetXattr(ctx context.Context, c Caller, n *Node, attr string) ([]byte, error) {
	ctx = t.as(ctx, c)
	var value []byte
	err := t.xattr(ctx, c, n, attr, MayRead, func(b XattrBackend, path string) (err error) {
		value, err = b.GetXattr(ctx, path, attr)
		return err
	})
	return value, t.fail("getxattr", n, "", err)
}

// SetXattr sets an extended attribute; flags are those of setxattr(2).
func (t *Tree) SetXattr(ctx context.Context, c Caller, n *Node, attr string, value []byte, flags int) error {
	ctx = t.as(ctx, c)
	if len(value) > xattrMax {
		return t.fail("setxattr", n, "", syscall.E2BIG)
	}
	err := t.xattr(ctx, c, n, attr, MayWrite, func(b XattrBackend, path string) error {
		return b.SetXattr(ctx, path, attr, value, flags)
	})
	if err == nil {
		t.publish(c.Door, Event{Node: n, Kind: AttrChanged})
	}
	return t.fail("setxattr", n, "", err)
}

// RemoveXattr removes an extended attribute (ENODATA).
func (t *Tree) RemoveXattr(ctx context.Context, c Caller, n *Node, attr string) error {
	ctx = t.as(ctx, c)
	err := t.xattr(ctx, c, n, attr, MayWrite, func(b XattrBackend, path string) error {
		return b.RemoveXattr(ctx, path, attr)
	})
	if err == nil {
		t.publish(c.Door, Event{Node: n, Kind: AttrChanged})
	}
	return t.fail("removexattr", n, "", err)
}

// ListXattr returns the names of the extended attributes that the caller may
// know of.
func (t *Tree) ListXattr(ctx context.Context, c Caller, n *Node) ([]string, error) {
	ctx = t.as(ctx, c)
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	b, ok := t.backend.(XattrBackend)
	if !ok {
		return nil, t.fail("listxattr", n, "", syscall.EOPNOTSUPP)
	}
	path, err := t.pathOf(n)
	if err != nil {
		return nil, t.fail("listxattr", n, "", err)
	}
	names, err := b.ListXattr(ctx, path)
	shown := names[:0]
	for _, name := range names {
		if !strings.HasPrefix(name, "trusted.") || c.Cred.IsRoot() {
			shown = append(shown, name)
		}
	}
	return shown, t.fail("listxattr", n, "", err)
}

// xattr does something with an extended attribute that the caller may access
// as mask says.
func (t *Tree) xattr(ctx context.Context, c Caller, n *Node, attr string, mask uint32, do func(b XattrBackend, path string) error) error {
	t.renameMu.RLock()
	defer t.renameMu.RUnlock()
	b, ok := t.backend.(XattrBackend)
	if !ok {
		return syscall.EOPNOTSUPP
	}
	write := mask == MayWrite
	if write {
		if err := t.mutable(c); err != nil {
			return err
		}
	}
	if needsAttr(attr) {
		a, err := t.attr(ctx, n)
		if err != nil {
			return err
		}
		if err := CheckXattr(&c.Cred, a, attr, write); err != nil {
			return err
		}
	} else if err := CheckXattr(&c.Cred, Attr{}, attr, write); err != nil {
		return err
	}
	op := OpRead
	if write {
		op = OpSetAttr
	}
	if err := t.allow(c, op, n, ""); err != nil {
		return err
	}
	path, err := t.pathOf(n)
	if err != nil {
		return err
	}
	return do(b, path)
}

// needsAttr reports whether CheckXattr looks at the file: a kernel asks for
// security.capability at each write, which must not cost more than it has to.
func needsAttr(attr string) bool { return strings.HasPrefix(attr, "user.") }

// CheckXattr says whether an extended attribute of a file may be read or
// written, as xattr(7) has it: those of the user namespace exist for regular
// files and directories, go by the permission bits, and in a sticky directory
// are its owner's to set; trusted ones are root's; security ones are root's to
// set; system ones (access control lists) are not supported.
func CheckXattr(c *Cred, a Attr, attr string, write bool) error {
	space, rest, _ := strings.Cut(attr, ".")
	if rest == "" {
		return syscall.EOPNOTSUPP
	}
	if len(attr) > NameMax {
		return syscall.ERANGE
	}
	no := syscall.ENODATA
	if write {
		no = syscall.EPERM
	}
	switch space {
	case "user":
		switch {
		case !a.IsRegular() && !a.IsDir():
			return no
		case write && a.IsDir() && a.Mode&syscall.S_ISVTX != 0 && c.UID != a.UID && !c.IsRoot():
			return syscall.EPERM
		case write:
			return CheckAccess(c, a, MayWrite)
		}
		return CheckAccess(c, a, MayRead)
	case "trusted":
		if !c.IsRoot() {
			return no
		}
		return nil
	case "security":
		if write && !c.IsRoot() {
			return syscall.EPERM
		}
		return nil
	}
	return syscall.EOPNOTSUPP
}

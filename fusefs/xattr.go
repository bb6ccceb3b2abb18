package fusefs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// xattrStatus answers for attributes that the tree is not asked about: access
// control lists, which it does not have, and capabilities of executables,
// which it would have to take away on every write.
func xattrStatus(name string, reading bool) fuse.Status {
	switch {
	case strings.HasPrefix(name, "system."):
		return fuse.ENOTSUP
	case name == "security.capability" && reading:
		return fuse.ENODATA
	case name == "security.capability":
		return fuse.ENOTSUP
	}
	return fuse.OK
}

// GetXAttr returns the length of an extended attribute, and its value if that fits.
func (d *door) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if code := xattrStatus(name, true); !code.Ok() {
		return 0, code
	}
	c, n, code := d.begin(h)
	if !code.Ok() {
		return 0, code
	}
	value, err := d.tree.GetXattr(d.ctx, c, n, name)
	if err != nil {
		return 0, status(err)
	}
	return fit(dest, value)
}

// ListXAttr returns the names of the extended attributes, each ended by a NUL.
func (d *door) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	c, n, code := d.begin(h)
	if !code.Ok() {
		return 0, code
	}
	names, err := d.tree.ListXattr(d.ctx, c, n)
	if err != nil {
		return 0, status(err)
	}
	var list []byte
	for _, name := range names {
		if xattrStatus(name, true).Ok() {
			list = append(append(list, name...), 0)
		}
	}
	return fit(dest, list)
}

func fit(dest, value []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// SetXAttr sets an extended attribute.
func (d *door) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	if code := xattrStatus(name, false); !code.Ok() {
		return code
	}
	c, n, code := d.begin(&in.InHeader)
	if !code.Ok() {
		return code
	}
	return status(d.tree.SetXattr(d.ctx, c, n, name, append([]byte(nil), value...), int(in.Flags)))
}

// RemoveXAttr removes an extended attribute.
func (d *door) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	if code := xattrStatus(name, false); !code.Ok() {
		return code
	}
	c, n, code := d.begin(h)
	if !code.Ok() {
		return code
	}
	return status(d.tree.RemoveXattr(d.ctx, c, n, name))
}

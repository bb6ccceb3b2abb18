package sftpfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// Bounds on what the server may send.
const (
	maxPacket   = 256<<10 + 1024 // bytes of a packet without its length
	maxHandle   = 256            // bytes of a handle (draft-02, section 6.3)
	maxListing  = 4 << 20        // names in a directory
	headerBytes = 4 + 1 + 4      // length, type, request id
)

// Names of extensions that the codec does not know.
const (
	extPosixRename = "posix-rename@openssh.com"
	extHardlink    = "hardlink@openssh.com"
	extStatVFS     = "statvfs@openssh.com"
	extFStatVFS    = "fstatvfs@openssh.com"
	extFSync       = "fsync@openssh.com"
	extLSetStat    = "lsetstat@openssh.com"
	extLimits      = "limits@openssh.com"
	extCopyData    = "copy-data"
)

// A request is a packet to be sent, and where the data of a READ's answer go.
type request struct {
	packet  sshfx.PacketMarshaller
	dst     []byte
	slow    bool // may take the server long: fsync, copy-data
	foresee bool // goes to the handle that the request before it will bring
}

// weight is the number of bytes that the request puts on the way.
func (r request) weight() int64 {
	if w, ok := r.packet.(*sshfx.WritePacket); ok {
		return int64(len(w.Data))
	}
	return int64(len(r.dst))
}

func lstat(path string) request { return request{packet: &sshfx.LStatPacket{Path: path}} }

func fstat(handle string) request { return request{packet: &sshfx.FStatPacket{Handle: handle}} }

func closing(handle string) request { return request{packet: &sshfx.ClosePacket{Handle: handle}} }

// extended makes an extended request whose data fill writes.
func extended(name string, fill func(b *sshfx.Buffer)) request {
	b := new(sshfx.Buffer)
	if fill != nil {
		fill(b)
	}
	return request{packet: &sshfx.ExtendedPacket{ExtendedRequest: name, Data: b}}
}

// lsetstat sets attributes of the path itself, be it a symbolic link.
func lsetstat(path string, attrs sshfx.Attributes) request {
	return extended(extLSetStat, func(b *sshfx.Buffer) {
		b.AppendString(path)
		attrs.MarshalInto(b)
	})
}

var errShort = errors.New("short packet")

// readAttrs decodes an ATTRS structure. The codec's own decoder would
// allocate whatever number of extended attributes the server claims.
func readAttrs(b *sshfx.Buffer) (sshfx.Attributes, error) {
	a := sshfx.Attributes{Flags: b.ConsumeUint32()}
	if a.HasSize() {
		a.Size = b.ConsumeUint64()
	}
	if a.HasUserGroup() {
		a.UID, a.GID = b.ConsumeUint32(), b.ConsumeUint32()
	}
	if a.HasPermissions() {
		a.Permissions = sshfx.FileMode(b.ConsumeUint32())
	}
	if a.HasACModTime() {
		a.ATime, a.MTime = b.ConsumeUint32(), b.ConsumeUint32()
	}
	if a.HasExtended() {
		for n := b.ConsumeUint32(); n > 0 && b.Err == nil; n-- {
			b.ConsumeBytes()
			b.ConsumeBytes()
		}
	}
	return a, b.Err
}

// An entry is one name of a NAME packet.
type entry struct {
	name, longname string
	attrs          sshfx.Attributes
}

// readNames decodes the body of a NAME packet.
func readNames(body []byte) ([]entry, error) {
	b := sshfx.NewBuffer(body)
	n := b.ConsumeUint32()
	if int64(n) > int64(b.Len())/12 { // an entry is 12 bytes at least
		return nil, errShort
	}
	entries := make([]entry, 0, n)
	for range n {
		e := entry{name: b.ConsumeString(), longname: b.ConsumeString()}
		a, err := readAttrs(b)
		if err != nil {
			return nil, err
		}
		e.attrs = a
		entries = append(entries, e)
	}
	return entries, b.Err
}

// readVersion decodes a VERSION packet without its length.
func readVersion(packet []byte) (map[string]string, error) {
	b := sshfx.NewBuffer(packet)
	if t := sshfx.PacketType(b.ConsumeUint8()); t != sshfx.PacketTypeVersion {
		return nil, fmt.Errorf("answer to INIT has type %d", t)
	}
	if v := b.ConsumeUint32(); v != 3 || b.Err != nil {
		return nil, fmt.Errorf("the server speaks version %d of the protocol, not 3", v)
	}
	ext := make(map[string]string)
	for b.Len() > 0 && b.Err == nil {
		name := b.ConsumeString()
		ext[name] = b.ConsumeString()
	}
	return ext, b.Err
}

// readPacket reads one whole packet, without its length.
func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := sshfx.NewBuffer(head[:]).ConsumeUint32()
	if n < 1 || n > maxPacket {
		return nil, garbage("a packet of %d bytes", n)
	}
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

// Types of files, as in st_mode.
const (
	typeMask    = 0o170000
	typeDir     = 0o040000
	typeRegular = 0o100000
	typeSymlink = 0o120000
)

// toAttr turns what the server sent into an Attr. What it left out is a
// regular file of nobody.
func toAttr(a sshfx.Attributes) bridge.Attr {
	attr := bridge.Attr{Mode: typeRegular, UID: 65534, GID: 65534, Blocks: -1}
	if a.HasSize() && a.Size <= math.MaxInt64 {
		attr.Size = int64(a.Size)
	}
	if a.HasUserGroup() {
		attr.UID, attr.GID = a.UID, a.GID
	}
	if a.HasPermissions() {
		attr.Mode = uint32(a.Permissions) & 0o177777
		if attr.Type() == 0 {
			attr.Mode |= typeRegular
		}
	}
	if a.HasACModTime() {
		attr.Atime = time.Unix(int64(a.ATime), 0)
		attr.Mtime = time.Unix(int64(a.MTime), 0)
	}
	return attr
}

// toEntry turns one name of a listing into a DirEntry. A server that leaves
// the type out of the permissions says it in the long name.
func toEntry(e entry) bridge.DirEntry {
	const full = sshfx.AttrSize | sshfx.AttrUIDGID | sshfx.AttrPermissions | sshfx.AttrACModTime
	d := bridge.DirEntry{Name: e.name, Attr: toAttr(e.attrs), Full: e.attrs.Flags&full == full}
	if uint32(e.attrs.Permissions)&typeMask != 0 {
		return d
	}
	d.Full = false
	d.Attr.Mode &= 0o7777
	if len(e.longname) > 0 {
		switch e.longname[0] {
		case 'd':
			d.Attr.Mode |= typeDir
		case 'l':
			d.Attr.Mode |= typeSymlink
		case '-':
			d.Attr.Mode |= typeRegular
		}
	}
	if d.Attr.Type() == 0 {
		d.Attr.Mode = 0
	}
	return d
}

// seconds returns t as the protocol has it. An unknown time is 0.
func seconds(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), math.MaxUint32))
}

// checkSet refuses what the protocol cannot say: EINVAL.
func checkSet(set bridge.SetAttr) error {
	unsayable := func(t time.Time) bool { return t.Unix() < 0 || t.Unix() > math.MaxUint32 }
	switch {
	case set.Has(bridge.SetSize) && set.Size < 0,
		set.Has(bridge.SetAtime) && !set.Has(bridge.SetAtimeNow) && unsayable(set.Atime),
		set.Has(bridge.SetMtime) && !set.Has(bridge.SetMtimeNow) && unsayable(set.Mtime):
		return syscall.EINVAL
	}
	return nil
}

// checkEntryName refuses what is no name of a directory entry.
func checkEntryName(name string) error {
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("the name %q in a listing", name)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("the name %q in a listing", name)
		}
	}
	return nil
}

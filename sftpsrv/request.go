package sftpsrv

import (
	"bytes"
	"errors"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

var (
	errShortPacket = errors.New("packet without request id")
	errBeforeInit  = errors.New("request before INIT")
)

// A request is one packet of the client, taken apart.
type request struct {
	typ  sshfx.PacketType
	id   uint32 // of INIT: the version
	name string // of an EXTENDED

	path, path2 string // in the order of the packet
	handle      *handle
	handle2     *handle // where copy-data writes
	off, off2   uint64
	length      uint64           // of READ, WRITE and copy-data
	data        []byte           // of WRITE and unknown requests; aliases the packet
	flags       bridge.OpenFlags // of OPEN
	attr        bridge.SetAttr
	extensions  []bridge.Extension // of INIT
	ids         [2][]uint32        // users and groups

	bad error // the packet is truncated, or has what no path can have
}

// parse takes a packet apart. The handles are looked up in the session, and
// that of a CLOSE is taken out of it.
func (s *session) parse(packet []byte) (request, error) {
	b := sshfx.NewBuffer(packet)
	q := request{typ: sshfx.PacketType(b.ConsumeUint8()), id: b.ConsumeUint32()}
	if b.Err != nil {
		return q, errShortPacket
	}
	if q.typ != sshfx.PacketTypeInit && !s.begun {
		return q, errBeforeInit
	}
	switch q.typ {
	case sshfx.PacketTypeInit:
		s.begun = true
		q.parseInit(b)
	case sshfx.PacketTypeOpen:
		q.path = q.consumePath(b)
		q.flags = openFlags(b.ConsumeUint32())
		q.attr = setAttr(b)
	case sshfx.PacketTypeClose:
		if id, ok := consumeHandleID(b); ok {
			q.handle = s.handles.take(id)
		}
	case sshfx.PacketTypeReadDir, sshfx.PacketTypeFStat:
		q.handle = s.consumeHandle(b)
	case sshfx.PacketTypeRead:
		q.handle = s.consumeHandle(b)
		q.off, q.length = b.ConsumeUint64(), uint64(b.ConsumeUint32())
	case sshfx.PacketTypeWrite:
		q.handle = s.consumeHandle(b)
		q.off, q.data = b.ConsumeUint64(), b.ConsumeBytes()
		q.length = uint64(len(q.data))
	case sshfx.PacketTypeFSetStat:
		q.handle = s.consumeHandle(b)
		q.attr = setAttr(b)
	case sshfx.PacketTypeSetStat, sshfx.PacketTypeMkdir:
		q.path = q.consumePath(b)
		q.attr = setAttr(b)
	case sshfx.PacketTypeLStat, sshfx.PacketTypeStat, sshfx.PacketTypeOpenDir, sshfx.PacketTypeRemove,
		sshfx.PacketTypeRmdir, sshfx.PacketTypeRealPath, sshfx.PacketTypeReadLink:
		q.path = q.consumePath(b)
	case sshfx.PacketTypeRename, sshfx.PacketTypeSymlink:
		q.path = q.consumePath(b)
		q.path2 = q.consumePath(b)
	case sshfx.PacketTypeExtended:
		q.name = b.ConsumeString()
		s.parseExtended(&q, b)
	}
	if b.Err != nil {
		q.bad = b.Err
	}
	return q, nil
}

// parseInit takes the extension pairs, which go on to the end of the packet.
func (q *request) parseInit(b *sshfx.Buffer) {
	for b.Len() > 0 && b.Err == nil {
		q.extensions = append(q.extensions, bridge.Extension{Name: b.ConsumeString(), Data: b.ConsumeString()})
	}
}

// consumePath takes a path, in which no NUL may be.
func (q *request) consumePath(b *sshfx.Buffer) string {
	p := b.ConsumeBytes()
	if bytes.IndexByte(p, 0) >= 0 {
		q.bad = syscall.EINVAL
	}
	return string(p)
}

// consumeIDs takes a string of packed numbers.
func (q *request) consumeIDs(b *sshfx.Buffer) []uint32 {
	packed := sshfx.NewBuffer(b.ConsumeBytes())
	ids := make([]uint32, 0, packed.Len()/4)
	for packed.Len() > 0 && packed.Err == nil {
		ids = append(ids, packed.ConsumeUint32())
	}
	if packed.Err != nil {
		q.bad = packed.Err
	}
	return ids
}

// openFlags are the flags of open(2) for those of OPEN.
func openFlags(pflags uint32) bridge.OpenFlags {
	var f int
	switch pflags & (sshfx.FlagRead | sshfx.FlagWrite) {
	case sshfx.FlagRead | sshfx.FlagWrite:
		f = syscall.O_RDWR
	case sshfx.FlagWrite:
		f = syscall.O_WRONLY
	default:
		f = syscall.O_RDONLY
	}
	if pflags&sshfx.FlagAppend != 0 {
		f |= syscall.O_APPEND
	}
	if pflags&sshfx.FlagTruncate != 0 {
		f |= syscall.O_TRUNC
	}
	if pflags&sshfx.FlagCreate != 0 {
		f |= syscall.O_CREAT
		if pflags&sshfx.FlagExclusive != 0 {
			f |= syscall.O_EXCL
		}
	}
	return bridge.OpenFlags(f)
}

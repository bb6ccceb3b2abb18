package sftpsrv

import (
	"math"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// attr adds the attributes a as OpenSSH gives them: all of them.
func (r *reply) attr(a bridge.Attr) {
	r.uint32(sshfx.AttrSize | sshfx.AttrUIDGID | sshfx.AttrPermissions | sshfx.AttrACModTime)
	r.uint64(uint64(a.Size))
	r.uint32(a.UID)
	r.uint32(a.GID)
	r.uint32(a.Mode)
	r.uint32(wireTime(a.Atime))
	r.uint32(wireTime(a.Mtime))
}

// wireTime is t in the seconds of version 3, which are from 1970 to 2106: the
// nearest there is.
func wireTime(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), math.MaxUint32))
}

// setAttr takes a change of attributes out of a packet. An owner or group of
// all ones is left as it is, as chown(2) has it. Extended attributes are passed over.
func setAttr(b *sshfx.Buffer) bridge.SetAttr {
	var s bridge.SetAttr
	flags := b.ConsumeUint32()
	if flags&sshfx.AttrSize != 0 {
		s.Valid |= bridge.SetSize
		s.Size = int64(b.ConsumeUint64())
	}
	if flags&sshfx.AttrUIDGID != 0 {
		if s.UID = b.ConsumeUint32(); s.UID != math.MaxUint32 {
			s.Valid |= bridge.SetUID
		}
		if s.GID = b.ConsumeUint32(); s.GID != math.MaxUint32 {
			s.Valid |= bridge.SetGID
		}
	}
	if flags&sshfx.AttrPermissions != 0 {
		s.Valid |= bridge.SetMode
		s.Mode = b.ConsumeUint32() & 0o7777
	}
	if flags&sshfx.AttrACModTime != 0 {
		s.Valid |= bridge.SetAtime | bridge.SetMtime
		s.Atime = time.Unix(int64(b.ConsumeUint32()), 0)
		s.Mtime = time.Unix(int64(b.ConsumeUint32()), 0)
	}
	if flags&sshfx.AttrExtended != 0 {
		for n := b.ConsumeUint32(); n > 0 && b.Err == nil; n-- {
			b.ConsumeBytes()
			b.ConsumeBytes()
		}
	}
	return s
}

package sftpsrv

import (
	"context"
	"math"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// The extensions of OpenSSH, by their names on the wire.
const (
	extPosixRename = "posix-rename@openssh.com"
	extStatVFS     = "statvfs@openssh.com"
	extFStatVFS    = "fstatvfs@openssh.com"
	extHardLink    = "hardlink@openssh.com"
	extFSync       = "fsync@openssh.com"
	extLSetStat    = "lsetstat@openssh.com"
	extLimits      = "limits@openssh.com"
	extExpandPath  = "expand-path@openssh.com"
	extCopyData    = "copy-data"
	extHomeDir     = "home-directory"
	extNames       = "users-groups-by-id@openssh.com"
)

// extensionNames are the names of extensions in SessionOptions.Deny.
var extensionNames = map[string]string{
	extPosixRename: "posix-rename",
	extStatVFS:     "statvfs",
	extFStatVFS:    "fstatvfs",
	extHardLink:    "hardlink",
	extFSync:       "fsync",
	extLSetStat:    "lsetstat",
	extLimits:      "limits",
	extExpandPath:  "expand-path",
	extCopyData:    "copy-data",
	extHomeDir:     "home-directory",
	extNames:       "users-groups-by-id",
}

// A FileExtender says which of the extensions that work on open files its
// files serve: SyncFile, StatFSFile and CopyToFile of package bridge. Of a
// server that is none, a door believes that its files do all of it; where one
// does not, the answer is that the operation is not supported.
type FileExtender interface {
	FileExtensions() (sync, statFS, copyTo bool)
}

// extensions are the pairs that the door announces for its server, in
// OpenSSH's order.
func (s *session) extensions() []bridge.Extension {
	_, rename := s.srv.(bridge.PosixRenamer)
	_, statfs := s.srv.(bridge.StatFSer)
	_, link := s.srv.(bridge.HardLinker)
	_, lsetstat := s.srv.(bridge.LinkAttrSetter)
	_, expand := s.srv.(bridge.PathExpander)
	sync, fstatfs, copyTo := true, statfs, true
	if f, ok := s.srv.(FileExtender); ok {
		sync, fstatfs, copyTo = f.FileExtensions()
	}
	var list []bridge.Extension
	for _, e := range []struct {
		has        bool
		name, data string
	}{
		{rename, extPosixRename, "1"},
		{statfs, extStatVFS, "2"},
		{fstatfs, extFStatVFS, "2"},
		{link, extHardLink, "1"},
		{sync, extFSync, "1"},
		{lsetstat, extLSetStat, "1"},
		{true, extLimits, "1"},
		{expand, extExpandPath, "1"},
		{copyTo, extCopyData, "1"},
		{expand, extHomeDir, "1"},
		{s.names != nil, extNames, "1"},
	} {
		if e.has && !s.denied[extensionNames[e.name]] {
			list = append(list, bridge.Extension{Name: e.name, Data: e.data})
		}
	}
	return list
}

// parseExtended takes the rest of an EXTENDED apart.
func (s *session) parseExtended(q *request, b *sshfx.Buffer) {
	switch q.name {
	case extPosixRename, extHardLink:
		q.path = q.consumePath(b)
		q.path2 = q.consumePath(b)
	case extStatVFS, extExpandPath, extHomeDir:
		q.path = q.consumePath(b)
	case extFStatVFS, extFSync:
		q.handle = s.consumeHandle(b)
	case extLSetStat:
		q.path = q.consumePath(b)
		q.attr = setAttr(b)
	case extCopyData:
		q.handle = s.consumeHandle(b)
		q.off, q.length = b.ConsumeUint64(), b.ConsumeUint64()
		q.handle2 = s.consumeHandle(b)
		q.off2 = b.ConsumeUint64()
	case extNames:
		q.ids[0], q.ids[1] = q.consumeIDs(b), q.consumeIDs(b)
	case extLimits:
	default:
		q.data = b.Bytes()
	}
}

// extended serves an EXTENDED. One that the door or its server does not know
// is the server's ExtendedRequest.
func (s *session) extended(ctx context.Context, q *request, out *reply) {
	if len(s.denied) > 0 && s.denied[extensionNames[q.name]] {
		out.denied(q.id)
		return
	}
	switch q.name {
	case extLimits:
		s.limits(q, out)
	case extStatVFS:
		s.statVFS(ctx, q, out)
	case extFStatVFS:
		s.fstatVFS(ctx, q, out)
	case extFSync:
		s.fsync(ctx, q, out)
	case extCopyData:
		s.copyData(ctx, q, out)
	case extNames:
		s.idNames(q, out)
	case extExpandPath, extHomeDir:
		s.expand(ctx, q, out)
	case extPosixRename, extHardLink, extLSetStat:
		s.extendedChange(ctx, q, out)
	default:
		data, err := s.srv.ExtendedRequest(ctx, q.name, q.data)
		if err == nil && len(data) > maxData {
			err = syscall.EMSGSIZE
		}
		if err != nil {
			out.status(q.id, err)
			return
		}
		out.begin(sshfx.PacketTypeExtendedReply, q.id)
		out.b = append(out.b, data...)
		out.end()
	}
}

func (s *session) extendedChange(ctx context.Context, q *request, out *reply) {
	err := error(syscall.ENOSYS)
	switch q.name {
	case extPosixRename:
		if srv, ok := s.srv.(bridge.PosixRenamer); ok {
			err = srv.PosixRename(ctx, q.path, q.path2)
		}
	case extHardLink:
		if srv, ok := s.srv.(bridge.HardLinker); ok {
			err = srv.HardLink(ctx, q.path, q.path2)
		}
	case extLSetStat:
		srv, ok := s.srv.(bridge.LinkAttrSetter)
		switch {
		case ok && q.attr.Has(bridge.SetSize):
			err = syscall.EINVAL // a link has no size to set
		case ok:
			err = srv.SetLinkAttrs(ctx, q.path, q.attr)
		}
	}
	out.status(q.id, err)
}

func (s *session) limits(q *request, out *reply) {
	out.begin(sshfx.PacketTypeExtendedReply, q.id)
	out.uint64(maxPacket)
	out.uint64(maxData)
	out.uint64(maxData)
	out.uint64(uint64(s.opt.MaxHandles))
	out.end()
}

func (s *session) statVFS(ctx context.Context, q *request, out *reply) {
	srv, ok := s.srv.(bridge.StatFSer)
	if !ok {
		out.unsupported(q.id)
		return
	}
	st, err := srv.StatFS(ctx, q.path)
	out.statFS(q.id, st, err)
}

func (s *session) fstatVFS(ctx context.Context, q *request, out *reply) {
	if q.handle == nil || q.handle.file == nil {
		out.badHandle(q.id)
		return
	}
	f, ok := q.handle.file.(bridge.StatFSFile)
	if !ok {
		out.unsupported(q.id)
		return
	}
	st, err := f.StatFS(ctx)
	out.statFS(q.id, st, err)
}

// statFS adds the answer to statvfs.
func (r *reply) statFS(id uint32, st bridge.StatFS, err error) {
	if err != nil {
		r.status(id, err)
		return
	}
	var flags uint64
	if st.ReadOnly {
		flags |= 1
	}
	if st.NoSUID {
		flags |= 2
	}
	r.begin(sshfx.PacketTypeExtendedReply, id)
	for _, v := range []uint64{
		uint64(st.BlockSize), uint64(st.FragSize), st.Blocks, st.BlocksFree, st.BlocksAvl,
		st.Files, st.FilesFree, st.FilesAvl, st.FSID, flags, uint64(st.NameMax),
	} {
		r.uint64(v)
	}
	r.end()
}

func (s *session) fsync(ctx context.Context, q *request, out *reply) {
	if q.handle == nil || q.handle.file == nil {
		out.status(q.id, syscall.ENOENT) // as OpenSSH
		return
	}
	f, ok := q.handle.file.(bridge.SyncFile)
	if !ok {
		out.unsupported(q.id)
		return
	}
	out.status(q.id, f.Sync(ctx))
}

func (s *session) copyData(ctx context.Context, q *request, out *reply) {
	from, to := q.handle, q.handle2
	switch {
	case from == nil || to == nil || from.file == nil || to.file == nil:
		out.badHandle(q.id)
		return
	case from == to:
		out.statusAs(q.id, sshfx.StatusFailure, "Source and target are one file")
		return
	case q.off > math.MaxInt64 || q.length > math.MaxInt64 || q.off2 > math.MaxInt64:
		out.status(q.id, syscall.EINVAL)
		return
	}
	f, ok := from.file.(bridge.CopyToFile)
	if !ok {
		out.unsupported(q.id)
		return
	}
	err := f.CopyTo(ctx, int64(q.off), int64(q.length), to.file, int64(q.off2))
	if bridge.Errno(err) == syscall.EINVAL {
		out.statusAs(q.id, sshfx.StatusFailure, "Source and target are one file")
		return
	}
	out.status(q.id, err)
}

func (s *session) expand(ctx context.Context, q *request, out *reply) {
	srv, ok := s.srv.(bridge.PathExpander)
	if !ok {
		out.unsupported(q.id)
		return
	}
	f := srv.ExpandPath
	if q.name == extHomeDir {
		f = srv.HomeDirectory
	}
	path, err := f(ctx, q.path)
	out.name(q.id, path, err)
}

// idNames answers with two strings of packed names.
func (s *session) idNames(q *request, out *reply) {
	if s.names == nil {
		out.unsupported(q.id)
		return
	}
	out.begin(sshfx.PacketTypeExtendedReply, q.id)
	for i, name := range []func(uint32) string{s.names.UserName, s.names.GroupName} {
		var packed reply
		for _, id := range q.ids[i] {
			packed.string(name(id))
		}
		out.string(string(packed.b))
	}
	if out.size() > maxPacket {
		out.drop()
		out.status(q.id, syscall.EMSGSIZE)
		return
	}
	out.end()
}

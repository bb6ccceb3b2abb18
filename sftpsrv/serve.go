package sftpsrv

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"strconv"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// requestNames are the names of requests in SessionOptions.Deny.
var requestNames = map[sshfx.PacketType]string{
	sshfx.PacketTypeOpen:     "open",
	sshfx.PacketTypeClose:    "close",
	sshfx.PacketTypeRead:     "read",
	sshfx.PacketTypeWrite:    "write",
	sshfx.PacketTypeLStat:    "lstat",
	sshfx.PacketTypeFStat:    "fstat",
	sshfx.PacketTypeSetStat:  "setstat",
	sshfx.PacketTypeFSetStat: "fsetstat",
	sshfx.PacketTypeOpenDir:  "opendir",
	sshfx.PacketTypeReadDir:  "readdir",
	sshfx.PacketTypeRemove:   "remove",
	sshfx.PacketTypeMkdir:    "mkdir",
	sshfx.PacketTypeRmdir:    "rmdir",
	sshfx.PacketTypeRealPath: "realpath",
	sshfx.PacketTypeStat:     "stat",
	sshfx.PacketTypeRename:   "rename",
	sshfx.PacketTypeReadLink: "readlink",
	sshfx.PacketTypeSymlink:  "symlink",
}

// serve carries a request out and adds its answer, exactly one, to out.
func (s *session) serve(ctx context.Context, q *request, out *reply) {
	switch {
	case q.bad != nil:
		out.badMessage(q.id)
		return
	case len(s.denied) > 0 && s.denied[requestNames[q.typ]]:
		out.denied(q.id)
		return
	}
	switch q.typ {
	case sshfx.PacketTypeInit:
		s.begin(q, out)
	case sshfx.PacketTypeRead:
		s.read(ctx, q, out)
	case sshfx.PacketTypeWrite:
		s.write(ctx, q, out)
	case sshfx.PacketTypeOpen:
		s.openFile(ctx, q, out)
	case sshfx.PacketTypeClose:
		s.close(ctx, q, out)
	case sshfx.PacketTypeFStat:
		s.fstat(ctx, q, out)
	case sshfx.PacketTypeFSetStat:
		s.fsetstat(ctx, q, out)
	case sshfx.PacketTypeOpenDir:
		s.openDir(ctx, q, out)
	case sshfx.PacketTypeReadDir:
		s.readDir(ctx, q, out)
	case sshfx.PacketTypeStat, sshfx.PacketTypeLStat:
		a, err := s.getAttrs(ctx, q)
		out.attrs(q.id, a, err)
	case sshfx.PacketTypeRealPath:
		path, err := s.srv.RealPath(ctx, q.path)
		out.name(q.id, path, err)
	case sshfx.PacketTypeReadLink:
		target, err := s.srv.ReadLink(ctx, q.path)
		out.name(q.id, target, err)
	case sshfx.PacketTypeExtended:
		s.extended(ctx, q, out)
	default:
		s.change(ctx, q, out)
	}
}

// change carries out the requests that change the tree by path.
func (s *session) change(ctx context.Context, q *request, out *reply) {
	var err error
	switch q.typ {
	case sshfx.PacketTypeSetStat:
		err = s.srv.SetAttrs(ctx, q.path, q.attr)
	case sshfx.PacketTypeRemove:
		err = s.srv.RemoveFile(ctx, q.path)
	case sshfx.PacketTypeMkdir:
		err = s.srv.MakeDirectory(ctx, q.path, withMode(q.attr, 0o777))
	case sshfx.PacketTypeRmdir:
		err = s.srv.RemoveDirectory(ctx, q.path)
	case sshfx.PacketTypeRename:
		err = s.srv.RenameFile(ctx, q.path, q.path2)
	case sshfx.PacketTypeSymlink:
		// OpenSSH and all who follow it send the target first.
		err = s.srv.MakeLink(ctx, q.path2, q.path)
	default:
		err = syscall.ENOSYS
	}
	out.status(q.id, err)
}

// withMode gives a the mode that what is made has unless the client says otherwise.
func withMode(a bridge.SetAttr, mode uint32) bridge.SetAttr {
	if !a.Has(bridge.SetMode) {
		a.Valid |= bridge.SetMode
		a.Mode = mode
	}
	return a
}

func (s *session) openFile(ctx context.Context, q *request, out *reply) {
	if err := s.handles.reserve(); err != nil {
		out.status(q.id, err)
		return
	}
	f, err := s.srv.OpenFile(ctx, q.path, q.flags, withMode(q.attr, 0o666))
	if err != nil {
		s.handles.unreserve()
		out.status(q.id, err)
		return
	}
	out.handle(q.id, s.handles.add(&handle{path: q.path, writes: q.flags.Writes(), appends: q.flags.Has(syscall.O_APPEND), file: f}))
}

// openDir begins a listing.
func (s *session) openDir(ctx context.Context, q *request, out *reply) {
	if err := s.handles.reserve(); err != nil {
		out.status(q.id, err)
		return
	}
	d, err := s.srv.OpenDirectory(ctx, q.path)
	if err != nil {
		s.handles.unreserve()
		out.status(q.id, err)
		return
	}
	out.handle(q.id, s.handles.add(&handle{path: q.path, dir: &listing{dir: d}}))
}

func (s *session) close(ctx context.Context, q *request, out *reply) {
	if q.handle == nil {
		out.status(q.id, syscall.ENOENT) // as OpenSSH
		return
	}
	out.status(q.id, q.handle.close(ctx))
}

// read answers with all that was asked for, up to the end of the file: some
// clients take less for the end.
func (s *session) read(ctx context.Context, q *request, out *reply) {
	switch {
	case q.handle == nil || q.handle.file == nil:
		out.badHandle(q.id)
		return
	case q.off > math.MaxInt64:
		out.status(q.id, syscall.EINVAL)
		return
	}
	length := int(min(q.length, maxData))
	out.begin(sshfx.PacketTypeData, q.id)
	out.uint32(0)
	n, err := 0, error(nil)
	if length > 0 {
		n, err = q.handle.file.ReadChunk(ctx, out.extend(length), int64(q.off))
	}
	switch {
	case err != nil && err != io.EOF:
		out.drop()
		out.status(q.id, err)
	case n == 0 && length > 0:
		out.drop()
		out.eof(q.id)
	default:
		out.b = out.b[:len(out.b)-length+n]
		binary.BigEndian.PutUint32(out.b[out.start+9:], uint32(n))
		out.end()
	}
}

// write writes at the offset, which means nothing for a file that was opened
// to append.
func (s *session) write(ctx context.Context, q *request, out *reply) {
	off := q.off
	switch {
	case q.handle == nil || q.handle.file == nil:
		out.badHandle(q.id)
		return
	case q.handle.appends:
		off = 0
	case off > math.MaxInt64:
		out.status(q.id, syscall.EINVAL)
		return
	}
	out.status(q.id, q.handle.file.WriteChunk(ctx, q.data, int64(off)))
}

func (s *session) fstat(ctx context.Context, q *request, out *reply) {
	if q.handle == nil || q.handle.file == nil { // OpenSSH refuses directories, too
		out.badHandle(q.id)
		return
	}
	a, err := q.handle.file.GetAttrs(ctx)
	out.attrs(q.id, a, err)
}

func (s *session) fsetstat(ctx context.Context, q *request, out *reply) {
	if q.handle == nil || q.handle.file == nil {
		out.badHandle(q.id)
		return
	}
	out.status(q.id, q.handle.file.SetAttrs(ctx, q.attr))
}

// maxEntries is how many entries OpenSSH gives at once.
const maxEntries = 100

// readDir answers with the next entries. An error after some of them waits for
// the next request.
func (s *session) readDir(ctx context.Context, q *request, out *reply) {
	if q.handle == nil || q.handle.dir == nil {
		out.badHandle(q.id)
		return
	}
	l := q.handle.dir
	out.begin(sshfx.PacketTypeName, q.id)
	out.uint32(0)
	n := 0
	if l.err == nil {
		n = s.entries(ctx, l, out)
	}
	if n > 0 {
		binary.BigEndian.PutUint32(out.b[out.start+9:], uint32(n))
		out.end()
		return
	}
	out.drop()
	if l.err == io.EOF {
		out.eof(q.id)
		return
	}
	out.status(q.id, l.err)
	l.err = io.EOF
}

// entries adds the next entries of a listing and returns how many.
func (s *session) entries(ctx context.Context, l *listing, out *reply) int {
	n, now := 0, time.Now()
	for e, err := range l.dir.Entries(ctx) {
		if err != nil {
			l.err = err
			return n
		}
		s.entry(e, now, out)
		if n++; n == maxEntries || out.size() >= maxReply {
			return n
		}
	}
	l.err = io.EOF
	return n
}

// entry adds one entry of a listing.
func (s *session) entry(e bridge.DirEntry, now time.Time, out *reply) {
	out.string(e.Name)
	at := len(out.b)
	out.uint32(0)
	out.b = longName(out.b, e, s.userName(e.Attr.UID), s.groupName(e.Attr.GID), now)
	binary.BigEndian.PutUint32(out.b[at:], uint32(len(out.b)-at-4))
	out.attr(e.Attr)
}

func (s *session) userName(uid uint32) string {
	if s.names != nil {
		if name := s.names.UserName(uid); name != "" {
			return name
		}
	}
	return strconv.FormatUint(uint64(uid), 10)
}

func (s *session) groupName(gid uint32) string {
	if s.names != nil {
		if name := s.names.GroupName(gid); name != "" {
			return name
		}
	}
	return strconv.FormatUint(uint64(gid), 10)
}

// attrs adds the answer to STAT and its like.
func (r *reply) attrs(id uint32, a bridge.Attr, err error) {
	if err != nil {
		r.status(id, err)
		return
	}
	r.begin(sshfx.PacketTypeAttrs, id)
	r.attr(a)
	r.end()
}

// name adds the answer of one name without attributes.
func (r *reply) name(id uint32, name string, err error) {
	if err != nil {
		r.status(id, err)
		return
	}
	r.begin(sshfx.PacketTypeName, id)
	r.uint32(1)
	r.string(name)
	r.string(name)
	r.uint32(0)
	r.end()
}

// handle adds the answer of a handle.
func (r *reply) handle(id, handle uint32) {
	r.begin(sshfx.PacketTypeHandle, id)
	r.uint32(4)
	r.uint32(handle)
	r.end()
}

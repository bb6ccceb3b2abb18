package sftpsrv

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"iter"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// FuzzSession feeds a session with what may be packets. It has to end, to
// answer each request that it took once and in order, and to close what it
// opened.
func FuzzSession(f *testing.F) {
	init := packet(sshfx.PacketTypeInit, uint32(3), "name", "data")
	handle := "\x00\x00\x00\x01"
	for _, requests := range [][][]byte{
		{packet(sshfx.PacketTypeOpen, uint32(1), "f", uint32(27), uint32(15), uint64(1), uint32(0), uint32(0), uint32(0o644), uint32(1), uint32(2)),
			packet(sshfx.PacketTypeWrite, uint32(2), handle, uint64(0), "data"),
			packet(sshfx.PacketTypeRead, uint32(3), handle, uint64(2), uint32(1<<30)),
			packet(sshfx.PacketTypeFSetStat, uint32(4), handle, uint32(1<<31), uint32(1), "a", "b"),
			packet(sshfx.PacketTypeFStat, uint32(5), handle),
			packet(sshfx.PacketTypeClose, uint32(6), handle)},
		{packet(sshfx.PacketTypeOpenDir, uint32(1), "."),
			packet(sshfx.PacketTypeReadDir, uint32(2), handle),
			packet(sshfx.PacketTypeReadDir, uint32(3), handle)},
		{packet(sshfx.PacketTypeRename, uint32(1), "a", "b"),
			packet(sshfx.PacketTypeSymlink, uint32(2), "a", "b"),
			packet(sshfx.PacketTypeMkdir, uint32(3), "a", uint32(0)),
			packet(sshfx.PacketTypeRealPath, uint32(4), "")},
		{packet(sshfx.PacketTypeExtended, uint32(1), extNames, []byte{0, 0, 0, 0}, []byte{}),
			packet(sshfx.PacketTypeExtended, uint32(2), extLimits),
			packet(sshfx.PacketTypeExtended, uint32(3), extStatVFS, "/"),
			packet(sshfx.PacketTypeExtended, uint32(4), extCopyData, handle, uint64(0), uint64(0), handle, uint64(0)),
			packet(sshfx.PacketTypeExtended, uint32(5), extLSetStat, "/", uint32(4), uint32(0)),
			packet(sshfx.PacketTypeExtended, uint32(6), "else", raw("data"))},
	} {
		f.Add(append(bytes.Clone(init), bytes.Join(requests, nil)...), false)
		f.Add(append(bytes.Clone(init), bytes.Join(requests, nil)...), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, parallel bool) {
		var out bytes.Buffer
		srv := &toyServer{}
		err := Serve(context.Background(), stream{bytes.NewReader(data), &out}, srv, SessionOptions{
			Parallel: parallel, MaxHandles: 4, MaxInFlight: 1 << 20,
		})
		if n := srv.open.Load(); n != 0 {
			t.Errorf("%d files are left open", n)
		}
		taken := requestsOf(data)
		for _, want := range taken {
			body, rerr := readPacket(&out)
			if rerr != nil {
				t.Fatalf("no answer to request %d: %v; Serve = %v", want, rerr, err)
			}
			if id := binary.BigEndian.Uint32(body[1:]); sshfx.PacketType(body[0]) != sshfx.PacketTypeVersion && id != want {
				t.Fatalf("answer to %d, want %d", id, want)
			}
		}
		if out.Len() > 0 {
			t.Errorf("%d bytes after the last answer", out.Len())
		}
	})
}

// requestsOf are the ids of the requests that a session has to answer.
func requestsOf(data []byte) []uint32 {
	var ids []uint32
	begun := false
	for len(data) >= 4 {
		n := binary.BigEndian.Uint32(data)
		if n > maxPacket || n < 5 || int(n) > len(data)-4 {
			break
		}
		body := data[4 : 4+n]
		data = data[4+n:]
		begun = begun || sshfx.PacketType(body[0]) == sshfx.PacketTypeInit
		if !begun {
			break
		}
		ids = append(ids, binary.BigEndian.Uint32(body[1:]))
	}
	return ids
}

// A toyServer has one file, which is empty, and one directory, under every name.
type toyServer struct {
	open atomic.Int64 // files and directories
}

func (s *toyServer) Avatar() *bridge.Avatar { return &bridge.Avatar{} }

func (s *toyServer) GotVersion(_ uint32, ext []bridge.Extension) []bridge.Extension {
	return ext[:min(len(ext), 10)]
}

func (s *toyServer) OpenFile(context.Context, string, bridge.OpenFlags, bridge.SetAttr) (bridge.ServerFile, error) {
	s.open.Add(1)
	return toyFile{s}, nil
}

func (s *toyServer) OpenDirectory(context.Context, string) (bridge.ServerDir, error) {
	s.open.Add(1)
	return &toyDir{toyFile: toyFile{s}}, nil
}

func (s *toyServer) RemoveFile(context.Context, string) error                    { return nil }
func (s *toyServer) RenameFile(context.Context, string, string) error            { return syscall.EEXIST }
func (s *toyServer) PosixRename(context.Context, string, string) error           { return syscall.EXDEV }
func (s *toyServer) HardLink(context.Context, string, string) error              { return syscall.EMLINK }
func (s *toyServer) MakeDirectory(context.Context, string, bridge.SetAttr) error { return nil }
func (s *toyServer) RemoveDirectory(context.Context, string) error               { return syscall.ENOTEMPTY }
func (s *toyServer) SetAttrs(context.Context, string, bridge.SetAttr) error      { return nil }
func (s *toyServer) SetLinkAttrs(context.Context, string, bridge.SetAttr) error  { return nil }
func (s *toyServer) MakeLink(context.Context, string, string) error              { return nil }
func (s *toyServer) ReadLink(_ context.Context, p string) (string, error)        { return p, nil }
func (s *toyServer) RealPath(_ context.Context, p string) (string, error)        { return p, nil }
func (s *toyServer) ExpandPath(_ context.Context, p string) (string, error)      { return p, nil }
func (s *toyServer) HomeDirectory(_ context.Context, u string) (string, error)   { return u, nil }
func (s *toyServer) UserName(uint32) string                                      { return "user" }
func (s *toyServer) GroupName(uint32) string                                     { return "" }

func (s *toyServer) GetAttrs(context.Context, string, bool) (bridge.Attr, error) {
	return bridge.Attr{}, nil
}

func (s *toyServer) StatFS(context.Context, string) (bridge.StatFS, error) {
	return bridge.StatFS{}, nil
}

func (s *toyServer) ExtendedRequest(_ context.Context, _ string, data []byte) ([]byte, error) {
	return bytes.Clone(data), nil
}

type toyFile struct{ s *toyServer }

func (f toyFile) ReadChunk(context.Context, []byte, int64) (int, error) { return 0, io.EOF }
func (f toyFile) WriteChunk(context.Context, []byte, int64) error       { return nil }
func (f toyFile) GetAttrs(context.Context) (bridge.Attr, error)         { return bridge.Attr{}, nil }
func (f toyFile) SetAttrs(context.Context, bridge.SetAttr) error        { return nil }
func (f toyFile) Sync(context.Context) error                            { return nil }

func (f toyFile) CopyTo(context.Context, int64, int64, bridge.ServerFile, int64) error { return nil }

// A toyDir is a listing, which fails after 150 entries.
type toyDir struct {
	toyFile
	n int // entries that were yielded
}

func (d *toyDir) Entries(context.Context) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for d.n < 150 {
			d.n++
			if !yield(bridge.DirEntry{Name: strings.Repeat("x", d.n)}, nil) {
				return
			}
		}
		yield(bridge.DirEntry{}, syscall.EIO)
	}
}

func (d *toyDir) Close() error {
	d.s.open.Add(-1)
	return nil
}

func (f toyFile) Close(context.Context) error {
	f.s.open.Add(-1)
	return nil
}

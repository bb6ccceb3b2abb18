package sftpsrv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

func TestInitIsAnsweredWithVersion3AndExtensions(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		srv := &dirServer{home: t.TempDir()}
		opt.Deny = []string{"hardlink"}
		r := newRig(t, srv, opt)
		r.send(packet(sshfx.PacketTypeInit, uint32(6), "vendor-id", "x"))
		want := packet(sshfx.PacketTypeVersion, uint32(3),
			"posix-rename@openssh.com", "1", "statvfs@openssh.com", "2", "fstatvfs@openssh.com", "2",
			"fsync@openssh.com", "1", "lsetstat@openssh.com", "1", "limits@openssh.com", "1",
			"expand-path@openssh.com", "1", "copy-data", "1", "home-directory", "1",
			"users-groups-by-id@openssh.com", "1", "echo@test", "1")[4:]
		if got := r.recv(); !bytes.Equal(got, want) {
			t.Errorf("INIT is answered with\n%q, want\n%q", got, want)
		}
		srv.mu.Lock()
		defer srv.mu.Unlock()
		if ext := []bridge.Extension{{Name: "vendor-id", Data: "x"}}; srv.version != 6 || !reflect.DeepEqual(srv.extensions, ext) {
			t.Errorf("GotVersion(%d, %v), want (6, %v)", srv.version, srv.extensions, ext)
		}
	})
}

func TestOnlyWhatTheServerHasIsAnnounced(t *testing.T) {
	type bare struct{ bridge.Server }
	r := newRig(t, bare{&dirServer{home: t.TempDir()}}, SessionOptions{})
	r.send(packet(sshfx.PacketTypeInit, uint32(3)))
	want := packet(sshfx.PacketTypeVersion, uint32(3), "fsync@openssh.com", "1", "limits@openssh.com", "1",
		"copy-data", "1", "echo@test", "1")[4:]
	if got := r.recv(); !bytes.Equal(got, want) {
		t.Errorf("announced %q, want %q", got, want)
	}
	for _, name := range []string{extPosixRename, extHardLink} {
		if code, _ := r.status(sshfx.PacketTypeExtended, name, "a", "b"); code != sshfx.StatusOpUnsupported {
			t.Errorf("%s: %v, want OP_UNSUPPORTED", name, code)
		}
	}
}

func TestSessionsThatBreakTheProtocolEnd(t *testing.T) {
	big := make([]byte, 8)
	big[1] = 5 // 327,680 bytes
	tests := []struct {
		name  string
		begun bool
		send  []byte
		want  error
	}{
		{"request before INIT", false, packet(sshfx.PacketTypeStat, uint32(1), "."), errBeforeInit},
		{"packet too long", true, big, errPacketLength},
		{"packet without id", true, packet(sshfx.PacketTypeStat, uint8(1)), errShortPacket},
		{"empty packet", true, make([]byte, 4), errShortPacket},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, opt SessionOptions) {
				start := newRig
				if tt.begun {
					start = begun
				}
				r := start(t, &dirServer{home: t.TempDir()}, opt)
				r.send(tt.send)
				if err := r.wait(); !errors.Is(err, tt.want) {
					t.Errorf("Serve = %v, want %v", err, tt.want)
				}
			})
		})
	}
}

func TestStreamThatEndsInAPacket(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		r := begun(t, &dirServer{home: t.TempDir()}, opt)
		r.send(packet(sshfx.PacketTypeStat, uint32(1), "some name")[:12])
		r.rw.Close()
		if err := r.wait(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Serve = %v, want %v", err, io.ErrUnexpectedEOF)
		}
	})
}

// TestGoldenAnswers sends packets made by hand, and compares answers byte by byte.
func TestGoldenAnswers(t *testing.T) {
	status := func(code uint32, text string) []byte {
		return packet(sshfx.PacketTypeStatus, uint32(7), code, text, "")
	}
	id := uint32(7)
	tests := []struct {
		name string
		send []byte
		want []byte
	}{
		{"unknown type", packet(99, id, "x"), status(8, "Operation unsupported")},
		{"unknown extension", packet(sshfx.PacketTypeExtended, id, "x@y", "z"), status(8, "Operation unsupported")},
		{"extension of the server", packet(sshfx.PacketTypeExtended, id, "echo@test", raw("abc")),
			packet(sshfx.PacketTypeExtendedReply, id, raw("abc"))},
		{"truncated", packet(sshfx.PacketTypeStat, id, raw{0, 0, 0, 9, 'x'}), status(5, "Bad message")},
		{"NUL in a path", packet(sshfx.PacketTypeStat, id, "a\x00b"), status(5, "Bad message")},
		{"truncated attributes", packet(sshfx.PacketTypeMkdir, id, "d", uint32(sshfx.AttrPermissions)), status(5, "Bad message")},
		{"endless extended attributes", packet(sshfx.PacketTypeMkdir, id, "d", uint32(sshfx.AttrExtended), uint32(1<<32-1)), status(5, "Bad message")},
		{"no such file", packet(sshfx.PacketTypeStat, id, "absent"), status(2, "No such file")},
		{"not a directory", packet(sshfx.PacketTypeStat, id, "file/x"), status(2, "Not a directory")},
		{"exists", packet(sshfx.PacketTypeMkdir, id, "file", uint32(0)), status(4, "File exists")},
		{"not empty", packet(sshfx.PacketTypeRmdir, id, "dir"), status(4, "Directory not empty")},
		{"rename onto a file", packet(sshfx.PacketTypeRename, id, "other", "file"), status(4, "File exists")},
		{"directory opened", packet(sshfx.PacketTypeOpen, id, "dir", uint32(1), uint32(0)), status(4, "Is a directory")},
		{"bad handle read", packet(sshfx.PacketTypeRead, id, "\x00\x00\x00\x63", uint64(0), uint32(1)), status(4, "No such handle")},
		{"bad handle written", packet(sshfx.PacketTypeWrite, id, "none", uint64(0), "x"), status(4, "No such handle")},
		{"bad handle closed", packet(sshfx.PacketTypeClose, id, "a handle"), status(2, "No such file")},
		{"bad handle listed", packet(sshfx.PacketTypeReadDir, id, ""), status(4, "No such handle")},
		{"readlink", packet(sshfx.PacketTypeReadLink, id, "link"),
			packet(sshfx.PacketTypeName, id, uint32(1), "no/where", "no/where", uint32(0))},
		{"readlink of a file", packet(sshfx.PacketTypeReadLink, id, "file"), status(5, "Invalid argument")},
		{"attributes", packet(sshfx.PacketTypeLStat, id, "file"),
			packet(sshfx.PacketTypeAttrs, id, uint32(15), uint64(5), uint32(os.Getuid()), uint32(os.Getgid()),
				uint32(0o100640), uint32(1700000000), uint32(1600000000))},
		{"limits", packet(sshfx.PacketTypeExtended, id, "limits@openssh.com"),
			packet(sshfx.PacketTypeExtendedReply, id, uint64(262144), uint64(261120), uint64(261120), uint64(1024))},
		{"names", packet(sshfx.PacketTypeExtended, id, "users-groups-by-id@openssh.com",
			raw(packet(0, raw{0, 0, 0, 0, 0xfe, 0xdc, 0xba, 0x98})[5:]), raw{}), status(5, "Bad message")},
	}
	home := t.TempDir()
	must(t, os.WriteFile(home+"/file", []byte("hello"), 0o640))
	must(t, os.Chmod(home+"/file", 0o640))
	must(t, os.Chtimes(home+"/file", time.Unix(1700000000, 0), time.Unix(1600000000, 0)))
	must(t, os.WriteFile(home+"/other", nil, 0o600))
	must(t, os.MkdirAll(home+"/dir/sub", 0o755))
	must(t, os.Symlink("no/where", home+"/link"))
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		r := begun(t, &dirServer{home: home}, opt)
		for _, tt := range tests {
			r.send(tt.send)
			if got := r.recv(); !bytes.Equal(got, tt.want[4:]) {
				t.Errorf("%s: answered with\n%q, want\n%q", tt.name, got, tt.want[4:])
			}
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSymlinkHasTheTargetFirst(t *testing.T) {
	home := t.TempDir()
	r := begun(t, &dirServer{home: home}, SessionOptions{})
	if code, text := r.status(sshfx.PacketTypeSymlink, "the target", "link"); code != sshfx.StatusOK {
		t.Fatalf("SYMLINK: %v %s", code, text)
	}
	if got, err := os.Readlink(home + "/link"); err != nil || got != "the target" {
		t.Errorf("the link holds %q, %v", got, err)
	}
}

func TestReads(t *testing.T) {
	home := t.TempDir()
	data := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	must(t, os.WriteFile(home+"/f", data, 0o644))
	tests := []struct {
		off    uint64
		length uint32
		want   []byte // nil is EOF
	}{
		{0, 0, []byte{}},
		{0, 5, data[:5]},
		{7, 65536, data[7 : 7+65536]},
		{0, 261120, data[:261120]},
		{0, 1 << 31, data[:261120]},
		{319990, 100, data[319990:]},
		{320000, 1, nil},
		{1 << 40, 10, nil},
	}
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		r := begun(t, &dirServer{home: home}, opt)
		h := r.open("f", sshfx.FlagRead)
		for _, tt := range tests {
			typ, b := r.ask(sshfx.PacketTypeRead, h, tt.off, tt.length)
			switch {
			case tt.want == nil:
				if code := b.ConsumeUint32(); typ != sshfx.PacketTypeStatus || code != 1 {
					t.Errorf("READ %d, %d: type %d, code %d, want EOF", tt.off, tt.length, typ, code)
				}
			case typ != sshfx.PacketTypeData:
				t.Errorf("READ %d, %d: type %d: %q", tt.off, tt.length, typ, b.Bytes())
			default:
				if got := b.ConsumeBytes(); !bytes.Equal(got, tt.want) {
					t.Errorf("READ %d, %d: %d bytes, want %d", tt.off, tt.length, len(got), len(tt.want))
				}
			}
		}
		if code, _ := r.status(sshfx.PacketTypeRead, h, uint64(1<<63), uint32(1)); code != sshfx.StatusBadMessage {
			t.Errorf("READ at a negative offset: %v, want BAD_MESSAGE", code)
		}
	})
}

func TestOpenFlags(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		home := t.TempDir()
		r := begun(t, &dirServer{home: home}, opt)
		h := r.open("f", sshfx.FlagWrite|sshfx.FlagCreate)
		r.status(sshfx.PacketTypeWrite, h, uint64(3), "abc")
		r.status(sshfx.PacketTypeClose, h)

		h = r.open("f", sshfx.FlagWrite|sshfx.FlagAppend)
		r.status(sshfx.PacketTypeWrite, h, uint64(0), "def")
		r.status(sshfx.PacketTypeClose, h)
		if got, _ := os.ReadFile(home + "/f"); string(got) != "\x00\x00\x00abcdef" {
			t.Errorf("after an append at 0 the file holds %q", got)
		}
		if code, text := r.status(sshfx.PacketTypeOpen, "f", uint32(sshfx.FlagWrite|sshfx.FlagCreate|sshfx.FlagExclusive), uint32(0)); code != sshfx.StatusFailure || text != "File exists" {
			t.Errorf("OPEN with EXCL: %v %q", code, text)
		}
		h = r.open("f", sshfx.FlagRead|sshfx.FlagExclusive) // EXCL without CREAT is nothing
		r.status(sshfx.PacketTypeClose, h)
		r.open("f", sshfx.FlagRead|sshfx.FlagWrite|sshfx.FlagTruncate)
		if fi, _ := os.Stat(home + "/f"); fi.Size() != 0 {
			t.Errorf("after TRUNC the file has %d bytes", fi.Size())
		}
		typ, _ := r.ask(sshfx.PacketTypeOpen, "g", uint32(sshfx.FlagWrite|sshfx.FlagCreate), uint32(sshfx.AttrPermissions), uint32(0o100600))
		if fi, err := os.Stat(home + "/g"); typ != sshfx.PacketTypeHandle || err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("the mode of OPEN is not that of the file: %v, %v", fi, err)
		}
	})
}

func TestTooManyHandles(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		home := t.TempDir()
		opt.MaxHandles = 3
		r := begun(t, &dirServer{home: home}, opt)
		must(t, os.WriteFile(home+"/f", nil, 0o644))
		h := r.open("f", sshfx.FlagRead)
		r.open("f", sshfx.FlagRead)
		r.ask(sshfx.PacketTypeOpenDir, ".")
		if code, text := r.status(sshfx.PacketTypeOpen, "f", uint32(1), uint32(0)); code != sshfx.StatusFailure || text != "Too many open files" {
			t.Errorf("one more: %v %q", code, text)
		}
		if code, text := r.status(sshfx.PacketTypeOpenDir, "."); code != sshfx.StatusFailure || text != "Too many open files" {
			t.Errorf("one more directory: %v %q", code, text)
		}
		r.status(sshfx.PacketTypeOpen, "absent", uint32(1), uint32(0))
		r.status(sshfx.PacketTypeClose, h)
		r.open("f", sshfx.FlagRead)
	})
}

// TestListing takes a large directory with requests sent ahead, as sshfs does.
func TestListing(t *testing.T) {
	home := t.TempDir()
	want := []string{".", ".."}
	for i := range 1234 {
		name := fmt.Sprintf("%04d%s", i, strings.Repeat("x", i%250))
		must(t, os.WriteFile(filepath.Join(home, name), nil, 0o644))
		want = append(want, name)
	}
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		r := begun(t, &dirServer{home: home}, opt)
		_, b := r.ask(sshfx.PacketTypeOpenDir, ".")
		h := b.ConsumeString()
		const requests = 40
		go func() {
			for id := range uint32(requests) {
				r.rw.Write(packet(sshfx.PacketTypeReadDir, id, h))
			}
		}()
		var got []string
		ended := false
		for id := range uint32(requests) {
			body := r.recv()
			if len(body) > 128<<10 {
				t.Errorf("an answer of %d bytes", len(body))
			}
			b := sshfx.NewBuffer(body)
			typ := sshfx.PacketType(b.ConsumeUint8())
			if n := b.ConsumeUint32(); n != id {
				t.Fatalf("answer to %d, want %d", n, id)
			}
			if typ == sshfx.PacketTypeStatus {
				ended = true
				if code := b.ConsumeUint32(); code != 1 {
					t.Errorf("code %d, want EOF", code)
				}
				continue
			}
			if ended {
				t.Error("names after the end")
			}
			for n := b.ConsumeUint32(); n > 0; n-- {
				got = append(got, b.ConsumeString())
				b.ConsumeString()
				var a sshfx.Attributes
				must(t, a.UnmarshalFrom(b))
			}
		}
		if !ended || !slices.Equal(got, want) {
			t.Errorf("%d names, want %d; ended: %v", len(got), len(want), ended)
		}
	})
}

func TestDenied(t *testing.T) {
	r := begun(t, &dirServer{home: t.TempDir()}, SessionOptions{Deny: []string{"mkdir", "posix-rename"}})
	if code, _ := r.status(sshfx.PacketTypeMkdir, "d", uint32(0)); code != sshfx.StatusPermissionDenied {
		t.Errorf("mkdir: %v", code)
	}
	if code, _ := r.status(sshfx.PacketTypeExtended, extPosixRename, "a", "b"); code != sshfx.StatusPermissionDenied {
		t.Errorf("posix-rename: %v", code)
	}
	if typ, _ := r.ask(sshfx.PacketTypeStat, "."); typ != sshfx.PacketTypeAttrs {
		t.Errorf("stat: type %d", typ)
	}
}

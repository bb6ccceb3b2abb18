package sftpfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// packet frames a packet: type, id and the rest.
func packet(typ byte, id uint32, rest ...any) []byte {
	body := []byte{typ}
	if typ != 2 {
		body = binary.BigEndian.AppendUint32(body, id)
	}
	body = append(body, fields(rest...)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// fields encodes uint32, uint64 and strings.
func fields(rest ...any) []byte {
	var b []byte
	for _, r := range rest {
		switch r := r.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(r))
		case uint64:
			b = binary.BigEndian.AppendUint64(b, r)
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(r))), r...)
		case []byte:
			b = append(b, r...)
		}
	}
	return b
}

const (
	fxStatus, fxHandle, fxData, fxName, fxAttrs, fxReply = 101, 102, 103, 104, 105, 201
)

func version(ext ...any) []byte { return packet(2, 0, append([]any{3}, ext...)...) }

// allExtensions are those that sftpfs knows.
var allExtensions = []any{
	extPosixRename, "1", extHardlink, "1", extStatVFS, "2", extFStatVFS, "2",
	extFSync, "1", extLSetStat, "1", extCopyData, "1",
}

// dirAttrs, fileAttrs and linkAttrs are attributes as on the wire.
var (
	dirAttrs  = fields(4, typeDir|0o755)
	fileAttrs = fields(1|4, uint64(100), typeRegular|0o644)
	linkAttrs = fields(4, typeSymlink|0o777)
)

// scripted returns a session on a server that answers each request with the
// next packet of script, whatever it is, and what to call at the end.
func scripted(t testing.TB, script []byte, timeout time.Duration) (*session, func(), error) {
	t.Helper()
	client, server := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer server.Close()
		for len(script) > 0 {
			if _, err := readPacket(server); err != nil {
				return
			}
			n := len(script)
			if n >= 4 {
				n = min(n, 4+int(binary.BigEndian.Uint32(script)))
			}
			if _, err := server.Write(script[:n]); err != nil || n < 5 {
				return
			}
			script = script[n:]
		}
		readPacket(server)
	})
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	s, err := newSession(ctx, client, &pool{opt: Options{Timeout: timeout}}, func() {})
	return s, func() {
		cancel()
		s.fail(os.ErrClosed)
		<-s.finished
		server.Close()
		wg.Wait()
	}, err
}

// alone returns an FS without a pool, whose operations get the session s.
func alone(s *session) *FS {
	f := &FS{opt: Options{}.withDefaults(), root: "/root", info: s.server}
	f.names.init()
	return f
}

// use does all that asks a server something and reads the answers, on s.
func use(s *session) map[string]error {
	f := alone(s)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	errs := make(map[string]error)
	_, errs["lstat"] = f.look(ctx, s, "a/b")
	l := &listing{f: f, name: ".", path: "/root", seen: make(map[string]struct{}), yield: func(bridge.DirEntry, error) bool { return true }}
	errs["readdir"] = l.run(ctx, s)
	_, errs["readlink"] = f.readlink(ctx, s, "l", "/root/l")
	o := &opening{f: f, name: "f", path: "/root/f", flags: syscall.O_RDWR}
	h, a, err := f.openThere(ctx, s, "f", o.open(0, sshfx.Attributes{}))
	errs["open"] = err
	fl := newFile(o, s, h, a)
	hs := []handle{{s, h}}
	_, errs["read"] = fl.readOn(ctx, hs, make([]byte, 100), 0, func() {})
	_, errs["write"] = fl.writeOn(ctx, hs, make([]byte, 100), 0, func() {})
	errs["setattr"] = f.setAttr(ctx, s, "f", "/root/f", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
	return errs
}

// TestHostileServer has answers that no server should give. Each is EIO, and
// the end of the session, in good time.
func TestHostileServer(t *testing.T) {
	lstatDir, lstatFile := packet(fxAttrs, 1, dirAttrs), packet(fxAttrs, 2, fileAttrs)
	looked := append(append([]byte(nil), lstatDir...), lstatFile...)
	listing := func(answers ...[]byte) []byte {
		return bytes.Join(append([][]byte{looked, packet(fxHandle, 3, "h")}, answers...), nil)
	}
	for _, c := range []struct {
		name, op string
		script   []byte
	}{
		{"short attributes", "lstat", append(bytes.Clone(lstatDir), packet(fxAttrs, 2, 15)...)},
		{"endless extended attributes", "lstat", append(bytes.Clone(lstatDir), packet(fxAttrs, 2, -1<<31, -1)...)},
		{"unknown id", "lstat", packet(fxAttrs, 77, dirAttrs)},
		{"answered twice", "lstat", append(bytes.Clone(lstatDir), lstatDir...)},
		{"packet too long", "lstat", []byte{0x7f, 0xff, 0xff, 0xff, fxAttrs, 0, 0, 0, 1}},
		{"packet too short", "lstat", []byte{0, 0, 0, 4, fxAttrs, 0, 0, 0, 1}},
		{"packet of nothing", "lstat", []byte{0, 0, 0, 0, fxAttrs, 0, 0, 0, 1}},
		{"unknown type", "lstat", packet(99, 1)},
		{"a request", "lstat", packet(3, 1, "file")},
		{"wrong type", "lstat", packet(fxHandle, 1, "h")},
		{"data that were not asked for", "lstat", packet(fxData, 1, "xx")},
		{"OK without attributes", "lstat", packet(fxStatus, 1, 0, "", "")},
		{"short status", "lstat", packet(fxStatus, 1)},
		{"end in the midst", "lstat", lstatDir[:7]},
		{"handle too long", "readdir", append(bytes.Clone(looked), packet(fxHandle, 3, string(make([]byte, 257)))...)},
		{"short handle", "readdir", append(bytes.Clone(looked), packet(fxHandle, 3, 5)...)},
		{"name with a slash", "readdir", listing(packet(fxName, 4, 1, "a/b", "", 0))},
		{"name with NUL", "readdir", listing(packet(fxName, 4, 1, "a\x00b", "", 0))},
		{"empty name", "readdir", listing(packet(fxName, 4, 1, "", "", 0))},
		{"more names than bytes", "readdir", listing(packet(fxName, 4, -1, "a", "", 0))},
		{"fewer names than said", "readdir", listing(packet(fxName, 4, 2, "a", "", 0))},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, end, err := scripted(t, append(version(allExtensions...), c.script...), 10*time.Second)
			defer end()
			if err != nil {
				t.Fatal(err)
			}
			errs := use(s)
			if !errors.Is(errs[c.op], syscall.EIO) {
				t.Errorf("%s: %v, want EIO", c.op, errs[c.op])
			}
			if s.alive() {
				t.Error("the session goes on")
			}
		})
	}
	for name, script := range map[string][]byte{
		"version 2":        packet(2, 0, 2),
		"no version":       packet(fxStatus, 0, 0),
		"an empty packet":  {0, 0, 0, 0},
		"a banner":         []byte("Welcome to our server!\r\n"),
		"short extensions": packet(2, 0, 3, 100),
		"nothing":          nil,
	} {
		s, end, err := scripted(t, script, 10*time.Second)
		if err == nil {
			t.Errorf("%s was taken for a server", name)
		}
		_ = s
		end()
	}
}

// TestEntries has listings with odd but harmless entries.
func TestEntries(t *testing.T) {
	names := packet(fxName, 2, 6,
		".", "", dirAttrs, "..", "", dirAttrs,
		"dir", "drwxr-xr-x 2 u g 0 Jan 1 00:00 dir", fields(1, uint64(5)),
		"link", "lrwxrwxrwx", fields(4, 0o777),
		"what", "", 0,
		"all", "", fields(1|2|4|8, uint64(7), 1, 2, typeRegular|0o4711, 8, 9))
	script := bytes.Join([][]byte{version(), packet(fxHandle, 1, "h"), names, packet(fxStatus, 3, 1, "", "")}, nil)
	s, end, err := scripted(t, script, 10*time.Second)
	defer end()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	l := &listing{f: alone(s), name: ".", path: "/root", seen: make(map[string]struct{}), yield: func(d bridge.DirEntry, err error) bool {
		got = append(got, fmt.Sprintf("%s %o %d %t", d.Name, d.Attr.Mode, d.Attr.Size, d.Full))
		return true
	}}
	if err := l.run(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	want := []string{"dir 40000 5 false", "link 120777 0 false", "what 0 0 false", "all 104711 7 true"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestStatus maps what servers say.
func TestStatus(t *testing.T) {
	for _, c := range []struct {
		code int
		text string
		want syscall.Errno
	}{
		{2, "No such file", syscall.ENOENT},
		{3, "Permission denied", syscall.EACCES},
		{4, "Failure", syscall.EIO},
		{4, "", syscall.EIO},
		{4, "write /home/u/x: no space left on device", syscall.ENOSPC},
		{4, "Disk quota exceeded", syscall.EDQUOT},
		{4, "Read-only file system", syscall.EROFS},
		{4, "open /is a directory/x: permission denied", syscall.EACCES},
		{5, "Bad message", syscall.EINVAL},
		{8, "Operation unsupported", syscall.EOPNOTSUPP},
		{11, "", syscall.EEXIST},
		{18, "", syscall.ENOTEMPTY},
		{99, "", syscall.EIO},
	} {
		status, err := readStatus(fields(c.code, c.text, "en"))
		if err != nil || !errors.Is(status, c.want) {
			t.Errorf("status %d %q is %v, %v; want %v", c.code, c.text, status, err, c.want)
		}
		if status != nil && c.text != "" && bytes.Contains([]byte(status.Error()), []byte("/home/u")) {
			t.Errorf("%q has a path of the upstream", status)
		}
	}
}

// FuzzSession has a server say anything. No call may panic, hang, or return
// what no server may say.
func FuzzSession(f *testing.F) {
	look := append(packet(fxAttrs, 1, dirAttrs), packet(fxAttrs, 2, fileAttrs)...)
	f.Add([]byte(nil))
	f.Add(look)
	f.Add(bytes.Join([][]byte{look, packet(fxHandle, 3, "h"),
		packet(fxName, 4, 2, "a", "-rw", fileAttrs, "b", "d", dirAttrs), packet(fxStatus, 5, 1, "", ""),
		packet(fxStatus, 6, 0, "", ""), packet(fxName, 7, 1, "target", "", 0),
		packet(fxAttrs, 8, fileAttrs), packet(fxHandle, 9, "h"), packet(fxData, 10, "0123456789"),
		packet(fxData, 11, string(make([]byte, 90))), packet(fxStatus, 12, 0, "", ""), packet(fxStatus, 13, 0, "", "")}, nil))
	f.Add(bytes.Join([][]byte{look, packet(fxStatus, 3, 4, "Failure", ""), packet(fxAttrs, 4, linkAttrs)}, nil))
	f.Add(packet(fxAttrs, 1, -1<<31, -1, "x"))
	f.Fuzz(func(t *testing.T, script []byte) {
		s, end, err := scripted(t, append(version(allExtensions...), script...), 50*time.Millisecond)
		defer end()
		if err != nil {
			return
		}
		for op, err := range use(s) {
			if err == nil || err == io.EOF {
				continue
			}
			var errno syscall.Errno
			if !errors.As(err, &errno) {
				t.Errorf("%s: %v wraps no errno", op, err)
			}
		}
	})
}

// FuzzDecode decodes anything as all that a server sends.
func FuzzDecode(f *testing.F) {
	f.Add(version(allExtensions...)[4:])
	f.Add(fields(2, "a", "-rw", fileAttrs, "b", "d", dirAttrs))
	f.Add(fields(4, "Failure", "en"))
	f.Add(fields(-1, -1, -1, -1))
	f.Fuzz(func(t *testing.T, b []byte) {
		readVersion(b)
		if entries, err := readNames(b); err == nil {
			for _, e := range entries {
				if d := toEntry(e); checkEntryName(d.Name) == nil && (d.Name == "" || bytes.IndexByte([]byte(d.Name), '/') >= 0) {
					t.Errorf("the name %q passed", d.Name)
				}
			}
		}
		if status, err := readStatus(b); err == nil && status != nil && status != io.EOF {
			var errno syscall.Errno
			if !errors.As(status, &errno) || errno == 0 {
				t.Errorf("%v wraps no errno", status)
			}
		}
	})
}

package hostiletest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// Types of packets.
const (
	fxInit, fxVersion, fxOpen, fxClose, fxRead, fxWrite            = 1, 2, 3, 4, 5, 6
	fxLstat, fxFstat, fxSetstat, fxFsetstat                        = 7, 8, 9, 10
	fxOpendir, fxReaddir, fxRemove, fxMkdir, fxRmdir               = 11, 12, 13, 14, 15
	fxRealpath, fxStat, fxRename, fxReadlink, fxSymlink            = 16, 17, 18, 19, 20
	fxStatus, fxHandle, fxData, fxName, fxAttrs, fxExtended        = 101, 102, 103, 104, 105, 200
	fxExtendedReply                                                = 201
	statusOK, statusEOF, statusNoFile, statusFailure               = 0, 1, 2, 4
	flagRead, flagWrite, flagCreate                         uint32 = 1, 2, 8
)

// body makes the body of a packet out of uint32, uint64 and strings; bytes are
// put in as they are.
func body(typ byte, fields ...any) []byte {
	b := []byte{typ}
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(f))
		case uint32:
			b = binary.BigEndian.AppendUint32(b, f)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, f)
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
		case []byte:
			b = append(b, f...)
		default:
			panic(fmt.Sprintf("a field of type %T", f))
		}
	}
	return b
}

func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func readFrame(r io.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(n[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

// A session speaks SFTP as it likes.
type session struct {
	t  *testing.T
	ch ssh.Channel
	id int
}

// newSession begins a session, without INIT.
func newSession(t *testing.T, c *ssh.Client) *session {
	t.Helper()
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	go ssh.DiscardRequests(reqs)
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	if err != nil || !ok {
		t.Fatalf("subsystem: %v %v", ok, err)
	}
	return &session{t: t, ch: ch}
}

// begun is newSession after INIT.
func begun(t *testing.T, c *ssh.Client) *session {
	t.Helper()
	s := newSession(t, c)
	s.send(body(fxInit, 3))
	if a := s.recv(); len(a) == 0 || a[0] != fxVersion {
		t.Fatalf("INIT is answered with %x", a)
	}
	return s
}

func (s *session) send(bodies ...[]byte) {
	s.t.Helper()
	var all []byte
	for _, b := range bodies {
		all = append(all, frame(b)...)
	}
	if _, err := s.ch.Write(all); err != nil {
		s.t.Fatal(err)
	}
}

// recv returns the next answer.
func (s *session) recv() (answer []byte) {
	s.t.Helper()
	within(s.t, "an answer", func() (err error) {
		answer, err = readFrame(s.ch)
		return err
	})
	return answer
}

// ask sends a request, its type and fields without the id, and returns type and
// rest of its answer.
func (s *session) ask(request []byte) (byte, []byte) {
	s.t.Helper()
	s.id++
	s.send(append(append([]byte{request[0]}, 0, 0, byte(s.id>>8), byte(s.id)), request[1:]...))
	a := s.recv()
	if len(a) < 5 || binary.BigEndian.Uint32(a[1:]) != uint32(s.id)&0xffff {
		s.t.Fatalf("%x is answered with %x", request, a)
	}
	return a[0], a[5:]
}

// ends waits until the bridge ends the session.
func (s *session) ends(what string) {
	s.t.Helper()
	within(s.t, "the end of the session after "+what, func() error {
		_, err := io.Copy(io.Discard, s.ch)
		return err
	})
}

func (s *session) open(path string) string {
	s.t.Helper()
	typ, rest := s.ask(body(fxOpen, path, flagRead|flagWrite|flagCreate, 0))
	if typ != fxHandle {
		s.t.Fatalf("OPEN %s: %d %q", path, typ, rest)
	}
	return string(rest[4:])
}

// TestSessionsThatEnd: what is no SFTP ends the session, and nothing else.
func TestSessionsThatEnd(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", noPenalties)
	c := b.mustLogin()
	init := frame(body(fxInit, 3))
	for name, send := range map[string][]byte{
		"a request before INIT":    frame(body(fxStat, 1, "/")),
		"garbage":                  garbage(3000),
		"text":                     []byte("ls -l\n"),
		"a packet of nothing":      append(init[:len(init):len(init)], 0, 0, 0, 0),
		"a packet without id":      append(init[:len(init):len(init)], 0, 0, 0, 2, fxStat, 0),
		"a packet of 4 GiB":        append(init[:len(init):len(init)], 0xff, 0xff, 0xff, 0xff, fxWrite),
		"a packet of 2 GiB":        append(init[:len(init):len(init)], 0x7f, 0xff, 0xff, 0xff, fxWrite),
		"a packet one byte longer": append(init[:len(init):len(init)], 0, 4, 0, 1, fxWrite),
	} {
		s := newSession(t, c)
		s.ch.Write(send)
		s.ends(name)
		s.ch.Close()
	}
	for _, name := range []string{"half a packet", "half a length"} {
		s := begun(t, c)
		s.ch.Write(frame(body(fxStat, 1, "/"))[:map[string]int{"half a packet": 9, "half a length": 2}[name]])
		s.ch.CloseWrite()
		s.ends(name)
		s.ch.Close()
	}
	b.serves("broken sessions")
}

// valid are good requests of all kinds, to be broken.
func valid(handle string) [][]byte {
	ext := func(name string, fields ...any) []byte {
		return body(fxExtended, append([]any{name}, fields...)...)
	}
	return [][]byte{
		body(fxOpen, "/f", flagRead, 0), body(fxClose, handle), body(fxRead, handle, uint64(0), 10),
		body(fxWrite, handle, uint64(0), "data"), body(fxLstat, "/f"), body(fxFstat, handle),
		body(fxSetstat, "/f", 0xf, uint64(1), 0, 0, 0o600, 1, 1), body(fxFsetstat, handle, 0xf, uint64(1), 0, 0, 0o600, 1, 1),
		body(fxOpendir, "/"), body(fxReaddir, handle), body(fxRemove, "/x"), body(fxMkdir, "/x", 4, 0o700), body(fxRmdir, "/x"),
		body(fxRealpath, "/x"), body(fxStat, "/f"), body(fxRename, "/x", "/y"), body(fxReadlink, "/l"), body(fxSymlink, "/l", "/m"),
		ext("posix-rename@openssh.com", "/x", "/y"), ext("hardlink@openssh.com", "/x", "/y"), ext("statvfs@openssh.com", "/"),
		ext("fstatvfs@openssh.com", handle), ext("fsync@openssh.com", handle), ext("lsetstat@openssh.com", "/f", 4, 0o600),
		ext("limits@openssh.com"), ext("expand-path@openssh.com", "~/x"), ext("home-directory", "u"),
		ext("copy-data", handle, uint64(0), uint64(0), handle, uint64(5)),
		ext("users-groups-by-id@openssh.com", "\x00\x00\x00\x00", "\x00\x00\x00\x00"), ext("unknown@example.org", "x"),
	}
}

// TestBrokenRequests cuts each kind of request at each byte, and adds to it:
// each is answered, once, and the session goes on.
func TestBrokenRequests(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", noPenalties)
	s := begun(t, b.mustLogin())
	handle := s.open("/f")
	for _, request := range valid(handle) {
		for n := 1; n <= len(request); n++ {
			s.ask(request[:n])
		}
		s.ask(append(request[:len(request):len(request)], garbage(100)...))
		for at := 1; at+4 <= len(request); at += 4 { // lengths, counts and flags without sense
			changed := append([]byte(nil), request...)
			copy(changed[at:], "\xff\xff\xff\xff")
			s.ask(changed)
		}
		handle2 := s.open("/f") // it may have been closed
		if len(handle2) != len(handle) {
			t.Fatalf("a handle of %d bytes", len(handle2))
		}
		s.ask(body(fxClose, handle2))
	}
	for typ := range 256 {
		if typ != fxInit {
			s.ask([]byte{byte(typ)})
			s.ask(append([]byte{byte(typ)}, garbage(64)...))
		}
	}
	b.serves("broken requests")
}

// TestOutOfOrder uses handles that are closed, of another session or of
// another kind, and offsets and counts that no file has.
func TestOutOfOrder(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("content"), 0o644))
	b := startBridge(t, dir, "", noPenalties)
	c := b.mustLogin()
	s, other := begun(t, c), begun(t, c)
	file := s.open("/f")
	_, rest := s.ask(body(fxOpendir, "/"))
	listing := string(rest[4:])
	closed := s.open("/f")
	s.ask(body(fxClose, closed))
	refused := func(what string, s *session, request []byte) {
		t.Helper()
		typ, rest := s.ask(request)
		if typ != fxStatus || binary.BigEndian.Uint32(rest) == statusOK {
			t.Errorf("%s: answered with %d %q", what, typ, rest)
		}
	}
	for _, h := range []string{closed, "", "\x00", strings.Repeat("h", 256), strings.Repeat("h", 200_000), "\xff\xff\xff\xff"} {
		for _, request := range [][]byte{
			body(fxRead, h, uint64(0), 10), body(fxWrite, h, uint64(0), "x"), body(fxFstat, h), body(fxFsetstat, h, 4, 0o600),
			body(fxReaddir, h), body(fxClose, h), body(fxExtended, "fsync@openssh.com", h),
			body(fxExtended, "copy-data", h, uint64(0), uint64(0), file, uint64(0)),
			body(fxExtended, "copy-data", file, uint64(0), uint64(0), h, uint64(0)),
		} {
			refused(fmt.Sprintf("a handle of %d bytes", len(h)), s, request)
		}
	}
	refused("a handle of another session", other, body(fxRead, file, uint64(0), 10))
	refused("READ of a directory", s, body(fxRead, listing, uint64(0), 10))
	refused("WRITE to a directory", s, body(fxWrite, listing, uint64(0), "x"))
	refused("READDIR of a file", s, body(fxReaddir, file))
	refused("READ at a negative offset", s, body(fxRead, file, ^uint64(0), 10))
	refused("WRITE at a negative offset", s, body(fxWrite, file, ^uint64(0), "x"))
	refused("a negative size", s, body(fxFsetstat, file, 1, ^uint64(0)))
	if typ, rest := s.ask(body(fxRead, file, uint64(0), uint32(0xffffffff))); typ != fxData || string(rest[4:]) != "content" {
		t.Errorf("READ of 4 GiB: %d %q", typ, rest)
	}
	s.send(body(fxInit, 3)) // again
	s.recv()
	s.ask(body(fxRead, file, uint64(0), 10))
	b.serves("requests out of order")
}

// TestPaths: no path leads out of the tree, whatever it is like.
func TestPaths(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "tree")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o600))
	must(t, os.Symlink("../secret", filepath.Join(dir, "up")))
	must(t, os.Symlink(filepath.Join(top, "secret"), filepath.Join(dir, "absolute")))
	must(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	b := startBridge(t, dir, "", noPenalties)
	s := begun(t, b.mustLogin())
	paths := []string{
		"../secret", "/../secret", "/../../../../../../" + top + "/secret", "up", "absolute", "loop/x", "/tree/../../secret", "up/",
		"..\\secret", "/..\x00/secret", "secret\x00", "//../secret", "./.././secret", "%2e%2e/secret", "\xc0\xae\xc0\xae/secret",
		strings.Repeat("../", 1000) + top[1:] + "/secret", strings.Repeat("a/", 100_000), strings.Repeat("x", 200_000),
		strings.Repeat("x", 256), strings.Repeat("./", 2000) + "../secret",
	}
	for _, p := range paths {
		for _, request := range [][]byte{
			body(fxOpen, p, flagRead, 0), body(fxOpen, p, flagWrite, 0), body(fxStat, p), body(fxRemove, p), body(fxSetstat, p, 4, 0o777),
			body(fxRename, p, "/stolen"), body(fxExtended, "posix-rename@openssh.com", p, "/stolen"),
			body(fxExtended, "hardlink@openssh.com", p, "/stolen"), body(fxExtended, "expand-path@openssh.com", "~/"+p),
		} {
			typ, rest := s.ask(request)
			if typ == fxHandle || typ == fxAttrs {
				t.Errorf("%.40q: answered with %d %q", p, typ, rest)
			}
		}
		if typ, rest := s.ask(body(fxRealpath, p)); typ == fxName && strings.Contains(string(rest), top[1:]+"\x00") {
			t.Errorf("REALPATH %.40q: %q", p, rest)
		}
	}
	for _, p := range []string{"/../made", "up/made", "/../../made"} {
		s.ask(body(fxMkdir, p, 0))
	}
	names, err := os.ReadDir(top)
	must(t, err)
	data, err := os.ReadFile(filepath.Join(top, "secret"))
	if len(names) != 2 || err != nil || string(data) != "secret" {
		t.Errorf("outside the tree there are %v, %q %v", names, data, err)
	}
	if fi, _ := os.Stat(filepath.Join(top, "secret")); fi.Mode().Perm() != 0o600 {
		t.Errorf("outside the tree a mode has changed: %v", fi.Mode())
	}
	b.serves("paths")
}

// TestTooMuch: handles, channels and requests in flight are bounded, and who
// does not read its answers is not read from.
func TestTooMuch(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "f"), make([]byte, 1<<20), 0o644))
	b := startBridge(t, dir, "", noPenalties)
	fds := b.descriptors()
	c := b.mustLogin()
	s := begun(t, c)
	open := 0
	for range 1100 {
		if typ, _ := s.ask(body(fxOpen, "/f", flagRead, 0)); typ == fxHandle {
			open++
		}
	}
	if open != 1024 {
		t.Errorf("%d handles, want 1024", open)
	}
	sessions := []*session{s}
	for range 50 {
		if ch, reqs, err := c.OpenChannel("session", nil); err == nil {
			go ssh.DiscardRequests(reqs)
			if ok, _ := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"})); ok {
				sessions = append(sessions, &session{t: t, ch: ch})
			}
		}
	}
	if len(sessions) != 10 {
		t.Errorf("%d sessions on one connection, want 10", len(sessions))
	}
	file := ""
	var all sync.WaitGroup
	for i, s := range sessions[1:] {
		s.send(body(fxInit, 3))
		s.recv()
		file = s.open("/f")
		read := frame(body(fxRead, i, file, uint64(0), 1<<18))
		all.Go(func() { // blocks once the bridge has enough
			for range 20_000 {
				if _, err := s.ch.Write(read); err != nil {
					return
				}
			}
		})
	}
	time.Sleep(time.Second) // there is nothing to wait for: it is to grow no further
	first := b.memory()
	b.serves("sessions that do not read their answers")
	if m := b.memory(); m > 500 || m > first+100 {
		t.Errorf("%d MiB of memory, a second ago %d", m, first)
	}
	c.Close()
	all.Wait()
	eventually(t, "all is closed", func() bool { return b.descriptors() <= fds+2 })
	b.serves("that")
}

// TestRandomSessions sends packets put together at random.
func TestRandomSessions(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", noPenalties)
	c := b.mustLogin()
	rnd := rand.New(rand.NewPCG(11, 12))
	for range 60 {
		s := begun(t, c)
		h := s.open("/f")
		requests := valid(h)
		var send []byte
		for range 100 {
			r := append([]byte(nil), requests[rnd.IntN(len(requests))]...)
			r = append(append([]byte{r[0]}, 0, 0, 0, 9), r[1:]...)
			for range rnd.IntN(3) {
				r[rnd.IntN(len(r))] = byte(rnd.Uint32())
			}
			send = append(send, frame(r)...)
		}
		go func() {
			s.ch.Write(send)
			s.ch.CloseWrite()
		}()
		s.ends("random packets")
		s.ch.Close()
	}
	b.serves("random sessions")
	if m := b.memory(); m > 300 {
		t.Errorf("%d MiB of memory afterwards", m)
	}
}

// TestRequestsOfChannels: nothing but the subsystem is given.
func TestRequestsOfChannels(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", noPenalties)
	c := b.mustLogin()
	for _, typ := range []string{"direct-tcpip", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "tun@openssh.com", "", strings.Repeat("x", 30_000)} {
		if ch, _, err := c.OpenChannel(typ, garbage(1000)); err == nil {
			ch.Close()
			t.Errorf("a channel of type %.20q is opened", typ)
		}
	}
	for _, name := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "no-more-sessions@openssh.com", "hostkeys-prove-00@openssh.com", ""} {
		if ok, _, err := c.SendRequest(name, true, garbage(1000)); ok || err != nil {
			t.Errorf("the request %q: %v %v", name, ok, err)
		}
	}
	ch, reqs, err := c.OpenChannel("session", nil)
	must(t, err)
	go ssh.DiscardRequests(reqs)
	for _, name := range []string{"shell", "exec", "pty-req", "env", "x11-req", "auth-agent-req@openssh.com", "signal", "subsystem", strings.Repeat("x", 30_000)} {
		for _, payload := range [][]byte{nil, garbage(30_000), ssh.Marshal(struct{ S string }{"/bin/sh"})} {
			if ok, err := ch.SendRequest(name, true, payload); ok || err != nil {
				t.Errorf("%.20q: %v %v", name, ok, err)
			}
		}
	}
	if err := ch.Close(); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	b.serves("requests of channels")
}

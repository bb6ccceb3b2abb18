package doorstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A client makes calls as one user through the SFTP door. It is written by
// hand, byte by byte, so that no library's habits come between.
type client struct {
	w  io.Writer
	r  io.Reader
	id uint32
}

// The packet types and open flags of draft-ietf-secsh-filexfer-02.
const (
	fxpInit     = 1
	fxpOpen     = 3
	fxpClose    = 4
	fxpRead     = 5
	fxpWrite    = 6
	fxpLstat    = 7
	fxpSetstat  = 9
	fxpFsetstat = 10
	fxpOpendir  = 11
	fxpReaddir  = 12
	fxpRemove   = 13
	fxpMkdir    = 14
	fxpRmdir    = 15
	fxpStat     = 17
	fxpRename   = 18
	fxpReadlink = 19
	fxpSymlink  = 20
	fxpVersion  = 2
	fxpStatus   = 101
	fxpHandle   = 102
	fxpData     = 103
	fxpName     = 104
	fxpAttrs    = 105
	fxpExtended = 200

	attrSize  = 1
	attrOwner = 2
	attrPerm  = 4
	attrTimes = 8
)

// A status is the code of an SSH_FXP_STATUS that is not OK, and its message.
type status struct {
	code uint32
	text string
}

func (s status) Error() string { return fmt.Sprintf("status %d (%s)", s.code, s.text) }

const statusEOF = 1

func startClient(t *testing.T, r *rig, u user) *client {
	t.Helper()
	conn, err := ssh.Dial("tcp", r.addr, &ssh.ClientConfig{
		User:            u.Name,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(r.keys[u.Name])},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // our own, on the loopback
		Timeout:         30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s, err := conn.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	c := new(client)
	w, err1 := s.StdinPipe()
	out, err2 := s.StdoutPipe()
	if err := errors.Join(err1, err2, s.RequestSubsystem("sftp")); err != nil {
		t.Fatal(err)
	}
	c.w, c.r = w, out
	if err := c.send(fxpInit, u32(3)); err != nil {
		t.Fatal(err)
	}
	if typ, _, err := c.receive(); err != nil || typ != fxpVersion {
		t.Fatalf("no SSH_FXP_VERSION but %d, %v", typ, err)
	}
	return c
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
func str(s string) []byte { return append(u32(uint32(len(s))), s...) }

func (c *client) send(typ byte, parts ...[]byte) error {
	body := append([]byte{typ}, slices.Concat(parts...)...)
	_, err := c.w.Write(append(u32(uint32(len(body))), body...))
	return err
}

func (c *client) receive() (byte, *buffer, error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:])-1)
	_, err := io.ReadFull(c.r, body)
	return head[4], &buffer{body}, err
}

// A buffer is what is left of an answer.
type buffer struct{ b []byte }

func (b *buffer) u32() uint32 {
	v := binary.BigEndian.Uint32(b.b)
	b.b = b.b[4:]
	return v
}

func (b *buffer) u64() uint64 {
	v := binary.BigEndian.Uint64(b.b)
	b.b = b.b[8:]
	return v
}

func (b *buffer) str() string {
	n := b.u32()
	s := string(b.b[:n])
	b.b = b.b[n:]
	return s
}

func (b *buffer) attrs() (e entry) {
	flags := b.u32()
	if flags&attrSize != 0 {
		e.Size = int64(b.u64())
	}
	if flags&attrOwner != 0 {
		e.UID, e.GID = b.u32(), b.u32()
	}
	if flags&attrPerm != 0 {
		e.Mode = b.u32()
	}
	if flags&attrTimes != 0 {
		b.u64()
	}
	return e
}

// ask sends a request and returns the body of its answer, or a status.
func (c *client) ask(typ byte, parts ...[]byte) (*buffer, error) {
	c.id++
	if err := c.send(typ, append([][]byte{u32(c.id)}, parts...)...); err != nil {
		return nil, err
	}
	got, body, err := c.receive()
	if err != nil {
		return nil, err
	}
	if id := body.u32(); id != c.id {
		return nil, fmt.Errorf("answer to request %d instead of %d", id, c.id)
	}
	if got == fxpStatus {
		s := status{code: body.u32(), text: body.str()}
		if s.code == 0 {
			return body, nil
		}
		return nil, s
	}
	return body, nil
}

// call makes the call, whose errno is the status of the answer.
func (c *client) call(t *testing.T, what call) answer {
	t.Helper()
	text, err := c.do(what)
	var s status
	switch {
	case errors.As(err, &s):
		return answer{Errno: syscall.Errno(s.code), Text: s.text}
	case err != nil:
		t.Fatalf("%v: %v", what, err)
	}
	return answer{Text: text}
}

func (c *client) do(what call) (text string, err error) {
	path := str("/" + what.Path)
	var b *buffer
	switch what.Op {
	case "mkdir":
		_, err = c.ask(fxpMkdir, path, u32(attrPerm), u32(uint32(what.A)))
	case "rmdir":
		_, err = c.ask(fxpRmdir, path)
	case "unlink":
		_, err = c.ask(fxpRemove, path)
	case "link":
		_, err = c.ask(fxpExtended, str("hardlink@openssh.com"), path, str("/"+what.Path2))
	case "symlink":
		_, err = c.ask(fxpSymlink, str(what.Path2), path)
	case "rename":
		if what.A == 1 {
			_, err = c.ask(fxpRename, path, str("/"+what.Path2))
		} else {
			_, err = c.ask(fxpExtended, str("posix-rename@openssh.com"), path, str("/"+what.Path2))
		}
	case "chmod":
		_, err = c.ask(fxpSetstat, path, u32(attrPerm), u32(uint32(what.A)))
	case "chown":
		_, err = c.ask(fxpSetstat, path, u32(attrOwner), u32(uint32(what.A)), u32(uint32(what.B)))
	case "truncate":
		_, err = c.ask(fxpSetstat, path, u32(attrSize), u64(uint64(what.A)))
	case "utimes":
		_, err = c.ask(fxpSetstat, path, u32(attrTimes), u32(uint32(what.A)), u32(uint32(what.A)))
	case "readlink":
		if b, err = c.ask(fxpReadlink, path); err == nil {
			b.u32()
			text = b.str()
		}
	case "stat", "lstat":
		typ := byte(fxpStat)
		if what.Op == "lstat" {
			typ = fxpLstat
		}
		if b, err = c.ask(typ, path); err == nil {
			text = b.attrs().statText()
		}
	case "list":
		text, err = c.list(path)
	case "open":
		text, err = c.open(what, path)
	default:
		err = fmt.Errorf("no operation %q", what.Op)
	}
	return text, err
}

func (c *client) list(path []byte) (string, error) {
	b, err := c.ask(fxpOpendir, path)
	if err != nil {
		return "", err
	}
	handle := str(b.str())
	var names []string
	for {
		b, err = c.ask(fxpReaddir, handle)
		var s status
		if errors.As(err, &s) && s.code == statusEOF {
			break
		}
		if err != nil {
			return "", err
		}
		for range b.u32() {
			name := b.str()
			b.str()
			b.attrs()
			if name != "." && name != ".." {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	_, err = c.ask(fxpClose, handle)
	return strings.Join(names, " "), err
}

// openFlags turns flags of open(2) into those of SSH_FXP_OPEN.
func openFlags(flags int) (pflags uint32) {
	switch flags & syscall.O_ACCMODE {
	case syscall.O_RDONLY:
		pflags = 1
	case syscall.O_WRONLY:
		pflags = 2
	case syscall.O_RDWR:
		pflags = 3
	}
	for i, flag := range []int{syscall.O_APPEND, syscall.O_CREAT, syscall.O_TRUNC, syscall.O_EXCL} {
		if flags&flag != 0 {
			pflags |= 4 << i
		}
	}
	return pflags
}

func (c *client) open(what call, path []byte) (string, error) {
	b, err := c.ask(fxpOpen, path, u32(openFlags(int(what.A))), u32(attrPerm), u32(uint32(what.B)))
	if err != nil {
		return "", err
	}
	handle := str(b.str())
	if int(what.A)&syscall.O_ACCMODE != syscall.O_RDONLY && what.Data != "" {
		if _, err := c.ask(fxpWrite, handle, u64(0), str(what.Data)); err != nil {
			return "", err
		}
	}
	var data string
	for int(what.A)&syscall.O_ACCMODE != syscall.O_WRONLY {
		b, err := c.ask(fxpRead, handle, u64(uint64(len(data))), u32(1<<15))
		var s status
		if errors.As(err, &s) && s.code == statusEOF {
			break
		}
		if err != nil {
			return "", err
		}
		data += b.str()
	}
	_, err = c.ask(fxpClose, handle)
	return data, err
}

// statusOf is the status that stands for an errno, as OpenSSH's sftp-server
// has it (errno_to_portable).
func statusOf(e syscall.Errno) syscall.Errno {
	switch e {
	case 0:
		return 0
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EBADF, syscall.ELOOP:
		return 2
	case syscall.EPERM, syscall.EACCES, syscall.EFAULT:
		return 3
	case syscall.ENAMETOOLONG, syscall.EINVAL:
		return 5
	case syscall.ENOSYS:
		return 8
	}
	return 4
}

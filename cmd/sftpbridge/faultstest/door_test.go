package faultstest

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// A door is a way to the tree, as a program uses it.
type door interface {
	open(name string, flags int) (file, error)
	mkdir(name string) error
	rmdir(name string) error
	remove(name string) error
	rename(from, to string) error // replaces what is there
	symlink(target, name string) error
	link(from, to string) error
	stat(name string) (os.FileInfo, error)
	list(name string) ([]os.FileInfo, error)
	chmod(name string, mode os.FileMode) error
	truncate(name string, size int64) error
	readlink(name string) (string, error)
	free(name string) error // asks for the free space
}

type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	io.Closer
}

// A mountDoor makes system calls below a directory. It is also the way to look
// at the upstream past the command.
type mountDoor struct{ dir string }

func (d mountDoor) path(name string) string { return filepath.Join(d.dir, name) }

func (d mountDoor) open(name string, flags int) (file, error) {
	return os.OpenFile(d.path(name), flags, 0o644)
}

// The calls that package os would make several system calls of are made
// directly.
func (d mountDoor) rmdir(name string) error { return syscall.Rmdir(d.path(name)) }

func (d mountDoor) remove(name string) error             { return syscall.Unlink(d.path(name)) }
func (d mountDoor) mkdir(name string) error              { return os.Mkdir(d.path(name), 0o755) }
func (d mountDoor) rename(from, to string) error         { return syscall.Rename(d.path(from), d.path(to)) }
func (d mountDoor) symlink(target, name string) error    { return os.Symlink(target, d.path(name)) }
func (d mountDoor) link(from, to string) error           { return os.Link(d.path(from), d.path(to)) }
func (d mountDoor) readlink(name string) (string, error) { return os.Readlink(d.path(name)) }
func (d mountDoor) truncate(name string, n int64) error  { return os.Truncate(d.path(name), n) }

func (d mountDoor) stat(name string) (os.FileInfo, error) { return os.Lstat(d.path(name)) }

func (d mountDoor) chmod(name string, mode os.FileMode) error { return os.Chmod(d.path(name), mode) }

func (d mountDoor) list(name string) ([]os.FileInfo, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdir(-1)
}

func (d mountDoor) free(name string) error {
	var st syscall.Statfs_t
	return syscall.Statfs(d.path(name), &st)
}

// An sftpDoor is an SFTP client.
type sftpDoor struct {
	c    *sftp.Client
	conn *ssh.Client
}

// close logs out.
func (d sftpDoor) close() error { return errors.Join(d.c.Close(), d.conn.Close()) }

func (d sftpDoor) open(name string, flags int) (file, error) { return d.c.OpenFile("/"+name, flags) }
func (d sftpDoor) mkdir(name string) error                   { return d.c.Mkdir("/" + name) }
func (d sftpDoor) rmdir(name string) error                   { return d.c.RemoveDirectory("/" + name) }
func (d sftpDoor) remove(name string) error                  { return d.c.Remove("/" + name) }
func (d sftpDoor) rename(from, to string) error              { return d.c.PosixRename("/"+from, "/"+to) }
func (d sftpDoor) symlink(target, name string) error         { return d.c.Symlink(target, "/"+name) }
func (d sftpDoor) link(from, to string) error                { return d.c.Link("/"+from, "/"+to) }
func (d sftpDoor) stat(name string) (os.FileInfo, error)     { return d.c.Lstat("/" + name) }
func (d sftpDoor) list(name string) ([]os.FileInfo, error)   { return d.c.ReadDir("/" + name) }
func (d sftpDoor) chmod(name string, mode os.FileMode) error { return d.c.Chmod("/"+name, mode) }
func (d sftpDoor) truncate(name string, size int64) error    { return d.c.Truncate("/"+name, size) }
func (d sftpDoor) readlink(name string) (string, error)      { return d.c.ReadLink("/" + name) }

func (d sftpDoor) free(name string) error {
	_, err := d.c.StatVFS("/" + name)
	return err
}

// dial logs in at the SFTP door.
func (r *rig) dial() (sftpDoor, error) {
	cfg := &ssh.ClientConfig{
		User:            r.account,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(r.login)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // our own, on the loopback
		Timeout:         slack,
	}
	tcp, err := net.DialTimeout("tcp", r.addr, slack)
	if err != nil {
		return sftpDoor{}, err
	}
	tcp.SetDeadline(time.Now().Add(slack))
	conn, chans, reqs, err := ssh.NewClientConn(tcp, r.addr, cfg)
	if err != nil {
		tcp.Close()
		return sftpDoor{}, err
	}
	tcp.SetDeadline(time.Time{})
	client := ssh.NewClient(conn, chans, reqs)
	c, err := sftp.NewClient(client)
	if err != nil {
		client.Close()
		return sftpDoor{}, err
	}
	return sftpDoor{c, client}, nil
}

// A doorKind is one of the two doors.
type doorKind struct {
	name  string
	enter func(t *testing.T, r *rig) door
}

var doorKinds = []doorKind{
	{"mount", func(t *testing.T, r *rig) door { return mountDoor{r.mount} }},
	{"sftp", func(t *testing.T, r *rig) door {
		t.Helper()
		d, err := r.dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.close() })
		return d
	}},
}

func upstreamOf(r *rig) mountDoor { return mountDoor{r.upstream} }

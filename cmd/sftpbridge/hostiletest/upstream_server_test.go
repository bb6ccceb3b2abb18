package hostiletest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// An upstream is an SSH server in whose sessions OpenSSH's sftp-server answers,
// until a twist is put on what it says.
type upstream struct {
	dir        string // what it serves
	addr       string
	knownHosts string // file with its key
	identity   string // file of a key that it takes

	mu    sync.Mutex
	twist twist // guarded by mu
}

// A twist makes what is sent out of an answer to a request of some type: all
// of it, with lengths. An error ends the session. nil leaves answers as they
// are.
type twist func(request byte, answer []byte) ([]byte, error)

const sftpServer = "/usr/lib/openssh/sftp-server"

// startUpstream starts a server that ends with the test.
func startUpstream(t *testing.T) *upstream {
	t.Helper()
	if _, err := os.Stat(sftpServer); err != nil {
		t.Skip("no OpenSSH: ", err)
	}
	conf := t.TempDir()
	u := &upstream{dir: t.TempDir(), knownHosts: filepath.Join(conf, "known_hosts"), identity: filepath.Join(conf, "id")}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", u.identity).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	host := newKey(t)
	cfg.AddHostKey(host)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	u.addr = ln.Addr().String()
	must(t, os.WriteFile(u.knownHosts, []byte(knownhosts.Line([]string{u.addr}, host.PublicKey())+"\n"), 0o600))
	var all sync.WaitGroup
	var conns sync.Map
	all.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Store(nc, nil)
			all.Go(func() {
				defer nc.Close()
				u.serveConn(nc, cfg)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		conns.Range(func(nc, _ any) bool {
			nc.(net.Conn).Close()
			return true
		})
		all.Wait()
	})
	return u
}

func (u *upstream) serveConn(nc net.Conn, cfg *ssh.ServerConfig) {
	conn, chans, reqs, err := ssh.NewServerConn(nc, cfg)
	if err != nil {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer conn.Close()
	all.Go(func() { ssh.DiscardRequests(reqs) })
	for nch := range chans {
		ch, reqs, err := nch.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			for r := range reqs {
				r.Reply(r.Type == "subsystem", nil)
				if r.Type == "subsystem" {
					all.Go(func() { u.session(ch) })
				}
			}
		})
	}
}

// session has sftp-server answer, and puts the twist on its answers.
func (u *upstream) session(ch ssh.Channel) {
	defer ch.Close()
	server := exec.Command(sftpServer, "-d", u.dir)
	in, err1 := server.StdinPipe()
	out, err2 := server.StdoutPipe()
	if errors.Join(err1, err2, server.Start()) != nil {
		return
	}
	defer server.Wait()
	defer server.Process.Kill()
	var asked sync.Map // types of requests by id
	var forward sync.WaitGroup
	defer forward.Wait()
	forward.Go(func() {
		defer in.Close()
		for {
			request, err := readFrame(ch)
			if err != nil || len(request) < 5 {
				return
			}
			asked.Store(binary.BigEndian.Uint32(request[1:]), request[0])
			if _, err := in.Write(frame(request)); err != nil {
				return
			}
		}
	})
	defer ch.Close()
	for {
		answer, err := readFrame(out)
		if err != nil {
			return
		}
		request := byte(fxInit)
		if answer[0] != fxVersion {
			typ, _ := asked.LoadAndDelete(binary.BigEndian.Uint32(answer[1:]))
			request, _ = typ.(byte)
		}
		send, err := u.twisted(request, answer)
		if len(send) > 0 {
			if _, err := ch.Write(send); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (u *upstream) twisted(request byte, answer []byte) ([]byte, error) {
	u.mu.Lock()
	twist := u.twist
	u.mu.Unlock()
	if twist == nil {
		return frame(answer), nil
	}
	return twist(request, answer)
}

func (u *upstream) set(t twist) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.twist = t
}

// backend and config are what a bridge is told of the server.
func (u *upstream) backend() string { return fmt.Sprintf("sftp://u@%s%s", u.addr, u.dir) }

func (u *upstream) config() string {
	return fmt.Sprintf("    attr_timeout: \"0\"\n    upstream: {identity: [%s], known_hosts: %s, timeout: 1s, ssh_config: none}\n", u.identity, u.knownHosts)
}

var errClose = io.EOF

// only puts a twist on the answers to requests of some types.
func only(t twist, requests ...byte) twist {
	return func(request byte, answer []byte) ([]byte, error) {
		for _, r := range requests {
			if r == request {
				return t(request, answer)
			}
		}
		return frame(answer), nil
	}
}

// instead answers with another packet, made by fields, with the right id.
func instead(typ byte, fields ...any) twist {
	rest := body(typ, fields...)[1:]
	return func(_ byte, answer []byte) ([]byte, error) {
		return frame(append(append([]byte{typ}, answer[1:5]...), rest...)), nil
	}
}

// rawly sends bytes instead of answers.
func rawly(b []byte) twist {
	return func(byte, []byte) ([]byte, error) { return b, nil }
}

// dirAttrs and fileAttrs are attributes as on the wire.
func attrs(mode uint32, size uint64) []byte {
	return body(0, 1|4, size, mode)[1:]
}

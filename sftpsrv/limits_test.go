package sftpsrv

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func TestMaxAuthTries(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.MaxAuthTries = 3 })
	cfg := ts.clientConfig()
	tries := 0
	cfg.Auth = []ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
		tries++
		return "wrong", nil
	}), 100)}
	if _, err := ssh.Dial("tcp", ts.addr.String(), cfg); err == nil {
		t.Error("a login with wrong passwords")
	}
	if tries > 3 {
		t.Errorf("%d tries, want 3 at most", tries)
	}
}

func TestConnectionsThatAreRefused(t *testing.T) {
	refused := func(ts *testServer) bool {
		c, err := net.Dial("tcp", ts.addr.String())
		must(t, err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		return err == io.EOF || errors.Is(err, net.ErrClosed) || err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
	}
	hold := func(ts *testServer) net.Conn { // a connection that does not log in
		c, err := net.Dial("tcp", ts.addr.String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		must(t, err)
		return c
	}
	t.Run("startups", func(t *testing.T) {
		ts := startServer(t, func(c *Config) { c.MaxStartups = 2 })
		ts.dial() // has logged in, so it does not count
		eventually(t, "the login in the log", func() bool { return strings.Contains(ts.logged(), "msg=login") })
		hold(ts)
		held := hold(ts)
		if !refused(ts) {
			t.Error("a third connection that has not logged in is taken")
		}
		held.Close()
		eventually(t, "room", func() bool { return !refused(ts) })
	})
	t.Run("all", func(t *testing.T) {
		ts := startServer(t, func(c *Config) { c.MaxConnections = 2 })
		ts.dial()
		ts.dial()
		if !refused(ts) {
			t.Error("a third connection is taken")
		}
	})
	t.Run("per address", func(t *testing.T) {
		ts := startServer(t, func(c *Config) { c.MaxPerAddress = 1 })
		ts.dial()
		if !refused(ts) {
			t.Error("a second connection is taken")
		}
	})
	t.Run("penalty", func(t *testing.T) {
		ts := startServer(t, func(c *Config) { c.LoginPenalty = time.Hour })
		cfg := ts.clientConfig()
		cfg.Auth = []ssh.AuthMethod{ssh.Password("wrong")}
		if _, err := ssh.Dial("tcp", ts.addr.String(), cfg); err == nil {
			t.Fatal("a login with a wrong password")
		}
		eventually(t, "refused", func() bool { return refused(ts) })
	})
}

func TestLoginGrace(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.LoginGrace = 50 * time.Millisecond })
	c, err := net.Dial("tcp", ts.addr.String())
	must(t, err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection that does not log in stays")
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.IdleTimeout = 100 * time.Millisecond })
	waitConn(t, ts.dial())
}

// TestDeadClientsEnd has a client that does not read any more.
func TestDeadClientsEnd(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.KeepAlive = 20 * time.Millisecond })
	nc, err := net.Dial("tcp", ts.addr.String())
	must(t, err)
	defer nc.Close()
	dead := &deafConn{Conn: nc, deaf: make(chan struct{}), closed: make(chan struct{})}
	conn, chans, reqs, err := ssh.NewClientConn(dead, "", ts.clientConfig())
	must(t, err)
	c := ssh.NewClient(conn, chans, reqs)
	close(dead.deaf)
	eventually(t, "the server gives up", func() bool { return strings.Contains(ts.logged(), "msg=logout") })
	close(dead.closed)
	c.Close()
}

// TestLivingClientsStay has a client that is silent but answers.
func TestLivingClientsStay(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.KeepAlive = time.Second })
	nc, err := net.Dial("tcp", ts.addr.String())
	must(t, err)
	conn, chans, reqs, err := ssh.NewClientConn(nc, "", ts.clientConfig())
	must(t, err)
	asked := make(chan struct{}, 100)
	counted := make(chan *ssh.Request)
	go func() {
		defer close(counted)
		for r := range reqs {
			if r.Type == "keepalive@openssh.com" {
				asked <- struct{}{}
			}
			counted <- r
		}
	}()
	c := ssh.NewClient(conn, chans, counted)
	defer c.Close()
	for range 2 {
		select {
		case <-asked:
		case <-time.After(patience):
			t.Fatal("no keepalive")
		}
	}
	if _, err := sftp.NewClient(c); err != nil {
		t.Errorf("after two keepalives: %v", err)
	}
}

// A deafConn stops to read.
type deafConn struct {
	net.Conn
	deaf, closed chan struct{}
}

func (d *deafConn) Read(p []byte) (int, error) {
	select {
	case <-d.deaf:
		<-d.closed
		return 0, io.EOF
	default:
	}
	n, err := d.Conn.Read(p)
	select {
	case <-d.deaf:
		<-d.closed
		return 0, io.EOF
	default:
		return n, err
	}
}

// waitConn waits until the server has ended a connection.
func waitConn(t *testing.T, c *ssh.Client) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		c.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the connection does not end")
	}
}

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// openSSH runs OpenSSH's sftp with a batch of commands, until the time is
// over. Options of ssh follow.
func (e *env) openSSH(ctx context.Context, batch string, options ...string) error {
	host, port, err := net.SplitHostPort(e.in.addr)
	if err != nil {
		return err
	}
	args := []string{"-q", "-F", "none", "-b", "-", "-P", port, "-i", e.key,
		"-o", "IdentitiesOnly=yes", "-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no"}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	_, err = e.command(ctx, batch+"\n", "sftp", append(args, e.user+"@"+host)...)
	return err
}

// dial logs in to the server, with the same algorithms for all.
func (e *env) dial() (*ssh.Client, error) {
	return ssh.Dial("tcp", e.in.addr, &ssh.ClientConfig{
		Config: ssh.Config{
			Ciphers:      []string{cipher},
			KeyExchanges: []string{ssh.KeyExchangeCurve25519},
		},
		User:            e.user,
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(e.signer)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // it is ours, on this machine
		Timeout:         20 * time.Second,
	})
}

// A goClient is the client of pkg/sftp, set to do what it can at once.
type goClient struct {
	*sftp.Client
	conn *ssh.Client
}

func (e *env) goClient() (*goClient, error) {
	conn, err := e.dial()
	if err != nil {
		return nil, err
	}
	c, err := sftp.NewClient(conn, sftp.UseConcurrentReads(true), sftp.UseConcurrentWrites(true), sftp.MaxConcurrentRequestsPerFile(64))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &goClient{c, conn}, nil
}

func (c *goClient) close() {
	c.Client.Close()
	c.conn.Close()
}

// A rawClient speaks the SFTP protocol packet by packet, so that the client
// is no bottleneck.
type rawClient struct {
	conn *ssh.Client
	ch   ssh.Channel
	r    *bufio.Reader
	buf  []byte
}

const lstatWindow = 128 // requests under way

// Numbers of the protocol, version 3.
const (
	fxpInit    = 1
	fxpVersion = 2
	fxpClose   = 4
	fxpLstat   = 7
	fxpOpendir = 11
	fxpReaddir = 12
	fxpStatus  = 101
	fxpHandle  = 102
	fxpName    = 104
	fxpAttrs   = 105
)

func (e *env) rawClient() (*rawClient, error) {
	conn, err := e.dial()
	if err != nil {
		return nil, err
	}
	c := &rawClient{conn: conn}
	if err := c.begin(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// begin starts the subsystem.
func (c *rawClient) begin() error {
	ch, requests, err := c.conn.OpenChannel("session", nil)
	if err != nil {
		return err
	}
	go ssh.DiscardRequests(requests)
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("no sftp subsystem")
	}
	c.ch, c.r = ch, bufio.NewReaderSize(ch, 64<<10)
	if err := c.send(fxpInit, 3, nil); err != nil {
		return err
	}
	_, err = c.expect(fxpVersion)
	return err
}

func (c *rawClient) close() { c.conn.Close() }

// send sends a packet: its type, its id (or, of INIT, the version), and a
// string if there is one.
func (c *rawClient) send(kind byte, id uint32, text []byte) error {
	n := 5
	if text != nil {
		n += 4 + len(text)
	}
	b := append(make([]byte, 0, 4+n), 0, 0, 0, 0, kind)
	binary.BigEndian.PutUint32(b, uint32(n))
	b = binary.BigEndian.AppendUint32(b, id)
	if text != nil {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	_, err := c.ch.Write(b)
	return err
}

// receive returns the type and the rest of a packet, which is valid until the
// next one.
func (c *rawClient) receive() (kind byte, rest []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:])) - 1
	if n < 4 || n > 1<<20 {
		return 0, nil, fmt.Errorf("packet of %d bytes", n)
	}
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	_, err = io.ReadFull(c.r, c.buf)
	return head[4], c.buf, err
}

// expect receives a packet of a type, and returns what follows the id.
func (c *rawClient) expect(kind byte) ([]byte, error) {
	got, rest, err := c.receive()
	if err != nil {
		return nil, err
	}
	if got != kind {
		return nil, fmt.Errorf("packet of type %d instead of %d: %q", got, kind, rest)
	}
	return rest[4:], nil
}

// lstats asks for the attributes of names, many requests under way at once,
// until done says so. It returns how many answers have come.
func (c *rawClient) lstats(names [][]byte, done func() bool) (int, error) {
	tokens := make(chan struct{}, lstatWindow)
	failed := make(chan error, 1)
	go func() {
		defer close(tokens)
		for i, name := range names {
			if done() {
				return
			}
			tokens <- struct{}{}
			if err := c.send(fxpLstat, uint32(i), name); err != nil {
				failed <- err
				return
			}
		}
	}()
	n := 0
	for range tokens { // each is a request that was sent, or is about to be
		if _, err := c.expect(fxpAttrs); err != nil {
			c.close() // ends the sender
			for range tokens {
			}
			return n, err
		}
		n++
	}
	select {
	case err := <-failed:
		return n, err
	default:
		return n, nil
	}
}

// list lists a directory and returns the number of its entries.
func (c *rawClient) list(dir string) (int, error) {
	if err := c.send(fxpOpendir, 0, []byte(dir)); err != nil {
		return 0, err
	}
	handle, err := c.expect(fxpHandle)
	if err != nil {
		return 0, err
	}
	handle = append([]byte(nil), handle[4:]...)
	n := 0
	for {
		if err := c.send(fxpReaddir, 0, handle); err != nil {
			return 0, err
		}
		kind, rest, err := c.receive()
		if err != nil {
			return 0, err
		}
		if kind != fxpName {
			break
		}
		n += int(binary.BigEndian.Uint32(rest[4:]))
	}
	if err := c.send(fxpClose, 0, handle); err != nil {
		return 0, err
	}
	_, err = c.expect(fxpStatus)
	return n, err
}

// Package sshdial connects to an upstream by SSH, as ssh(1) would: it honours
// ssh_config (Host, HostName, Port, User, IdentityFile, IdentitiesOnly,
// IdentityAgent, UserKnownHostsFile, GlobalKnownHostsFile, HostKeyAlias,
// HashKnownHosts, StrictHostKeyChecking, ProxyJump, ProxyCommand,
// ConnectTimeout), checks
// host keys against known_hosts, and logs in with the keys of the agent, key
// files, or what the user is asked for. Only modern algorithms are offered.
package sshdial

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sftpbridge/bridge/sftpfs"
)

// Options are what the command line says beside ssh_config. The zero value is
// useful.
type Options struct {
	// ConfigFile is read instead of ~/.ssh/config and /etc/ssh/ssh_config;
	// "none" is no file at all.
	ConfigFile string
	// IdentityFiles are tried before those of the configuration.
	IdentityFiles []string
	// KnownHosts, if given, is read instead of the files of the configuration.
	KnownHosts string
	// AcceptNewHostKeys adds the key of a host that is not known to the first
	// known_hosts file. A key that has changed is refused all the same.
	AcceptNewHostKeys bool
	// Prompt asks the user for a password or passphrase. Nil asks nobody.
	Prompt func(ctx context.Context, question string, echo bool) (string, error)
	// Timeout is for the connection and the handshake of each host, without
	// what the user takes to answer; 0 is the configuration's ConnectTimeout,
	// or 30 seconds.
	Timeout time.Duration
}

// New returns a Dialer to target, which is [user@]host[:port] with a host or
// an alias of ssh_config. What the configuration says is read once, now; keys
// and known_hosts at each connection. Passwords that were good and keys
// that were unlocked are kept for the next one.
func New(target string, opt Options) (sftpfs.Dialer, error) {
	t, err := ParseTarget(target)
	if err != nil {
		return nil, err
	}
	hops, err := resolve(t, opt)
	if err != nil {
		return nil, err
	}
	d := &dialer{opt: opt, hops: hops, secrets: make(map[string]string), unlocked: make(map[string]ssh.Signer)}
	return d.dial, nil
}

// A dialer connects through its hops; the last is the upstream.
type dialer struct {
	opt  Options
	hops []hop

	mu       sync.Mutex
	secrets  map[string]string     // answers that were good, by question; guarded by mu
	unlocked map[string]ssh.Signer // keys that had a passphrase, by public key; guarded by mu

	asking   sync.Mutex // held while the user is asked
	hostKeys sync.Mutex // held while a known_hosts file is changed
}

// dial connects.
func (d *dialer) dial(ctx context.Context) (sftpfs.Transport, error) {
	t := &transport{}
	for _, h := range d.hops {
		c, err := d.connect(ctx, t, h)
		if err != nil {
			t.Close()
			return nil, err
		}
		t.clients = append(t.clients, c)
	}
	return t, nil
}

// connect connects to one host, through the last of those before it.
func (d *dialer) connect(ctx context.Context, t *transport, h hop) (*ssh.Client, error) {
	timeout := h.timeout
	dctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := t.connect(dctx, h)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", h, err)
	}
	w := watch(ctx, conn, timeout)
	c, err := d.handshake(ctx, w, conn, h)
	if late := w.stop(); late != nil && err != nil {
		err = fmt.Errorf("cannot connect to %s: %w", h, late)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// handshake checks the host key and logs in.
func (d *dialer) handshake(ctx context.Context, w *watchdog, conn net.Conn, h hop) (*ssh.Client, error) {
	known, err := d.known(h)
	if err != nil {
		return nil, err
	}
	login := &login{d: d, h: h, ctx: ctx, w: w}
	methods, done := login.methods()
	defer done()
	algos := ssh.SupportedAlgorithms()
	config := &ssh.ClientConfig{
		Config:            ssh.Config{KeyExchanges: algos.KeyExchanges, Ciphers: algos.Ciphers, MACs: algos.MACs},
		User:              h.user,
		Auth:              methods,
		HostKeyCallback:   known.check,
		HostKeyAlgorithms: known.algorithms(algos.HostKeys),
		ClientVersion:     "SSH-2.0-sftpbridge",
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, h.addr(), config)
	if err != nil {
		return nil, login.explain(known.explain(err))
	}
	login.keep()
	return ssh.NewClient(c, chans, reqs), nil
}

package sftpsrv

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"sftpbridge/bridge"
)

// DefaultVersion is what a Server says of itself. Clients choose by it in
// which order they send the two paths of SYMLINK, and OpenSSH's order, which is
// ours, is sent by WinSCP only to names that begin with "OpenSSH", by libssh
// only if a version number follows.
const DefaultVersion = "SSH-2.0-OpenSSH_9.9 sftpbridge"

// A Config is what a Server needs to know.
type Config struct {
	// HostKeys are the keys of the server, one of each type: Ed25519, and
	// RSA or ECDSA beside it for older clients.
	HostKeys []ssh.Signer
	// Version is the identification string; "" is DefaultVersion.
	Version string
	// Banner is shown to users before they log in.
	Banner string

	// PublicKey decides whether user may log in with key from remote. The
	// client may yet fail to prove that it has the key, so it must not change
	// any state. nil does not offer public keys. Certificates come as
	// *ssh.Certificate.
	PublicKey func(ctx context.Context, user string, key ssh.PublicKey, remote net.Addr) (Login, error)
	// Password decides whether user may log in with password from remote.
	// nil does not offer passwords.
	Password func(ctx context.Context, user string, password []byte, remote net.Addr) (Login, error)
	// NewSession begins an SFTP session of a user who has logged in. Its
	// context ends with the session.
	NewSession func(ctx context.Context, info SessionInfo) (Session, error)

	Algorithms Algorithms // DefaultAlgorithms, if it has no Ciphers

	LoginGrace     time.Duration // to log in; 0 is a minute
	LoginPenalty   time.Duration // for an address that failed to, the first time; 0 is 5 seconds, negative none
	IdleTimeout    time.Duration // without any request; 0 is none
	KeepAlive      time.Duration // silence until a client is asked whether it lives; 0 is a minute, negative never
	MaxAuthTries   int           // 0 is 6
	MaxSessions    int           // on one connection; 0 is 10
	MaxConnections int           // 0 is 1000
	MaxPerAddress  int           // 0 is a quarter of MaxConnections, but not less than 10
	MaxStartups    int           // connections that have not logged in; 0 is 100
	// MaxStartupsPerAddress is how many of MaxStartups may be of one address;
	// 0 is a quarter, but not less than 10.
	MaxStartupsPerAddress int

	Logger *slog.Logger
}

// A Login is what authentication found out.
type Login struct {
	Avatar string // the name of the user in the realm
	Key    string // what the user showed, for the log
}

// SessionInfo tells of the session that begins.
type SessionInfo struct {
	Login
	User          string // as the client gave it
	Method        string // "publickey" or "password"
	Remote, Local net.Addr
	ClientVersion string
	Env           map[string]string // empty: none is accepted
}

// A Session is what NewSession made.
type Session struct {
	Server  bridge.Server
	Options SessionOptions
	Close   func() // called after the session; may be nil
}

// A Server is an SSH server that serves SFTP.
type Server struct {
	cfg    Config
	ssh    *ssh.ServerConfig
	limits *limits
	log    *slog.Logger
}

// minRSA is the smallest RSA key that may log in.
const minRSA = 2048

// New returns a server. It has to have a host key, a way to log in and
// NewSession.
func New(cfg Config) (*Server, error) {
	switch {
	case len(cfg.HostKeys) == 0:
		return nil, errors.New("sftpsrv: no host key")
	case cfg.PublicKey == nil && cfg.Password == nil:
		return nil, errors.New("sftpsrv: no way to log in")
	case cfg.NewSession == nil:
		return nil, errors.New("sftpsrv: no NewSession")
	}
	cfg.setDefaults()
	s := &Server{cfg: cfg, limits: newLimits(&cfg), log: cfg.Logger}
	s.ssh = &ssh.ServerConfig{
		Config: ssh.Config{
			KeyExchanges: cfg.Algorithms.KeyExchanges,
			Ciphers:      cfg.Algorithms.Ciphers,
			MACs:         cfg.Algorithms.MACs,
		},
		PublicKeyAuthAlgorithms: cfg.Algorithms.PublicKeys,
		MaxAuthTries:            cfg.MaxAuthTries,
		ServerVersion:           cfg.Version,
	}
	if cfg.Banner != "" {
		s.ssh.BannerCallback = func(ssh.ConnMetadata) string { return cfg.Banner }
	}
	for _, key := range cfg.HostKeys {
		key, err := hostKey(key, cfg.Algorithms.RSAHostKeys)
		if err != nil {
			return nil, err
		}
		s.ssh.AddHostKey(key)
	}
	return s, nil
}

func (c *Config) setDefaults() {
	def := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	def(&c.MaxAuthTries, 6)
	def(&c.MaxSessions, 10)
	def(&c.MaxConnections, 1000)
	def(&c.MaxPerAddress, max(c.MaxConnections/4, 10))
	def(&c.MaxStartups, 100)
	def(&c.MaxStartupsPerAddress, max(c.MaxStartups/4, 10))
	if c.LoginGrace <= 0 {
		c.LoginGrace = time.Minute
	}
	if c.LoginPenalty == 0 {
		c.LoginPenalty = 5 * time.Second
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = time.Minute
	}
	if c.Version == "" {
		c.Version = DefaultVersion
	}
	if len(c.Algorithms.Ciphers) == 0 {
		c.Algorithms = DefaultAlgorithms()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// hostKey has an RSA key sign with the given algorithms only.
func hostKey(key ssh.Signer, rsaAlgorithms []string) (ssh.Signer, error) {
	if key.PublicKey().Type() != ssh.KeyAlgoRSA {
		return key, nil
	}
	s, ok := key.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("sftpsrv: the RSA host key can sign with SHA-1 only")
	}
	limited, err := ssh.NewSignerWithAlgorithms(s, rsaAlgorithms)
	if err != nil {
		return nil, fmt.Errorf("sftpsrv: RSA host key: %w", err)
	}
	return limited, nil
}

// weakKey reports whether a key is an RSA key that is too short.
func weakKey(key ssh.PublicKey) bool {
	if cert, ok := key.(*ssh.Certificate); ok {
		return weakKey(cert.Key) || weakKey(cert.SignatureKey)
	}
	c, ok := key.(ssh.CryptoPublicKey)
	if !ok {
		return false
	}
	k, ok := c.CryptoPublicKey().(*rsa.PublicKey)
	return ok && k.N.BitLen() < minRSA
}

// Serve takes connections from ln until ctx ends, which is no error. Then it
// ends all connections, and returns when they have ended. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()

	for wait := time.Duration(0); ; {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // as a rule there are no descriptors left
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.Error("accepting connections", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			continue
		}
		wait = 0
		src := source(c.RemoteAddr())
		if refused := s.limits.admit(src, time.Now()); refused != "" {
			s.log.Warn("connection refused", "remote", addrString(c.RemoteAddr()), "reason", refused)
			c.Close()
			continue
		}
		wg.Go(func() {
			defer s.limits.release(src)
			s.serveConn(ctx, c)
		})
	}
}

func addrString(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

package sftpsrv

import (
	"context"
	"errors"

	"golang.org/x/crypto/ssh"
)

var errWeakKey = errors.New("the RSA key is too short")

// loginKey is under what the Permissions of a connection hold its Login.
type loginKey struct{}

// A loginData is what they hold: it belongs to the key that was proved, since
// package ssh hands the Permissions of that one to the connection.
type loginData struct {
	Login
	method string
}

func permissions(l Login, method string) *ssh.Permissions {
	return &ssh.Permissions{ExtraData: map[any]any{loginKey{}: loginData{l, method}}}
}

func loginOf(p *ssh.Permissions) (Login, string) {
	d, _ := p.ExtraData[loginKey{}].(loginData)
	return d.Login, d.method
}

// authConfig is the configuration of one connection, whose end ends what its
// authentication waits for.
func (s *Server) authConfig(ctx context.Context) *ssh.ServerConfig {
	cfg := *s.ssh
	if s.cfg.PublicKey != nil {
		cfg.PublicKeyCallback = func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if weakKey(key) {
				return nil, errWeakKey
			}
			l, err := s.cfg.PublicKey(ctx, c.User(), key, c.RemoteAddr())
			if err != nil {
				return nil, err
			}
			if l.Key == "" {
				l.Key = keyName(key)
			}
			return permissions(l, "publickey"), nil
		}
	}
	if s.cfg.Password != nil {
		cfg.PasswordCallback = func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			l, err := s.cfg.Password(ctx, c.User(), password, c.RemoteAddr())
			if err != nil {
				return nil, err
			}
			return permissions(l, "password"), nil
		}
	}
	return &cfg
}

// keyName names a key in the log: its fingerprint, of a certificate its id too.
func keyName(key ssh.PublicKey) string {
	if cert, ok := key.(*ssh.Certificate); ok {
		return "certificate " + cert.KeyId + " of " + ssh.FingerprintSHA256(cert.SignatureKey)
	}
	return ssh.FingerprintSHA256(key)
}

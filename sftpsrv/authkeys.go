package sftpsrv

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// The reasons why a key is refused.
var (
	ErrKeyUnknown = errors.New("the key is not known")
	ErrKeyFrom    = errors.New("the key may not be used from this address")
	ErrKeyExpired = errors.New("the key has expired")
)

// AuthorizedKeys are the keys that may log in as one user, in the form of
// sshd's authorized_keys: with the options restrict, from=, expiry-time=,
// cert-authority and principals=. A line with an option that would restrict
// the key in a way that is not supported, such as command=, is left out.
type AuthorizedKeys struct {
	keys []authorizedKey
}

type authorizedKey struct {
	blob    []byte // as Marshal gives it
	options keyOptions
}

// ParseAuthorizedKeys takes a file apart. The errors are of lines that were
// left out.
func ParseAuthorizedKeys(data []byte) (*AuthorizedKeys, []error) {
	var list AuthorizedKeys
	var bad []error
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			bad = append(bad, fmt.Errorf("line %d: no key: %w", n, err))
			continue
		}
		o, err := parseKeyOptions(options)
		if err != nil {
			bad = append(bad, fmt.Errorf("line %d: %w", n, err))
			continue
		}
		list.keys = append(list.keys, authorizedKey{key.Marshal(), o})
	}
	return &list, bad
}

// Check returns nil if key, which may be a certificate, may log in as user
// from remote at the time now.
func (a *AuthorizedKeys) Check(user string, key ssh.PublicKey, remote net.Addr, now time.Time) error {
	cert, _ := key.(*ssh.Certificate)
	blob := key.Marshal()
	if cert != nil {
		blob = cert.SignatureKey.Marshal()
	}
	refused := ErrKeyUnknown
	for _, k := range a.keys {
		if k.options.authority != (cert != nil) || !bytes.Equal(k.blob, blob) {
			continue
		}
		err := k.options.check(remote, now)
		if err == nil && cert != nil {
			principals := k.options.principals
			if principals == nil {
				principals = []string{user}
			}
			err = checkCertificate(cert, principals, remote, now)
		}
		if err == nil {
			return nil
		}
		refused = err
	}
	return refused
}

// check decides by what is not of certificates.
func (o *keyOptions) check(remote net.Addr, now time.Time) error {
	if !o.expires.IsZero() && now.After(o.expires) {
		return ErrKeyExpired
	}
	if o.from != nil && !matchAddress(o.from, addrOf(remote)) {
		return ErrKeyFrom
	}
	return nil
}

// An AuthorizedKeysFile is a file of authorized keys, which is read again when
// it has changed.
type AuthorizedKeysFile struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	seen fs.FileInfo // when it was read
	keys *AuthorizedKeys

	// guarded by mu
}

// maxKeysFile is how large a file of keys may be.
const maxKeysFile = 16 << 20

// OpenAuthorizedKeys returns the keys in a file, which must be there.
func OpenAuthorizedKeys(path string, log *slog.Logger) (*AuthorizedKeysFile, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &AuthorizedKeysFile{path: path, log: log}
	if _, err := f.Keys(); err != nil {
		return nil, err
	}
	return f, nil
}

// Keys returns what the file says now. It is an error if others may write it.
func (f *AuthorizedKeysFile) Keys() (*AuthorizedKeys, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%s may be written by anybody", f.path)
	}
	if f.keys != nil && os.SameFile(fi, f.seen) && fi.Size() == f.seen.Size() && fi.ModTime().Equal(f.seen.ModTime()) {
		return f.keys, nil
	}
	data, err := io.ReadAll(io.LimitReader(file, maxKeysFile))
	if err != nil {
		return nil, err
	}
	keys, bad := ParseAuthorizedKeys(data)
	for _, err := range bad {
		f.log.Warn("authorized key left out", "file", f.path, "err", err)
	}
	f.keys, f.seen = keys, fi
	return keys, nil
}

// Check is that of the keys that the file holds now.
func (f *AuthorizedKeysFile) Check(user string, key ssh.PublicKey, remote net.Addr) error {
	keys, err := f.Keys()
	if err != nil {
		return err
	}
	return keys.Check(user, key, remote, time.Now())
}

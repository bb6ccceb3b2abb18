package sshdial

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// A HostKeyError says that the host did not show a key that is known to be its.
type HostKeyError struct {
	Host        string
	Fingerprint string   // SHA256 of the key that it showed, "" if it showed none
	KeyType     string   // ssh-ed25519, …
	Files       []string // the known_hosts files that were read
	Known       []string // "file:line: type fingerprint" of the keys that it should have; none if it is not known
	Revoked     bool
}

func (e *HostKeyError) Error() string {
	shown := e.KeyType + " " + e.Fingerprint
	switch {
	case e.Revoked:
		return fmt.Sprintf("host key refused: %s shows the key %s, which %s says is revoked", e.Host, shown, strings.Join(e.Known, ", "))
	case len(e.Known) == 0:
		return fmt.Sprintf("host key refused: %s is not known; it shows the key %s, and no line of %s is about it. "+
			"Compare the fingerprint with the host's own (ssh-keygen -lf), then connect once with --accept-new-host-keys",
			e.Host, shown, strings.Join(e.Files, ", "))
	case e.Fingerprint == "":
		return fmt.Sprintf("host key refused: %s does not have the key that is known of it (%s)", e.Host, strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("host key refused: the key of %s has CHANGED to %s; known is %s. "+
		"Somebody may be listening in. If the host was installed anew, remove that line", e.Host, shown, strings.Join(e.Known, ", "))
}

// known are the keys that are known of a host.
type known struct {
	d     *dialer
	h     hop
	db    *knownhosts.HostKeyDB
	files []string // that are there
}

// known reads the known_hosts files of h that are there.
func (d *dialer) known(h hop) (*known, error) {
	k := &known{d: d, h: h}
	for _, f := range h.knownHosts {
		if st, err := os.Stat(f); err == nil && !st.IsDir() {
			k.files = append(k.files, f)
		}
	}
	db, err := knownhosts.NewDB(k.files...)
	if err != nil {
		return nil, fmt.Errorf("known_hosts: %w", err)
	}
	k.db = db
	return k, nil
}

// algorithms returns those of all that the keys known of the host can do. A
// host that is not known is asked for a plain key: it could not be known by a
// certificate, nor be added.
func (k *known) algorithms(all []string) []string {
	can := k.db.HostKeyAlgorithms(k.h.knownName())
	if len(can) == 0 {
		return slices.DeleteFunc(all, func(a string) bool { return strings.Contains(a, "-cert-") })
	}
	modern := slices.DeleteFunc(slices.Clone(can), func(a string) bool { return !slices.Contains(all, a) })
	if len(modern) == 0 {
		return can[:1] // the handshake fails, and explain says why
	}
	return modern
}

// check is the ssh.HostKeyCallback.
func (k *known) check(_ string, remote net.Addr, key ssh.PublicKey) error {
	err := k.db.HostKeyCallback()(k.h.knownName(), hostAddr(remote), key)
	if err == nil {
		return nil
	}
	e := &HostKeyError{Host: k.h.String(), Fingerprint: ssh.FingerprintSHA256(key), KeyType: key.Type(), Files: k.h.knownHosts}
	var revoked *xknownhosts.RevokedError
	var unknown *xknownhosts.KeyError
	switch {
	case errors.As(err, &revoked):
		e.Revoked = true
		e.Known = describe([]xknownhosts.KnownKey{revoked.Revoked})
		return e
	case !errors.As(err, &unknown):
		return fmt.Errorf("host key of %s refused: %w", k.h, err)
	}
	if e.Known = describe(unknown.Want); len(e.Known) > 0 || !k.h.acceptNew {
		return e
	}
	if _, cert := key.(*ssh.Certificate); cert {
		return e
	}
	return k.add(key)
}

// hostAddr returns an address that is in no known_hosts file: a host is known
// by its name, as with CheckHostIP=no, so that one behind a jump host, whose
// address nobody here knows, is treated as all others.
func hostAddr(net.Addr) net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 22} }

func describe(keys []xknownhosts.KnownKey) []string {
	var s []string
	for _, k := range keys {
		s = append(s, fmt.Sprintf("%s:%d: %s %s", k.Filename, k.Line, k.Key.Type(), ssh.FingerprintSHA256(k.Key)))
	}
	return s
}

// add appends the key of a host that is not known to the first known_hosts
// file, unless another connection has done so meanwhile.
func (k *known) add(key ssh.PublicKey) error {
	k.d.hostKeys.Lock()
	defer k.d.hostKeys.Unlock()
	again, err := k.d.known(k.h)
	if err != nil {
		return err
	}
	name := k.h.knownName()
	if len(again.db.HostKeys(name)) > 0 {
		return again.db.HostKeyCallback()(name, hostAddr(nil), key)
	}
	file := k.h.knownHosts[0]
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("known_hosts: %w", err)
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("known_hosts: %w", err)
	}
	defer f.Close()
	host := knownhosts.Normalize(name)
	if k.h.hash {
		host = xknownhosts.HashHostname(host)
	}
	line := knownhosts.Line([]string{host}, key) + "\n"
	if k.h.hash {
		line = host + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + "\n"
	}
	if !endsLine(f) {
		line = "\n" + line
	}
	if _, err := f.WriteString(line); err != nil {
		return fmt.Errorf("known_hosts: %w", err)
	}
	return nil
}

// endsLine reports whether f is empty or ends with the end of a line.
func endsLine(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return true
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], st.Size()-1)
	return err != nil || b[0] == '\n'
}

// explain turns the error of a handshake that found no common type of host key
// into one that says which are known.
func (k *known) explain(err error) error {
	var none *ssh.AlgorithmNegotiationError
	var host *HostKeyError
	if errors.As(err, &host) {
		return host
	}
	if !errors.As(err, &none) || none.What != "host key" {
		return err
	}
	keys := k.db.HostKeys(k.h.knownName())
	if len(keys) == 0 {
		return err
	}
	var unknown *xknownhosts.KeyError
	if !errors.As(k.db.HostKeyCallback()(k.h.knownName(), hostAddr(nil), noKey{}), &unknown) {
		return err
	}
	return &HostKeyError{Host: k.h.String(), Files: k.h.knownHosts, Known: describe(unknown.Want)}
}

// noKey is a key that no host has.
type noKey struct{}

func (noKey) Type() string                            { return "none" }
func (noKey) Marshal() []byte                         { return []byte("none") }
func (noKey) Verify(_ []byte, _ *ssh.Signature) error { return errors.New("no key") }

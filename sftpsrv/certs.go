package sftpsrv

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// A UserCA is a set of keys whose certificates may log in.
type UserCA struct {
	keys []ssh.PublicKey
}

// ParseUserCA takes the keys of a file with one on each line, as
// TrustedUserCAKeys of sshd has it.
func ParseUserCA(data []byte) (*UserCA, error) {
	var ca UserCA
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, options, _, err := ssh.ParseAuthorizedKey(line)
		switch {
		case err != nil:
			return nil, fmt.Errorf("line %d: no key: %w", n, err)
		case len(options) > 0:
			return nil, fmt.Errorf("line %d: no options are known here", n)
		}
		ca.keys = append(ca.keys, key)
	}
	if len(ca.keys) == 0 {
		return nil, errors.New("no key")
	}
	return &ca, nil
}

// Check returns nil if key is a certificate of the authority for user, or for
// one of the principals if there are any, that may be used from remote at the
// time now.
func (ca *UserCA) Check(user string, key ssh.PublicKey, remote net.Addr, now time.Time, principals ...string) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return ErrKeyUnknown
	}
	blob := cert.SignatureKey.Marshal()
	if !slices.ContainsFunc(ca.keys, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), blob) }) {
		return ErrKeyUnknown
	}
	if len(principals) == 0 {
		principals = []string{user}
	}
	return checkCertificate(cert, principals, remote, now)
}

// The critical options of certificates that are known.
const (
	sourceAddress = "source-address"
	forceCommand  = "force-command"
)

// checkCertificate checks all of a certificate but whether its signer is
// trusted: type, principals, validity, critical options, signature.
func checkCertificate(cert *ssh.Certificate, principals []string, remote net.Addr, now time.Time) error {
	if cert.CertType != ssh.UserCert {
		return errors.New("the certificate is not of a user")
	}
	if cert.Signature == nil || cert.Signature.Format == ssh.KeyAlgoRSA {
		return errors.New("the certificate is signed with SHA-1")
	}
	i := slices.IndexFunc(principals, func(p string) bool { return slices.Contains(cert.ValidPrincipals, p) })
	if i < 0 {
		return errors.New("the certificate is for other principals")
	}
	if list, ok := cert.CriticalOptions[sourceAddress]; ok {
		networks := strings.Split(list, ",")
		if slices.ContainsFunc(networks, notNetwork) || !matchAddress(networks, addrOf(remote)) {
			return ErrKeyFrom
		}
	}
	if cmd, ok := cert.CriticalOptions[forceCommand]; ok && cmd != "internal-sftp" {
		return errors.New("the certificate is for a command only")
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{sourceAddress, forceCommand},
		Clock:                    func() time.Time { return now },
	}
	return checker.CheckCert(principals[i], cert)
}

// notNetwork reports whether s is neither an address nor a network: there are
// no patterns in a certificate.
func notNetwork(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	p, err := netip.ParsePrefix(s)
	return err != nil || p != p.Masked()
}

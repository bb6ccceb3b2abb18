package sftpsrv

import (
	"crypto/rand"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// FuzzAuthorizedKeys has a file of keys be anything: no key gets in that is not
// in it, or only after an option that restricts it and is not known.
func FuzzAuthorizedKeys(f *testing.F) {
	key := newKey(f).PublicKey()
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	for _, options := range []string{
		"", `from="192.0.2.0/24,!192.0.2.7" `, `expiry-time="20200101" `, "restrict,pty ", `command="x y" `, `principals="u,v",cert-authority `,
		`environment="A=\"b,c" `, "no-such-option ", `from="`, `from="*",from="10.*" `,
	} {
		f.Add(options, "comment")
	}
	stranger := newKey(f).PublicKey()
	cert := &ssh.Certificate{Key: stranger, CertType: ssh.UserCert, ValidPrincipals: []string{"u"}, ValidBefore: ssh.CertTimeInfinity}
	if err := cert.SignCert(rand.Reader, newKey(f)); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, options, comment string) {
		keys, _ := ParseAuthorizedKeys([]byte(options + line + " " + comment + "\n"))
		from := addr("198.51.100.1")
		if keys.Check("u", stranger, from, time.Now()) == nil {
			t.Error("a stranger gets in")
		}
		if keys.Check("u", cert, from, time.Now()) == nil {
			t.Error("a certificate of a stranger gets in")
		}
		_ = keys.Check("u", key, nil, time.Now())
	})
}

// FuzzCertificateOptions has the critical options of a certificate be anything.
func FuzzCertificateOptions(f *testing.F) {
	signer := newKey(f)
	ca, err := ParseUserCA(ssh.MarshalAuthorizedKey(signer.PublicKey()))
	if err != nil {
		f.Fatal(err)
	}
	user := newKey(f).PublicKey()
	f.Add("source-address", "192.0.2.0/24,2001:db8::/32")
	f.Add("source-address", "0.0.0.0/0")
	f.Add("source-address", "*")
	f.Add("force-command", "internal-sftp")
	f.Add("force-command", "/bin/sh")
	f.Add("verify-required", "")
	f.Fuzz(func(t *testing.T, name, value string) {
		cert := &ssh.Certificate{
			Key: user, CertType: ssh.UserCert, ValidPrincipals: []string{"u"}, ValidBefore: ssh.CertTimeInfinity,
			Permissions: ssh.Permissions{CriticalOptions: map[string]string{name: value}},
		}
		if err := cert.SignCert(rand.Reader, signer); err != nil {
			t.Skip(err)
		}
		err := ca.Check("u", cert, addr("198.51.100.1"), time.Now())
		if err == nil && name != "source-address" && !(name == "force-command" && value == "internal-sftp") {
			t.Errorf("%q %q is let in", name, value)
		}
		if ca.Check("v", cert, addr("198.51.100.1"), time.Now()) == nil {
			t.Error("let in as another user")
		}
	})
}

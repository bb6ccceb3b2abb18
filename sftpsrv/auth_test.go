package sftpsrv

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func addr(ip string) net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 1234))
}

func keyLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

func TestAuthorizedKeysOptions(t *testing.T) {
	key, other := newKey(t).PublicKey(), newKey(t).PublicKey()
	now := time.Date(2024, 5, 6, 12, 0, 0, 0, time.UTC)
	const lan, wan = "10.1.2.3", "203.0.113.9"
	tests := []struct {
		options string
		from    string
		ok      bool
	}{
		{"", wan, true},
		{"restrict ", wan, true},
		{"RESTRICT,pty,no-X11-forwarding ", wan, true},
		{`from="10.0.0.0/8" `, lan, true},
		{`from="10.0.0.0/8" `, wan, false},
		{`from="10.0.0.0/8" `, "::ffff:10.1.1.1", true},
		{`from="10.1.2.3" `, lan, true},
		{`from="10.1.2.?" `, lan, true},
		{`from="10.1.*,203.*" `, wan, true},
		{`from="*,!10.1.2.3" `, lan, false},
		{`from="!10.1.2.3,*" `, lan, false},
		{`from="*,!10.1.2.0/24" `, wan, true},
		{`from="!10.1.2.0/24" `, wan, false},
		{`from="2001:db8::/32" `, "2001:db8::1", true},
		{`from="2001:db8::/32" `, "2001:db9::1", false},
		{`from="example.com" `, wan, false},
		{`from="10.1.2.3/8" `, lan, false}, // no network: left out
		{`from="" `, lan, false},
		{`expiry-time="20240506Z" `, wan, false},
		{`expiry-time="20240507Z" `, wan, true},
		{`expiry-time="202405061201Z" `, wan, true},
		{`expiry-time="20240506115959Z" `, wan, false},
		{`expiry-time="20240507Z",expiry-time="20240101Z" `, wan, false},
		{`expiry-time="soon" `, wan, false},
		{`command="internal-sftp" `, wan, true},
		{`command="internal-sftp -R" `, wan, false},
		{`command="/bin/date" `, wan, false},
		{`permitopen="host:22",environment="A=b" `, wan, true},
		{`verify-required `, wan, false},
		{`some-new-option `, wan, false},
		{`restrict="yes" `, wan, false},
		{`cert-authority `, wan, false}, // the key itself may not log in
		{`principals="u" `, wan, true},
		{`from=10.0.0.0/8 `, lan, false}, // no quotes
	}
	for _, tt := range tests {
		file := "# a comment\n\n" + keyLine(other) + " other\r\n" + tt.options + keyLine(key) + " a comment\n"
		keys, bad := ParseAuthorizedKeys([]byte(file))
		err := keys.Check("u", key, addr(tt.from), now)
		if (err == nil) != tt.ok {
			t.Errorf("%sfrom %s: %v, bad lines %v", tt.options, tt.from, err, bad)
		}
		if err := keys.Check("u", other, addr(tt.from), now); err != nil {
			t.Errorf("%s: the other key: %v", tt.options, err)
		}
		if err := keys.Check("u", newKey(t).PublicKey(), addr(tt.from), now); !errors.Is(err, ErrKeyUnknown) {
			t.Errorf("%s: a key that is not there: %v", tt.options, err)
		}
	}
}

func TestBadLinesAreNamed(t *testing.T) {
	key := newKey(t).PublicKey()
	keys, bad := ParseAuthorizedKeys([]byte("ssh-ed25519 nonsense\n" + keyLine(key) + "\n" + `command="x" ` + keyLine(key) + "\n"))
	if len(keys.keys) != 1 || len(bad) != 2 || !strings.Contains(bad[0].Error(), "line 1:") || !strings.Contains(bad[1].Error(), "line 3:") {
		t.Errorf("%d keys, errors %v", len(keys.keys), bad)
	}
}

func TestAuthorizedKeysFileIsReadAgain(t *testing.T) {
	path := t.TempDir() + "/keys"
	a, b := newKey(t).PublicKey(), newKey(t).PublicKey()
	if _, err := OpenAuthorizedKeys(path, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	must(t, os.WriteFile(path, []byte(keyLine(a)+"\n"), 0o600))
	f, err := OpenAuthorizedKeys(path, nil)
	must(t, err)
	from := addr("10.0.0.1")
	must(t, f.Check("u", a, from))
	must(t, os.WriteFile(path, []byte(keyLine(b)+" comment\n"), 0o600))
	if err := f.Check("u", a, from); !errors.Is(err, ErrKeyUnknown) {
		t.Errorf("a key that was taken out: %v", err)
	}
	must(t, f.Check("u", b, from))
	must(t, os.Chmod(path, 0o666))
	if f.Check("u", b, from) == nil {
		t.Error("a file that anybody may write is believed")
	}
	must(t, os.Remove(path))
	if f.Check("u", b, from) == nil {
		t.Error("a file that is gone is believed")
	}
}

// certFor makes a certificate for key, changed by change before ca signs it.
func certFor(t *testing.T, key ssh.PublicKey, ca ssh.Signer, now time.Time, change func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	cert := &ssh.Certificate{
		Key: key, CertType: ssh.UserCert, KeyId: "id", ValidPrincipals: []string{"u", "admin"},
		ValidAfter: uint64(now.Add(-time.Hour).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix()),
	}
	if change != nil {
		change(cert)
	}
	must(t, cert.SignCert(rand.Reader, ca))
	return cert
}

func TestCertificates(t *testing.T) {
	ca, key := newKey(t), newKey(t).PublicKey()
	now := time.Now()
	authority, err := ParseUserCA([]byte("# ours\n" + keyLine(ca.PublicKey()) + " ca\n"))
	must(t, err)
	critical := func(name, value string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{name: value} }
	}
	tests := []struct {
		name       string
		change     func(*ssh.Certificate)
		user       string
		principals []string
		ok         bool
	}{
		{"good", nil, "u", nil, true},
		{"another user", nil, "v", nil, false},
		{"a principal", nil, "v", []string{"x", "admin"}, true},
		{"another principal", nil, "u", []string{"x"}, false},
		{"host certificate", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "u", nil, false},
		{"expired", func(c *ssh.Certificate) { c.ValidBefore = uint64(now.Add(-time.Minute).Unix()) }, "u", nil, false},
		{"not yet valid", func(c *ssh.Certificate) { c.ValidAfter = uint64(now.Add(time.Minute).Unix()) }, "u", nil, false},
		{"for ever", func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }, "u", nil, true},
		{"from here", critical("source-address", "192.0.2.0/24,10.0.0.1"), "u", nil, true},
		{"from elsewhere", critical("source-address", "192.0.2.0/24"), "u", nil, false},
		{"from a pattern", critical("source-address", "*"), "u", nil, false},
		{"command", critical("force-command", "/bin/sh"), "u", nil, false},
		{"internal-sftp", critical("force-command", "internal-sftp"), "u", nil, true},
		{"unknown option", critical("verify-required", ""), "u", nil, false},
	}
	for _, tt := range tests {
		cert := certFor(t, key, ca, now, tt.change)
		if err := authority.Check(tt.user, cert, addr("10.0.0.1"), now, tt.principals...); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	from := addr("10.0.0.1")
	if authority.Check("u", certFor(t, key, newKey(t), now, nil), from, now) == nil {
		t.Error("a certificate of another authority")
	}
	if authority.Check("u", key, from, now) == nil || authority.Check("u", ca.PublicKey(), from, now) == nil {
		t.Error("a key that is no certificate")
	}
	forged := certFor(t, key, ca, now, nil)
	forged.ValidPrincipals = []string{"root"}
	if authority.Check("root", forged, from, now) == nil {
		t.Error("a certificate that was changed after it was signed")
	}
}

func TestCertAuthorityLines(t *testing.T) {
	ca, key := newKey(t), newKey(t).PublicKey()
	now := time.Now()
	cert := certFor(t, key, ca, now, nil)
	tests := []struct {
		options string
		ok      bool
	}{
		{"", false},
		{"cert-authority ", true},
		{`cert-authority,principals="admin,x" `, true},
		{`cert-authority,principals="x" `, false},
		{`cert-authority,from="192.0.2.0/24" `, false},
		{`cert-authority,expiry-time="20200101" `, false},
	}
	for _, tt := range tests {
		keys, _ := ParseAuthorizedKeys([]byte(tt.options + keyLine(ca.PublicKey())))
		if err := keys.Check("u", cert, addr("10.0.0.1"), now); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.options, err)
		}
	}
}

// TestCertificateLogin logs in with a certificate, by way of a real handshake.
func TestCertificateLogin(t *testing.T) {
	ca := newKey(t)
	authority, err := ParseUserCA([]byte(keyLine(ca.PublicKey())))
	must(t, err)
	ts := startServer(t, func(c *Config) {
		c.PublicKey = func(_ context.Context, user string, key ssh.PublicKey, remote net.Addr) (Login, error) {
			return Login{Avatar: user}, authority.Check(user, key, remote, time.Now())
		}
	})
	for _, tt := range []struct {
		source string
		ok     bool
	}{{"127.0.0.0/8", true}, {"192.0.2.0/24", false}} {
		cert := certFor(t, ts.key.PublicKey(), ca, time.Now(), func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": tt.source}
		})
		signer, err := ssh.NewCertSigner(cert, ts.key)
		must(t, err)
		cfg := ts.clientConfig()
		cfg.Auth = []ssh.AuthMethod{ssh.PublicKeys(signer)}
		c, err := ssh.Dial("tcp", ts.addr.String(), cfg)
		if (err == nil) != tt.ok {
			t.Errorf("from %s: %v", tt.source, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	for bits, weak := range map[int]bool{1024: true, 2048: false} {
		priv, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Skip(err) // the library itself refuses
		}
		key, err := ssh.NewPublicKey(priv.Public())
		must(t, err)
		if got := weakKey(key); got != weak {
			t.Errorf("%d bits: weak %v", bits, got)
		}
	}
}

func TestWildcard(t *testing.T) {
	tests := []struct {
		pattern, s string
		want       bool
	}{
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*c", "abbc", true}, {"a*c", "abbd", false},
		{"*.1", "10.0.0.1", true}, {"10.?.0.1", "10.22.0.1", false}, {"***", "x", true}, {"a*b*c", "aXbYbZc", true},
		{"FE80::*", "fe80::1", true}, {"?", "", false},
	}
	for _, tt := range tests {
		if got := wildcard(tt.pattern, tt.s); got != tt.want {
			t.Errorf("wildcard(%q, %q) = %v", tt.pattern, tt.s, got)
		}
	}
}

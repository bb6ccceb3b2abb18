package sftpsrv

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestAlgorithms(t *testing.T) {
	a := DefaultAlgorithms()
	insecure := ssh.InsecureAlgorithms()
	bad := append(insecure.KeyExchanges, insecure.Ciphers...)
	bad = append(bad, insecure.MACs...)
	bad = append(bad, insecure.PublicKeyAuths...)
	bad = append(bad, ssh.HMACSHA1)
	all := append(append(append(append([]string{}, a.KeyExchanges...), a.Ciphers...), a.MACs...), a.PublicKeys...)
	for _, name := range all {
		for _, b := range bad {
			if name == b {
				t.Errorf("%s is offered", name)
			}
		}
	}
	for _, want := range []string{"mlkem768x25519-sha256", "curve25519-sha256", "ecdh-sha2-nistp256",
		"diffie-hellman-group14-sha256", "aes128-gcm@openssh.com", "aes256-ctr", "hmac-sha2-256",
		"ssh-ed25519", "rsa-sha2-512"} {
		if !strings.Contains(" "+strings.Join(all, " ")+" ", " "+want+" ") {
			t.Errorf("%s is not offered", want)
		}
	}
}

// TestOldAlgorithmsAreRefused logs in with one cipher, key exchange or MAC only.
func TestOldAlgorithmsAreRefused(t *testing.T) {
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ec, err := ssh.NewSignerFromKey(ecKey)
	must(t, err)
	ts := startServer(t, func(c *Config) { c.HostKeys = append(c.HostKeys, ec) })
	tests := []struct {
		change func(*ssh.ClientConfig)
		ok     bool
	}{
		{func(c *ssh.ClientConfig) { c.Ciphers = []string{"aes128-ctr"}; c.MACs = []string{"hmac-sha2-512"} }, true},
		{func(c *ssh.ClientConfig) { c.Ciphers = []string{"aes256-gcm@openssh.com"} }, true},
		{func(c *ssh.ClientConfig) { c.Ciphers = []string{"aes128-cbc"} }, false},
		{func(c *ssh.ClientConfig) { c.Ciphers = []string{"aes128-ctr"}; c.MACs = []string{"hmac-sha1"} }, false},
		{func(c *ssh.ClientConfig) { c.KeyExchanges = []string{"diffie-hellman-group14-sha1"} }, false},
		{func(c *ssh.ClientConfig) { c.KeyExchanges = []string{"diffie-hellman-group16-sha512"} }, true},
		{func(c *ssh.ClientConfig) { c.HostKeyAlgorithms = []string{"ecdsa-sha2-nistp256"} }, true},
		{func(c *ssh.ClientConfig) { c.HostKeyAlgorithms = []string{"ssh-ed25519"} }, true},
		{func(c *ssh.ClientConfig) { c.HostKeyAlgorithms = []string{"ssh-rsa"} }, false},
	}
	for i, tt := range tests {
		cfg := ts.clientConfig()
		tt.change(cfg)
		c, err := ssh.Dial("tcp", ts.addr.String(), cfg)
		if (err == nil) != tt.ok {
			t.Errorf("test %d: %v", i, err)
		}
		if err == nil {
			c.Close()
		}
	}
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestHostKeyMadeOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "ssh_host_ed25519_key")
	keys := make([]ssh.Signer, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = hostKey(file); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, k := range keys {
		if !bytes.Equal(k.PublicKey().Marshal(), keys[0].PublicKey().Marshal()) {
			t.Error("two starts at once made two keys")
		}
	}
	fi, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", fi.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".key-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestHostKeyKinds(t *testing.T) {
	dir := t.TempDir()
	keys, err := hostKeys([]string{filepath.Join(dir, "a"), filepath.Join(dir, "my_ecdsa_key")})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256} {
		if got := keys[i].PublicKey().Type(); got != want {
			t.Errorf("key %d is %s, want %s", i, got, want)
		}
	}
}

func TestHostKeyRefused(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	open := filepath.Join(dir, "open")
	if _, err := hostKey(open); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{bad, open} {
		if _, err := hostKey(file); err == nil {
			t.Errorf("%s was taken for a key", file)
		}
	}
}

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// stateDir is where sftpbridge keeps what it makes on first use.
func stateDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/sftpbridge", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sftpbridge"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the host keys (name one with --host-key): %w", err)
	}
	return filepath.Join(home, ".local/state/sftpbridge"), nil
}

// hostKeys loads the host keys in files, and makes those that are missing.
// Without files they are an Ed25519 and, for clients that do not know that, an
// ECDSA key in the state directory.
func hostKeys(files []string) ([]ssh.Signer, error) {
	if len(files) == 0 {
		dir, err := stateDir()
		if err != nil {
			return nil, err
		}
		files = []string{filepath.Join(dir, "ssh_host_ed25519_key"), filepath.Join(dir, "ssh_host_ecdsa_key")}
	}
	var signers []ssh.Signer
	for _, file := range files {
		signer, err := hostKey(file)
		if err != nil {
			return nil, fmt.Errorf("host key: %w", err)
		}
		signers = append(signers, signer)
	}
	return signers, nil
}

// hostKey loads the private key in file. If there is no such file, it makes an
// ECDSA key in it if its name says so, and an Ed25519 key if not.
func hostKey(file string) (ssh.Signer, error) {
	signer, err := loadKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return signer, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, err
	}
	if err := makeKey(file, strings.Contains(filepath.Base(file), "ecdsa")); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return loadKey(file)
}

// loadKey loads a private key that only its owner can read.
func loadKey(file string) (ssh.Signer, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %04o lets others read the key; chmod 600 it", file, fi.Mode().Perm())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return signer, nil
}

// makeKey makes a private key. The file appears complete or not at all, and
// never takes the place of another (EEXIST).
func makeKey(file string, useECDSA bool) error {
	var key crypto.PrivateKey
	var err error
	if useECDSA {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(key, "sftpbridge")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(pem.EncodeToMemory(block))
	if err := errors.Join(err, tmp.Chmod(0o600), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Link(tmp.Name(), file)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/crypto/ssh"

	"sftpbridge/sftpsrv"
)

// A loginList decides who may log in at one SFTP door.
type loginList struct {
	users map[string]*login
	cas   []*sftpsrv.UserCA
	// system lets in the accounts of this machine that are not among the users.
	system *systemLogins
	dummy  string // the hash that is tried, in vain, for users who have none
	// hashing bounds how many passwords are hashed at once: each takes a
	// processor and a good deal of memory.
	hashing chan struct{}
}

const maxHashing = 2

type login struct {
	*listedUser
	keys []*sftpsrv.AuthorizedKeysFile
}

// authenticate gives a door's configuration the ways to log in that its users
// have.
func (p serverPlan) authenticate(cfg *sftpsrv.Config) error {
	l := &loginList{users: map[string]*login{}, hashing: make(chan struct{}, maxHashing)}
	keys, passwords := false, false
	for _, file := range p.UserCAKeys {
		ca, err := loadUserCA(file)
		if err != nil {
			return err
		}
		l.cas = append(l.cas, ca)
		keys = true
	}
	for _, u := range p.users.listed {
		user := &login{listedUser: u}
		for _, file := range u.authorizedKeys {
			f, err := sftpsrv.OpenAuthorizedKeys(file, cfg.Logger)
			if err != nil {
				return err
			}
			user.keys = append(user.keys, f)
			keys = true
		}
		if u.passwordHash != "" {
			passwords = true
			l.dummy = u.passwordHash
		}
		l.users[u.avatar.Name] = user
	}
	if p.SystemUsers {
		l.system = newSystemLogins()
		keys = true
	}
	if keys {
		cfg.PublicKey = l.publicKey
	}
	if passwords {
		cfg.Password = l.password
	}
	return nil
}

func (l *loginList) publicKey(ctx context.Context, name string, key ssh.PublicKey, remote net.Addr) (sftpsrv.Login, error) {
	u := l.users[name]
	switch {
	case u == nil && l.system != nil:
		return sftpsrv.Login{Avatar: name}, l.system.check(ctx, name, key, remote)
	case u == nil:
		return sftpsrv.Login{}, errors.New("no such user")
	}
	refused := sftpsrv.ErrKeyUnknown
	for _, f := range u.keys {
		err := f.Check(name, key, remote)
		if err == nil {
			return sftpsrv.Login{Avatar: name}, nil
		}
		if !errors.Is(err, sftpsrv.ErrKeyUnknown) {
			refused = err
		}
	}
	for _, ca := range l.cas {
		err := ca.Check(name, key, remote, time.Now(), u.principals...)
		if err == nil {
			return sftpsrv.Login{Avatar: name}, nil
		}
		if !errors.Is(err, sftpsrv.ErrKeyUnknown) {
			refused = err
		}
	}
	return sftpsrv.Login{}, refused
}

func loadUserCA(file string) (*sftpsrv.UserCA, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	ca, err := sftpsrv.ParseUserCA(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return ca, nil
}

// checkAuthorizedKeys reports whether a file of keys can be used. Lines in it
// that cannot are told of in the log when its door opens.
func checkAuthorizedKeys(file string) error {
	_, err := sftpsrv.OpenAuthorizedKeys(file, nil)
	return err
}

// password checks a password. Who does not exist, or has none, takes as long
// to refuse as a wrong one.
func (l *loginList) password(ctx context.Context, name string, password []byte, _ net.Addr) (sftpsrv.Login, error) {
	select {
	case l.hashing <- struct{}{}:
		defer func() { <-l.hashing }()
	case <-ctx.Done():
		return sftpsrv.Login{}, ctx.Err()
	}
	hash := ""
	if u := l.users[name]; u != nil {
		hash = u.passwordHash
	}
	if hash == "" {
		verifyPassword(l.dummy, password)
		return sftpsrv.Login{}, errors.New("no such user, or one without a password")
	}
	if !verifyPassword(hash, password) {
		return sftpsrv.Login{}, errors.New("wrong password")
	}
	return sftpsrv.Login{Avatar: name}, nil
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"syscall"

	"sftpbridge/bridge"
)

// A listedUser is a user of the configuration.
type listedUser struct {
	avatar         *bridge.Avatar
	authorizedKeys []string // files
	passwordHash   string
	principals     []string
}

// A userList is the realm: the users of the configuration and, if system says
// so, the accounts of this machine.
type userList struct {
	system   bool
	listed   []*listedUser
	accounts *accounts
}

var _ bridge.Realm = (*userList)(nil)

// find returns the listed user of that name, or nil.
func (l *userList) find(name string) *listedUser {
	for _, u := range l.listed {
		if u.avatar.Name == name {
			return u
		}
	}
	return nil
}

// AvatarByName returns the avatar of a listed user or, with system users, of
// an account. ENOENT if there is none.
func (l *userList) AvatarByName(name string) (*bridge.Avatar, error) {
	if u := l.find(name); u != nil {
		return u.avatar, nil
	}
	if l.system {
		return l.accounts.byName(name)
	}
	return nil, fmt.Errorf("user %q: %w", name, syscall.ENOENT)
}

// AvatarByUID returns the avatar of the first listed user with that uid or,
// with system users, one of the account's. EACCES if there is none.
func (l *userList) AvatarByUID(uid, gid uint32) (*bridge.Avatar, error) {
	for _, u := range l.listed {
		if u.avatar.Cred.UID == uid {
			return u.avatar, nil
		}
	}
	if l.system {
		return l.accounts.byUID(uid, gid), nil
	}
	return nil, fmt.Errorf("uid %d: %w", uid, syscall.EACCES)
}

// invoking returns the avatar of the user who runs this process.
func (l *userList) invoking() (*bridge.Avatar, error) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	for _, u := range l.listed {
		if u.avatar.Cred.UID == uid {
			return u.avatar, nil
		}
	}
	return l.accounts.byUID(uid, gid), nil
}

// only returns a list of the named users.
func (l *userList) only(names []string) (*userList, error) {
	some := &userList{accounts: l.accounts}
	for _, name := range names {
		u := l.find(name)
		if u == nil {
			return some, fmt.Errorf("no user %q in users", name)
		}
		some.listed = append(some.listed, u)
	}
	return some, nil
}

// anyLogin reports whether anybody has a key or password to log in with.
func (l *userList) anyLogin() bool {
	return slices.ContainsFunc(l.listed, func(u *listedUser) bool {
		return len(u.authorizedKeys) > 0 || u.passwordHash != ""
	})
}

// anyRules reports whether any listed user is confined by more than
// permissions.
func (l *userList) anyRules() bool {
	return slices.ContainsFunc(l.listed, func(u *listedUser) bool {
		return len(u.avatar.Rules) > 0 || strings.Trim(u.avatar.Root, "/") != ""
	})
}

// users compiles the users of the configuration.
func (c *compiler) users(cfg *config) *userList {
	l := &userList{system: cfg.SystemUsers, accounts: newAccounts()}
	for i, uc := range cfg.Users {
		path := fmt.Sprintf("users[%d]", i)
		if uc.Name != "" && l.find(uc.Name) != nil {
			c.errorf(path+".name", "a second user %q", uc.Name)
			continue
		}
		l.listed = append(l.listed, c.user(path, uc, l.accounts))
	}
	return l
}

func (c *compiler) user(path string, uc userConfig, accounts *accounts) *listedUser {
	a := &bridge.Avatar{Name: uc.Name, Root: uc.Root, Home: uc.Home, ReadOnly: uc.ReadOnly}
	if uc.Name == "" || strings.ContainsFunc(uc.Name, isControl) {
		c.errorf(path+".name", "no name, or not one that can be logged in with")
	}
	for _, dir := range []struct{ key, path string }{{"root", uc.Root}, {"home", uc.Home}} {
		if dir.path != "" && (!strings.HasPrefix(dir.path, "/") || slices.Contains(strings.Split(dir.path, "/"), "..")) {
			c.errorf(path+"."+dir.key, "%q is no absolute path in the tree", dir.path)
		}
	}
	c.check(path, credentials(&a.Cred, uc, accounts))
	var err error
	a.Umask, err = parseUmask(string(uc.Umask))
	c.check(path+".umask", err)
	a.Rules = c.rules(path+".rules", uc.Rules)
	for i, file := range uc.AuthorizedKeys {
		c.check(fmt.Sprintf("%s.authorized_keys[%d]", path, i), checkAuthorizedKeys(file))
	}
	if uc.PasswordHash != "" {
		c.check(path+".password_hash", checkPasswordHash(uc.PasswordHash))
	}
	return &listedUser{a, absolutes(uc.AuthorizedKeys), uc.PasswordHash, uc.Principals}
}

// credentials fills in what the configuration says of a user's ids, and from
// the account of that name what it does not.
func credentials(cred *bridge.Cred, uc userConfig, accounts *accounts) error {
	if uc.UID == nil {
		account, err := accounts.byName(uc.Name)
		if err != nil {
			return fmt.Errorf("no uid, and no account %q on this machine to take it from", uc.Name)
		}
		*cred = account.Cred
	} else {
		cred.UID = *uc.UID
		if uc.GID == nil {
			return errors.New("a uid needs a gid")
		}
	}
	if uc.GID != nil {
		cred.GID = *uc.GID
	}
	if uc.Groups != nil {
		cred.Groups = uc.Groups
	}
	return nil
}

func (c *compiler) rules(path string, rules []ruleConfig) bridge.Rules {
	var out bridge.Rules
	for i, r := range rules {
		at := fmt.Sprintf("%s[%d]", path, i)
		ops, key := r.Deny, "deny"
		if len(r.Allow) > 0 {
			ops, key = r.Allow, "allow"
		}
		if (len(r.Allow) > 0) == (len(r.Deny) > 0) {
			c.errorf(at, "a rule has either allow or deny")
			continue
		}
		parsed, err := bridge.ParseOps(strings.Join(ops, ","))
		if err != nil {
			c.errorf(at+"."+key, "%v", err)
			continue
		}
		rule := bridge.Rule{Pattern: r.Path, Ops: parsed, Allow: key == "allow"}
		if err := (bridge.Rules{rule}).Valid(); err != nil {
			c.errorf(at+".path", "%s", strings.TrimPrefix(err.Error(), "rule 1: "))
		}
		out = append(out, rule)
	}
	return out
}

// accountOf is the configuration of the account name as a user; "" is the
// account that runs this process.
func accountOf(name string) (userConfig, error) {
	if name != "" {
		if _, err := user.Lookup(name); err != nil {
			return userConfig{}, fmt.Errorf("no account %q on this machine: %w", name, err)
		}
		return userConfig{Name: name}, nil
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	account, err := user.LookupId(fmt.Sprint(uid))
	if err != nil {
		return userConfig{Name: fmt.Sprint(uid), UID: &uid, GID: &gid}, nil
	}
	return userConfig{Name: account.Username}, nil
}

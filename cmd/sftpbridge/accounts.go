package main

import (
	"fmt"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

// accountTTL is for how long the user database is believed, and maxAccounts
// bounds how many of its answers are kept.
const (
	accountTTL  = time.Minute
	maxAccounts = 4096
)

// accounts are the users of this machine, by its user database.
type accounts struct {
	mu    sync.Mutex
	byIDs map[ids]account   // guarded by mu
	names map[idName]string // guarded by mu; how ids are called, "" if not at all
	since time.Time         // guarded by mu; when the names began to be kept
}

type ids struct{ uid, gid uint32 }

// An idName is a user's or group's id.
type idName struct {
	group bool
	id    uint32
}

type account struct {
	avatar *bridge.Avatar
	until  time.Time
}

func newAccounts() *accounts { return &accounts{byIDs: map[ids]account{}, names: map[idName]string{}} }

// byName returns the avatar of the account name (ENOENT).
func (a *accounts) byName(name string) (*bridge.Avatar, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("no account %q on this machine: %w", name, syscall.ENOENT)
	}
	uid, err1 := parseID(u.Uid)
	gid, err2 := parseID(u.Gid)
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("account %q has no numeric ids: %w", name, syscall.EINVAL)
	}
	avatar := *a.byUID(uid, gid)
	avatar.Name = name
	return &avatar, nil
}

// byUID returns the avatar of a process with these ids. It has the groups that
// the user database gives to the uid, none without an account, and at a mount
// those of the process.
func (a *accounts) byUID(uid, gid uint32) *bridge.Avatar {
	key := ids{uid, gid}
	a.mu.Lock()
	known, ok := a.byIDs[key]
	a.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.avatar
	}
	avatar := lookUpAccount(uid, gid)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.byIDs) >= maxAccounts {
		clear(a.byIDs)
	}
	a.byIDs[key] = account{avatar, time.Now().Add(accountTTL)}
	return avatar
}

func lookUpAccount(uid, gid uint32) *bridge.Avatar {
	avatar := &bridge.Avatar{
		Name:  strconv.FormatUint(uint64(uid), 10),
		Cred:  bridge.Cred{UID: uid, GID: gid},
		Umask: 0o022,

		ProcessGroups: true,
	}
	u, err := user.LookupId(avatar.Name)
	if err != nil {
		return avatar
	}
	avatar.Name = u.Username
	groups, err := u.GroupIds()
	if err != nil {
		return avatar
	}
	for _, g := range groups {
		if id, err := parseID(g); err == nil {
			avatar.Cred.Groups = append(avatar.Cred.Groups, id)
		}
	}
	return avatar
}

func parseID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	return uint32(id), err
}

// userName returns the name of a user, "" if there is none.
func (a *accounts) userName(uid uint32) string { return a.name(idName{false, uid}) }

// groupName returns the name of a group, "" if there is none.
func (a *accounts) groupName(gid uint32) string { return a.name(idName{true, gid}) }

func (a *accounts) name(key idName) string {
	a.mu.Lock()
	if time.Since(a.since) > accountTTL || len(a.names) >= maxAccounts {
		clear(a.names)
		a.since = time.Now()
	}
	name, ok := a.names[key]
	a.mu.Unlock()
	if ok {
		return name
	}
	id := strconv.FormatUint(uint64(key.id), 10)
	if key.group {
		if g, err := user.LookupGroupId(id); err == nil {
			name = g.Name
		}
	} else if u, err := user.LookupId(id); err == nil {
		name = u.Username
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names[key] = name
	return name
}

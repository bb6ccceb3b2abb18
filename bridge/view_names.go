package bridge

import (
	"os/user"
	"strconv"
	"sync"
)

// maxIDNames is how many names a view remembers: a listing may hold any number
// of made-up owners.
const maxIDNames = 4096

// idNames remembers the names of users and groups, "" for those without one.
// The zero value is ready for use.
type idNames struct {
	mu    sync.Mutex
	names map[idName]string // guarded by mu
}

type idName struct {
	id    uint32
	group bool
}

// UserName implements IDNamer by the user database of this machine. The avatar
// has the name by which it logged in.
func (v *View) UserName(uid uint32) string {
	if uid == v.caller.Cred.UID && v.caller.Name != "" {
		return v.caller.Name
	}
	return v.names.find(idName{id: uid})
}

// GroupName implements IDNamer by the group database of this machine.
func (v *View) GroupName(gid uint32) string { return v.names.find(idName{gid, true}) }

func (ns *idNames) find(id idName) string {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	name, known := ns.names[id]
	if known {
		return name
	}
	if ns.names == nil || len(ns.names) >= maxIDNames {
		ns.names = make(map[idName]string)
	}
	name = id.lookup()
	ns.names[id] = name
	return name
}

func (id idName) lookup() string {
	s := strconv.FormatUint(uint64(id.id), 10)
	if id.group {
		if g, err := user.LookupGroupId(s); err == nil {
			return g.Name
		}
		return ""
	}
	if u, err := user.LookupId(s); err == nil {
		return u.Username
	}
	return ""
}

package bridge

import "slices"

// A Cred is who asks, in the terms of the file system: credentials(7).
type Cred struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups
}

// IsRoot reports whether the credentials pass permission bits.
func (c *Cred) IsRoot() bool { return c.UID == 0 }

// InGroup reports whether gid is the group or one of the supplementary groups.
func (c *Cred) InGroup(gid uint32) bool {
	return c.GID == gid || slices.Contains(c.Groups, gid)
}

// An Avatar is a user of the tree, as the realm made it. It does not change
// once it is handed out.
type Avatar struct {
	Name     string
	Cred     Cred
	Root     string // what the user sees as "/": a slash-separated path in the tree; "" or "/" is all of it
	Home     string // where relative paths begin, seen from Root; "" is "/"
	Umask    uint32 // taken from the mode of what is made through SFTP
	ReadOnly bool   // changes are EROFS
	Rules    Rules  // what else is allowed and denied; see Rules

	// ProcessGroups says that what the user's processes do at a mount is done
	// with the supplementary groups that they run with, not those of Cred.
	ProcessGroups bool
}

// A Realm knows the users: it hands out an avatar for who has logged in, or
// who makes a system call on the mount.
type Realm interface {
	// AvatarByName returns the avatar of a user who has been authenticated.
	// An error that wraps ENOENT says that there is none.
	AvatarByName(name string) (*Avatar, error)
	// AvatarByUID returns the avatar of a local process of the user uid
	// with the group gid. An error that wraps EACCES says that it has none.
	AvatarByUID(uid, gid uint32) (*Avatar, error)
}

// A Door is a way into the tree. Each door that wants to hear of changes has
// its own.
type Door uint32

// A Caller is who asks for a node operation, and at which door.
type Caller struct {
	*Avatar
	Door Door
}

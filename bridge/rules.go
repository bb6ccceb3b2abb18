package bridge

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
)

// Rules say what an avatar may do beside what permissions allow: an operation
// needs both to agree, and rules bind root too. The first rule that names the
// operation and matches the path decides; if none does, it is allowed.
//
// Rules go by the path that the avatar sees at the time of the operation, with
// symbolic links resolved. A file that is renamed is under the rules of its new
// path from then on, and so is all that is below a directory; a rename needs
// OpRename at both paths, and OpOverwrite at the new one if something is
// replaced. A file with several hard links is under the rules of the path by
// which it is reached: deny OpLink where that matters. What is decided when a
// file is opened holds until it is closed.
//
// A path for which OpList is denied is hidden: listings leave it out, and
// reaching it is EACCES, as is reaching anything below it. To allow a path deep
// down, allow OpList of the directories above it, and deny their siblings.
type Rules []Rule

// A Rule allows or denies operations on the paths that a pattern matches.
//
// A pattern begins with a slash, the avatar's root, and its components are
// those of path.Match: "*" is any name, hidden ones as well. "**" as a component
// stands for any number of components, none included, but at the end for one at
// least: "/dir" is the directory itself, "/dir/**" is what is below it,
// "/**/*.key" are such names anywhere.
type Rule struct {
	Pattern string
	Ops     Ops
	Allow   bool
}

// Ops are kinds of operations that rules decide about.
type Ops uint16

// The kinds of operations.
const (
	OpList      Ops = 1 << iota // see a name and its attributes, list a directory
	OpRead                      // read a file's content
	OpWrite                     // change a file's content
	OpCreate                    // make a file, directory or symbolic link
	OpOverwrite                 // truncate or replace what exists
	OpDelete
	OpRename
	OpLink        // make a hard link
	OpSetAttr     // change mode, owner, times, extended attributes
	OpAll     Ops = 1<<iota - 1
)

// opNames are the names of the operations in the order of their bits.
var opNames = []string{"list", "read", "write", "create", "overwrite", "delete", "rename", "link", "setattr"}

// ParseOps returns the operations that a list of names separated by commas
// means: list, read, write, create, overwrite, delete, rename, link, setattr,
// and all.
func ParseOps(s string) (Ops, error) {
	var ops Ops
	for name := range strings.SplitSeq(s, ",") {
		op, ok := parseOp(strings.TrimSpace(name))
		if !ok {
			return 0, fmt.Errorf("unknown operation %q: want all, or of %s", name, strings.Join(opNames, ", "))
		}
		ops |= op
	}
	return ops, nil
}

func parseOp(name string) (Ops, bool) {
	if name == "all" {
		return OpAll, true
	}
	for i, known := range opNames {
		if name == known {
			return 1 << i, true
		}
	}
	return 0, false
}

// String returns the names of the operations as ParseOps takes them, and "none"
// if there are none.
func (o Ops) String() string {
	switch o & OpAll {
	case 0:
		return "none"
	case OpAll:
		return "all"
	}
	var names []string
	for i, name := range opNames {
		if o&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// Check decides whether all of the operations op may be done at a path, as the
// avatar sees it: EACCES if the rules deny one.
func (rs Rules) Check(op Ops, path string) error {
	for _, r := range rs {
		if r.Ops&op == 0 || !matchPath(r.Pattern, path) {
			continue
		}
		if !r.Allow {
			return syscall.EACCES
		}
		if op &^= r.Ops; op == 0 {
			return nil
		}
	}
	return nil
}

// Valid returns an error that says which rule has a pattern, or operations,
// that mean nothing.
func (rs Rules) Valid() error {
	for i, r := range rs {
		if err := r.valid(); err != nil {
			return fmt.Errorf("rule %d: pattern %q: %w", i+1, r.Pattern, err)
		}
	}
	return nil
}

func (r Rule) valid() error {
	if r.Ops == 0 || r.Ops&^OpAll != 0 {
		return errors.New("no known operations")
	}
	rest, ok := strings.CutPrefix(r.Pattern, "/")
	if !ok {
		return errors.New("must begin with a slash, the root of the user")
	}
	if rest == "" {
		return nil
	}
	for c := range strings.SplitSeq(rest, "/") {
		switch {
		case c == "":
			return errors.New("has an empty component")
		case c == "." || c == "..":
			return fmt.Errorf("component %q matches no path: paths are resolved before", c)
		case c != "**" && strings.Contains(c, "**"):
			return fmt.Errorf("in component %q: ** must stand between slashes", c)
		}
		if _, err := path.Match(c, ""); err != nil {
			return fmt.Errorf("component %q: %w", c, err)
		}
	}
	return nil
}

// matchPath reports whether a valid pattern matches a path, with or without the
// slash at the beginning. After a "**" it tries to go on at one component
// after the other; only the last "**" need be gone back to, so that the time is
// bounded by the product of the lengths.
func matchPath(pattern, name string) bool {
	pattern = strings.Trim(pattern, "/")
	name = strings.Trim(name, "/")
	if pattern == "**" || strings.HasSuffix(pattern, "/**") {
		pattern += "/*" // one component at least
	}
	var again bool // a "**" was met: again from retryPattern at retryName
	var retryPattern, retryName string
	for pattern != "" || name != "" {
		p, pRest, _ := strings.Cut(pattern, "/")
		if p == "**" {
			again, retryPattern, retryName = true, pRest, name
			pattern = pRest
			continue
		}
		n, nRest, _ := strings.Cut(name, "/")
		if p != "" && n != "" {
			if ok, err := path.Match(p, n); ok && err == nil {
				pattern, name = pRest, nRest
				continue
			}
		}
		if !again || retryName == "" {
			return false
		}
		_, retryName, _ = strings.Cut(retryName, "/")
		pattern, name = retryPattern, retryName
	}
	return true
}

package bridge

import (
	"context"
	"strings"
	"syscall"
)

// maxSymlinks is how many symbolic links a path may lead through:
// path_resolution(7).
const maxSymlinks = 40

// A walk is where the resolution of a path has got to: the directories from the
// avatar's root down to the one reached, or to the file at the end. It goes up
// by going back, and so never above the root, whatever is renamed meanwhile.
type walk struct {
	v     *View
	steps []step // the first is the root; the others hold a reference each
	links int    // symbolic links followed
}

// A step is one directory on the way, or what the path leads to.
type step struct {
	name string
	node *Node // nil for a last component that is missing
	attr Attr  // unset for the root, see walk.attr
}

// A walkEnd says what becomes of the last component of a path. With a slash
// after it, it has to be a directory in any case, and links are followed.
type walkEnd int

const (
	followLast walkEnd = iota // it is followed if it is a symbolic link
	keepLast                  // it is not followed
	allowNone                 // it is followed, and may be missing
	leaveLast                 // it is not looked up: the walk stops at its directory, which may be searched
)

// A lastName is the component at which a walk stopped: empty for the root.
type lastName struct {
	name  string
	slash bool // a slash follows it
}

// ordinary reports whether the name can be that of an entry.
func (l lastName) ordinary() bool { return l.name != "" && l.name != "." && l.name != ".." }

// walk resolves a path as the avatar sees it: ENOENT, EACCES without search
// permission on a directory on the way, ENOTDIR, ELOOP, ENAMETOOLONG, EINVAL
// for a NUL. The walk has to be closed if there is no error.
func (v *View) walk(ctx context.Context, path string, end walkEnd) (*walk, lastName, error) {
	if err := checkPath(path); err != nil {
		return nil, lastName{}, v.fail("walk", path, err)
	}
	w := &walk{v: v, steps: []step{{node: v.root}}}
	last, err := w.follow(ctx, v.absolute(path), end)
	if err != nil {
		w.close()
		return nil, lastName{}, v.fail("walk", path, err)
	}
	return w, last, nil
}

// checkTarget returns an error for what can be no target of a symbolic link.
func checkTarget(target string) error {
	if target == "" {
		return syscall.ENOENT
	}
	return checkPath(target)
}

// checkPath returns an error for what can be no path.
func checkPath(path string) error {
	if len(path) > PathMax {
		return syscall.ENAMETOOLONG
	}
	if strings.IndexByte(path, 0) >= 0 {
		return syscall.EINVAL
	}
	return nil
}

// absolute returns a path with the home before it if it is relative.
func (v *View) absolute(path string) string {
	switch {
	case path == "":
		return v.home()
	case path[0] == '/':
		return path
	}
	return v.home() + "/" + path
}

// follow goes on from where the walk is; an absolute path begins at the root.
func (w *walk) follow(ctx context.Context, path string, end walkEnd) (lastName, error) {
	for {
		if strings.HasPrefix(path, "/") {
			w.back(1)
		}
		name, rest, slash := strings.Cut(strings.TrimLeft(path, "/"), "/")
		rest = strings.TrimLeft(rest, "/")
		last := lastName{name, slash}
		isLast := rest == ""
		switch {
		case name == "":
			return last, w.mustBeDir()
		case isLast && end == leaveLast:
			return last, w.search(ctx)
		}
		target, err := w.enter(ctx, name, isLast, isLast && !slash, end)
		if err != nil {
			return lastName{}, err
		}
		switch {
		case target != "" && slash:
			path = target + "/" + rest
		case target != "":
			path = target
		case !isLast:
			path = rest
		case slash:
			return last, w.mustBeDir()
		default:
			return last, nil
		}
	}
}

// enter goes to the entry name of the directory that the walk has reached. If
// it is a symbolic link that is to be followed, the walk stays, and target is
// where to go on.
func (w *walk) enter(ctx context.Context, name string, isLast, isEnd bool, end walkEnd) (target string, err error) {
	t, c, dir := w.v.tree, w.v.caller, w.top().node
	if name == "." || name == ".." {
		if err := w.search(ctx); err != nil {
			return "", err
		}
		if name == ".." {
			w.back(max(1, len(w.steps)-1))
		}
		return "", nil
	}
	look := t.Lookup
	if !isLast {
		look = t.pass
	}
	n, a, err := look(ctx, c, dir, name)
	if err != nil {
		if isEnd && end == allowNone && Errno(err) == syscall.ENOENT {
			w.steps = append(w.steps, step{name: name})
			return "", nil
		}
		return "", err
	}
	if !a.IsSymlink() || isEnd && end == keepLast {
		w.steps = append(w.steps, step{name, n, a})
		return "", nil
	}
	defer t.Forget(n, 1)
	return w.readlink(ctx, n, a, isLast)
}

// readlink returns where a symbolic link leads that is an entry of the
// directory reached, and counts it. At the end of a path it may be protected
// from being followed.
func (w *walk) readlink(ctx context.Context, n *Node, a Attr, isLast bool) (string, error) {
	if w.links++; w.links > maxSymlinks {
		return "", syscall.ELOOP
	}
	if isLast {
		if err := w.v.tree.mayFollow(ctx, w.v.caller, w.top().node, a); err != nil {
			return "", err
		}
	}
	target, err := w.v.tree.Readlink(ctx, w.v.caller, n)
	if err != nil {
		return "", err
	}
	return target, checkTarget(target)
}

// search returns an error unless the avatar may search the directory reached.
func (w *walk) search(ctx context.Context) error {
	c := &w.v.caller.Cred
	if err := w.mustBeDir(); err != nil || c.IsRoot() {
		return err
	}
	a, err := w.attr(ctx)
	if err != nil {
		return err
	}
	return CheckAccess(c, a, MayExec)
}

// mustBeDir returns ENOTDIR unless the walk has reached a directory.
func (w *walk) mustBeDir() error {
	if len(w.steps) > 1 && !w.top().attr.IsDir() {
		return syscall.ENOTDIR
	}
	return nil
}

func (w *walk) top() *step { return &w.steps[len(w.steps)-1] }

// attr returns the attributes of what the walk has reached.
func (w *walk) attr(ctx context.Context) (Attr, error) { return w.attrAt(ctx, len(w.steps)-1) }

// attrAt returns the attributes of one of the steps. Those of the root are
// asked for when they are needed.
func (w *walk) attrAt(ctx context.Context, i int) (Attr, error) {
	if i > 0 {
		return w.steps[i].attr, nil
	}
	return w.v.tree.GetAttr(ctx, w.v.caller, w.v.root)
}

// path returns the path reached as the avatar sees it, without symbolic links.
func (w *walk) path() string {
	if len(w.steps) == 1 {
		return "/"
	}
	var b strings.Builder
	for _, s := range w.steps[1:] {
		b.WriteString("/" + s.name)
	}
	return b.String()
}

// back returns to the first steps of the way.
func (w *walk) back(steps int) {
	for _, s := range w.steps[steps:] {
		if s.node != nil {
			w.v.tree.Forget(s.node, 1)
		}
	}
	w.steps = w.steps[:steps]
}

func (w *walk) close() { w.back(1) }

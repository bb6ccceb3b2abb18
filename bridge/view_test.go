package bridge_test

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// newView returns the view of an avatar, which is closed with the test.
func newView(t *testing.T, tree *bridge.Tree, a *bridge.Avatar) *bridge.View {
	t.Helper()
	v, err := tree.View(t.Context(), a, tree.NewDoor())
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newJail returns an avatar's view of a directory in which alice has files, and
// root's view of the whole tree, which has something outside too.
func newJail(t *testing.T, avatar bridge.Avatar) (jail, admin *bridge.View) {
	t.Helper()
	return newJailIn(t, newTreeWith(t, memfs.New(), bridge.Options{Protected: allProtected}), avatar)
}

func newJailIn(t *testing.T, tree *bridge.Tree, avatar bridge.Avatar) (jail, admin *bridge.View) {
	t.Helper()
	admin = newView(t, tree, &bridge.Avatar{Name: "root"})
	makeDir(t, admin, "/jail", 0o755, root)
	makeDir(t, admin, "/jail/home", 0o755, alice)
	makeDir(t, admin, "/jail/home/private", 0o700, alice)
	makeDir(t, admin, "/jail/pub", 0o1777, root)
	makeDir(t, admin, "/outside", 0o777, root)
	writeFile(t, admin, "/outside/secret", "secret", 0o666, root)
	writeFile(t, admin, "/jail/home/file", "content", 0o640, alice)
	writeFile(t, admin, "/jail/home/private/deep", "deep", 0o666, alice)
	avatar.Root = "/jail"
	return newView(t, tree, &avatar), admin
}

func owned(mode uint32, by *bridge.Cred) bridge.SetAttr {
	return bridge.SetAttr{Valid: bridge.SetMode | bridge.SetUID | bridge.SetGID, Mode: mode, UID: by.UID, GID: by.GID}
}

func makeDir(t *testing.T, v *bridge.View, path string, mode uint32, by *bridge.Cred) {
	t.Helper()
	must(t, v.MakeDirectory(t.Context(), path, owned(mode, by)))
}

func writeFile(t *testing.T, v *bridge.View, path, content string, mode uint32, by *bridge.Cred) {
	t.Helper()
	f, err := v.OpenFile(t.Context(), path, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC, owned(mode, by))
	must(t, err)
	must(t, f.WriteChunk(t.Context(), []byte(content), 0))
	must(t, f.Close(t.Context()))
}

func readFile(t *testing.T, v *bridge.View, path string) (string, error) {
	t.Helper()
	f, err := v.OpenFile(t.Context(), path, syscall.O_RDONLY, bridge.SetAttr{})
	if err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	n, err := f.ReadChunk(t.Context(), buf, 0)
	if err == io.EOF {
		err = nil
	}
	return string(buf[:n]), errors.Join(err, f.Close(t.Context()))
}

func listNames(t *testing.T, v *bridge.View, dir string) []string {
	t.Helper()
	d, err := v.OpenDirectory(t.Context(), dir)
	must(t, err)
	var names []string
	for e, err := range d.Entries(t.Context()) {
		must(t, err)
		names = append(names, e.Name)
	}
	must(t, d.Close())
	slices.Sort(names)
	return names
}

func TestViewPaths(t *testing.T) {
	v, _ := newJail(t, bridge.Avatar{Name: "alice", Cred: *alice, Home: "/home"})
	for target, link := range map[string]string{
		"/outside/secret": "home/absolute", "../../../outside/secret": "home/relative", "/home/file": "home/inside",
		"loop": "home/loop", "nowhere": "home/dangling", "private": "home/dir", "no/where": "home/lost",
	} {
		must(t, v.MakeLink(t.Context(), "/"+link, target))
	}
	tests := []struct {
		path, want string
		errno      syscall.Errno
	}{
		{"", "/home", 0},
		{".", "/home", 0},
		{"/", "/", 0},
		{"..", "/", 0},
		{"../../..", "/", 0},
		{"/../../outside", "/outside", 0}, // below the root, where it is missing
		{"/../../outside/secret", "", syscall.ENOENT},
		{"file", "/home/file", 0},
		{"./private/../file", "/home/file", 0},
		{"new", "/home/new", 0},
		{"new/", "", syscall.ENOENT},
		{"new/file", "", syscall.ENOENT},
		{"new/..", "", syscall.ENOENT},
		{"file/", "", syscall.ENOTDIR},
		{"file/..", "", syscall.ENOTDIR},
		{"inside", "/home/file", 0},
		{"dir", "/home/private", 0},
		{"dir/deep", "/home/private/deep", 0},
		{"dir/..", "/home", 0},
		{"absolute", "", syscall.ENOENT},
		{"relative", "", syscall.ENOENT},
		{"dangling", "/home/nowhere", 0},
		{"lost", "", syscall.ENOENT},
		{"loop", "", syscall.ELOOP},
		{"a\x00b", "", syscall.EINVAL},
		{strings.Repeat("x", 256), "", syscall.ENAMETOOLONG},
		{strings.Repeat("/", 4096), "", syscall.ENAMETOOLONG},
		{strings.Repeat("/", 4095), "/", 0},
	}
	for _, tt := range tests {
		got, err := v.RealPath(t.Context(), tt.path)
		if got != tt.want || bridge.Errno(err) != tt.errno {
			t.Errorf("RealPath(%.40q) = %q, %v, want %q, %v", tt.path, got, err, tt.want, tt.errno)
		}
	}
	if s, err := readFile(t, v, "inside"); s != "content" || err != nil {
		t.Errorf("through a link: %q, %v", s, err)
	}
	for _, link := range []string{"absolute", "relative", "/../outside/secret"} {
		if s, err := readFile(t, v, link); bridge.Errno(err) != syscall.ENOENT {
			t.Errorf("reading %s: %q, %v", link, s, err)
		}
	}
	if s, err := v.ReadLink(t.Context(), "relative"); s != "../../../outside/secret" || err != nil {
		t.Errorf("the link holds %q, %v", s, err)
	}
}

func TestViewLongChainOfLinks(t *testing.T) {
	v, _ := newJail(t, bridge.Avatar{Cred: *alice, Home: "/home"})
	target := "file"
	for i := range 41 {
		link := "link" + strconv.Itoa(i+1)
		must(t, v.MakeLink(t.Context(), link, target))
		target = link
	}
	if _, err := readFile(t, v, "link40"); err != nil {
		t.Errorf("40 links: %v", err)
	}
	_, err := readFile(t, v, "link41")
	wantErrno(t, "41 links", err, syscall.ELOOP)
}

func TestViewCreation(t *testing.T) {
	v, admin := newJail(t, bridge.Avatar{Cred: *alice, Home: "/home", Umask: 0o027})
	when := time.Unix(1000, 0)
	create := func(v *bridge.View, path string, attr bridge.SetAttr) error {
		f, err := v.OpenFile(t.Context(), path, syscall.O_WRONLY|syscall.O_CREAT, attr)
		if err != nil {
			return err
		}
		return f.Close(t.Context())
	}
	must(t, create(v, "plain", bridge.SetAttr{}))
	must(t, create(v, "mode", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o777}))
	must(t, create(v, "more", bridge.SetAttr{Valid: bridge.SetGID | bridge.SetMtime | bridge.SetAtime | bridge.SetSize,
		GID: 2000, Mtime: when, Atime: when, Size: 3}))
	must(t, v.MakeDirectory(t.Context(), "dir", bridge.SetAttr{}))
	must(t, v.MakeDirectory(t.Context(), "setgid", bridge.SetAttr{Valid: bridge.SetMode | bridge.SetMtime, Mode: 0o2777, Mtime: when}))
	must(t, create(admin, "/jail/owned", owned(0o6755, bob)))
	must(t, v.MakeLink(t.Context(), "dangling", "target"))
	must(t, create(v, "dangling", bridge.SetAttr{}))

	tests := []struct {
		path string
		want bridge.Attr
	}{
		{"plain", bridge.Attr{Mode: 0o100640, UID: 1001, GID: 1001}},
		{"mode", bridge.Attr{Mode: 0o100750, UID: 1001, GID: 1001}},
		{"more", bridge.Attr{Mode: 0o100640, UID: 1001, GID: 2000, Size: 3, Mtime: when}},
		{"dir", bridge.Attr{Mode: 0o040750, UID: 1001, GID: 1001}},
		{"setgid", bridge.Attr{Mode: 0o040750, UID: 1001, GID: 1001, Mtime: when}},
		{"/owned", bridge.Attr{Mode: 0o106755, UID: 1002, GID: 1002}},
		{"target", bridge.Attr{Mode: 0o100640, UID: 1001, GID: 1001}},
	}
	for _, tt := range tests {
		got, err := v.GetAttrs(t.Context(), tt.path, false)
		must(t, err)
		if got.Mode != tt.want.Mode || got.UID != tt.want.UID || got.GID != tt.want.GID || !got.IsDir() && got.Size != tt.want.Size ||
			!tt.want.Mtime.IsZero() && !got.Mtime.Equal(tt.want.Mtime) {
			t.Errorf("%s: got %+v, want %+v", tt.path, got, tt.want)
		}
	}

	// What cannot be given to a new file is an error, and there is no file.
	wantErrno(t, "a file for another", create(v, "foreign", owned(0o644, bob)), syscall.EPERM)
	wantErrno(t, "a directory for another", v.MakeDirectory(t.Context(), "foreign", owned(0o755, bob)), syscall.EPERM)
	_, err := v.GetAttrs(t.Context(), "foreign", false)
	wantErrno(t, "afterwards", err, syscall.ENOENT)
	// What is there already keeps its attributes.
	must(t, create(v, "plain", owned(0o777, bob)))
	if a, _ := v.GetAttrs(t.Context(), "plain", false); a.Perm() != 0o640 {
		t.Errorf("mode after a second open: %#o", a.Perm())
	}
	_, err = v.OpenFile(t.Context(), "dangling", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{})
	wantErrno(t, "O_EXCL of a link", err, syscall.EEXIST)
	_, err = v.OpenFile(t.Context(), "dir", syscall.O_RDONLY, bridge.SetAttr{})
	wantErrno(t, "opening a directory", err, syscall.EISDIR)
}

// TestViewUsers has each operation done by users with more and less rights.
func TestViewUsers(t *testing.T) {
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600}
	const eacces, eperm, erofs = syscall.EACCES, syscall.EPERM, syscall.EROFS
	tests := []struct {
		name                 string
		do                   func(v *bridge.View) error
		alice, eve, readOnly syscall.Errno // readOnly is root who may change nothing
	}{
		{"read", func(v *bridge.View) error { _, err := readFile(t, v, "/home/file"); return err }, 0, eacces, 0},
		{"write", func(v *bridge.View) error {
			_, err := v.OpenFile(t.Context(), "/home/file", syscall.O_WRONLY, bridge.SetAttr{})
			return err
		}, 0, eacces, erofs},
		{"create", func(v *bridge.View) error {
			_, err := v.OpenFile(t.Context(), "/home/new", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{})
			return err
		}, 0, eacces, erofs},
		{"stat", func(v *bridge.View) error { _, err := v.GetAttrs(t.Context(), "/home/file", true); return err }, 0, 0, 0},
		{"stat below", func(v *bridge.View) error {
			_, err := v.GetAttrs(t.Context(), "/home/private/deep", true)
			return err
		}, 0, eacces, 0},
		{"realpath below", func(v *bridge.View) error { _, err := v.RealPath(t.Context(), "/home/private/../x"); return err }, 0, eacces, 0},
		{"list", func(v *bridge.View) error { _, err := v.OpenDirectory(t.Context(), "/home/private"); return err }, 0, eacces, 0},
		{"list a file", func(v *bridge.View) error { _, err := v.OpenDirectory(t.Context(), "/home/file"); return err },
			syscall.ENOTDIR, syscall.ENOTDIR, syscall.ENOTDIR},
		{"mkdir", func(v *bridge.View) error { return v.MakeDirectory(t.Context(), "/home/d", bridge.SetAttr{}) }, 0, eacces, erofs},
		{"mkdir of what is there", func(v *bridge.View) error {
			return v.MakeDirectory(t.Context(), "/home/private", bridge.SetAttr{})
		}, syscall.EEXIST, syscall.EEXIST, syscall.EEXIST},
		{"rmdir", func(v *bridge.View) error { return v.RemoveDirectory(t.Context(), "/home/private") }, syscall.ENOTEMPTY, eacces, erofs},
		{"rmdir of the root", func(v *bridge.View) error { return v.RemoveDirectory(t.Context(), "/") },
			syscall.EBUSY, syscall.EBUSY, syscall.EBUSY},
		{"remove", func(v *bridge.View) error { return v.RemoveFile(t.Context(), "/home/file") }, 0, eacces, erofs},
		{"remove a directory", func(v *bridge.View) error { return v.RemoveFile(t.Context(), "/home/private") }, syscall.EISDIR, eacces, erofs},
		{"rename", func(v *bridge.View) error { return v.RenameFile(t.Context(), "/home/file", "/pub/file") }, 0, eacces, erofs},
		{"rename to what is there", func(v *bridge.View) error {
			return v.RenameFile(t.Context(), "/home/private/deep", "/home/file")
		}, syscall.EEXIST, eacces, erofs},
		{"replace", func(v *bridge.View) error {
			return v.PosixRename(t.Context(), "/home/private/deep", "/home/file")
		}, 0, eacces, erofs},
		{"symlink", func(v *bridge.View) error { return v.MakeLink(t.Context(), "/home/l", "file") }, 0, eacces, erofs},
		{"link", func(v *bridge.View) error { return v.HardLink(t.Context(), "/home/file", "/pub/l") }, 0, eperm, erofs},
		{"chmod", func(v *bridge.View) error { return v.SetAttrs(t.Context(), "/home/file", mode) }, 0, eperm, erofs},
		{"chown", func(v *bridge.View) error { return v.SetAttrs(t.Context(), "/home/file", owned(0, bob)) }, eperm, eperm, erofs},
		{"statfs", func(v *bridge.View) error { _, err := v.StatFS(t.Context(), "/home"); return err }, 0, 0, 0},
		{"extended", func(v *bridge.View) error { _, err := v.ExtendedRequest(t.Context(), "x@y", nil); return err },
			syscall.ENOSYS, syscall.ENOSYS, syscall.ENOSYS},
	}
	for _, tt := range tests {
		for _, as := range []struct {
			bridge.Avatar
			want syscall.Errno
		}{
			{bridge.Avatar{Name: "alice", Cred: *alice}, tt.alice},
			{bridge.Avatar{Name: "eve", Cred: *eve}, tt.eve},
			{bridge.Avatar{Name: "read-only root", Cred: *root, ReadOnly: true}, tt.readOnly},
		} {
			v, _ := newJail(t, as.Avatar)
			wantErrno(t, tt.name+" by "+as.Name, tt.do(v), as.want)
		}
	}
}

func TestViewRules(t *testing.T) {
	v, admin := newJail(t, bridge.Avatar{Cred: *root, Rules: bridge.Rules{
		{Pattern: "/home/private", Ops: bridge.OpList, Allow: false},
		{Pattern: "/pub/keep/**", Ops: bridge.OpDelete | bridge.OpRename | bridge.OpOverwrite, Allow: false},
		{Pattern: "/home/*", Ops: bridge.OpWrite | bridge.OpSetAttr, Allow: false},
	}})
	makeDir(t, admin, "/jail/pub/keep", 0o777, root)
	writeFile(t, admin, "/jail/pub/keep/a", "a", 0o666, root)
	if got := listNames(t, v, "/home"); !slices.Equal(got, []string{".", "..", "file"}) {
		t.Errorf("a hidden name is listed: %q", got)
	}
	open := func(path string, flags bridge.OpenFlags) error {
		f, err := v.OpenFile(t.Context(), path, flags, bridge.SetAttr{})
		if err == nil {
			err = f.Close(t.Context())
		}
		return err
	}
	denied := map[string]error{
		"hidden":          open("/home/private/deep", syscall.O_RDONLY),
		"replacing":       v.PosixRename(t.Context(), "/home/file", "/home/private"),
		"removing hidden": v.RemoveDirectory(t.Context(), "/home/private"),
		"write":           open("/home/file", syscall.O_WRONLY),
		"chmod":           v.SetAttrs(t.Context(), "/home/file", bridge.SetAttr{Valid: bridge.SetMode}),
		"delete":          v.RemoveFile(t.Context(), "/pub/keep/a"),
		"truncate":        open("/pub/keep/a", syscall.O_WRONLY|syscall.O_TRUNC),
		"rename from":     v.RenameFile(t.Context(), "/pub/keep/a", "/pub/a"),
		"rename to":       v.RenameFile(t.Context(), "/home/file", "/pub/keep/b"),
	}
	for what, err := range denied {
		wantErrno(t, what, err, syscall.EACCES)
	}
	must(t, open("/pub/keep/a", syscall.O_WRONLY))
	must(t, open("/home/file", syscall.O_RDONLY))
	must(t, open("/pub/keep/new", syscall.O_WRONLY|syscall.O_CREAT))
}

func TestViewFile(t *testing.T) {
	v, admin := newJail(t, bridge.Avatar{Cred: *alice, Home: "/home"})
	f, err := v.OpenFile(t.Context(), "file", syscall.O_RDWR, bridge.SetAttr{})
	must(t, err)
	must(t, v.RenameFile(t.Context(), "file", "moved"))
	must(t, v.RemoveFile(t.Context(), "moved"))
	must(t, f.WriteChunk(t.Context(), []byte("CON"), 0))
	must(t, f.SetAttrs(t.Context(), bridge.SetAttr{Valid: bridge.SetSize | bridge.SetMode, Size: 5, Mode: 0o600}))
	must(t, f.(bridge.SyncFile).Sync(t.Context()))
	a, err := f.GetAttrs(t.Context())
	must(t, err)
	if a.Size != 5 || a.Nlink != 0 || a.Perm() != 0o600 {
		t.Errorf("attributes of a removed file: %+v", a)
	}
	buf := make([]byte, 10)
	if n, err := f.ReadChunk(t.Context(), buf, 0); string(buf[:n]) != "CONte" || err != io.EOF {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	dst, err := v.OpenFile(t.Context(), "copy", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{})
	must(t, err)
	must(t, f.(bridge.CopyToFile).CopyTo(t.Context(), 1, 0, dst, 2))
	must(t, f.(bridge.CopyToFile).CopyTo(t.Context(), 0, 2, dst, 0))
	wantErrno(t, "copy to itself", dst.(bridge.CopyToFile).CopyTo(t.Context(), 0, 1, dst, 9), syscall.EINVAL)
	must(t, dst.Close(t.Context()))
	must(t, f.Close(t.Context()))
	if s, err := readFile(t, admin, "/jail/home/copy"); s != "COONte" || err != nil {
		t.Errorf("the copy holds %q, %v", s, err)
	}
}

func TestViewListing(t *testing.T) {
	v, admin := newJail(t, bridge.Avatar{Cred: *eve})
	for i := range 300 {
		writeFile(t, admin, "/jail/pub/"+strconv.Itoa(i), "x", 0o644, eve)
	}
	d, err := v.OpenDirectory(t.Context(), "/pub")
	must(t, err)
	seen := make(map[string]bridge.DirEntry)
	for e, err := range d.Entries(t.Context()) {
		must(t, err)
		seen[e.Name] = e
		if e.Name != "." && e.Name != ".." { // removing while listing
			must(t, v.RemoveFile(t.Context(), "/pub/"+e.Name))
		}
	}
	must(t, d.Close())
	if len(seen) != 302 || len(listNames(t, v, "/pub")) != 2 {
		t.Errorf("%d entries, then %q", len(seen), listNames(t, v, "/pub"))
	}
	for name, e := range seen {
		if !e.Full || name != "." && name != ".." && e.Attr.Size != 1 {
			t.Fatalf("%s: %+v", name, e)
		}
	}
	// Above the root there is nothing to be seen.
	d, err = v.OpenDirectory(t.Context(), "/")
	must(t, err)
	self, _ := v.GetAttrs(t.Context(), "/", true)
	for e, err := range d.Entries(t.Context()) {
		must(t, err)
		if e.Name == ".." && e.Attr.ID != self.ID {
			t.Errorf(".. of the root is %+v", e.Attr)
		}
		if e.Name == ".." {
			must(t, d.Close()) // it may be closed at any time
		}
	}
	// Without search permission there are names and types only.
	must(t, admin.SetAttrs(t.Context(), "/jail/home", bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o744}))
	if got := listNames(t, v, "/home"); !slices.Equal(got, []string{".", "..", "file", "private"}) {
		t.Errorf("without search permission: %q", got)
	}
}

func TestViewHomesAndNames(t *testing.T) {
	v, _ := newJail(t, bridge.Avatar{Name: "alice", Cred: *alice, Home: "home"})
	tests := []struct {
		path, want string
		errno      syscall.Errno
	}{
		{"~", "/home", 0},
		{"~/file", "/home/file", 0},
		{"~/", "/home", 0},
		{"~alice/private", "/home/private", 0},
		{"~bob", "", syscall.ENOENT},
		{"file", "/home/file", 0},
		{"/pub/~", "/pub/~", 0},
	}
	for _, tt := range tests {
		got, err := v.ExpandPath(t.Context(), tt.path)
		if got != tt.want || bridge.Errno(err) != tt.errno {
			t.Errorf("ExpandPath(%q) = %q, %v, want %q, %v", tt.path, got, err, tt.want, tt.errno)
		}
	}
	if home, err := v.HomeDirectory(t.Context(), ""); home != "/home" || err != nil {
		t.Errorf("HomeDirectory = %q, %v", home, err)
	}
	for range 2 {
		if got := []string{v.UserName(1001), v.UserName(0), v.GroupName(0), v.UserName(3999999999)}; !slices.Equal(got, []string{"alice", "root", "root", ""}) {
			t.Errorf("names %q", got)
		}
	}
}

func TestViewRootIsMissing(t *testing.T) {
	tree := newTree(t, memfs.New())
	_, err := tree.View(t.Context(), &bridge.Avatar{Root: "/none"}, tree.NewDoor())
	wantErrno(t, "no root", err, syscall.ENOENT)
	writeFile(t, newView(t, tree, &bridge.Avatar{}), "/file", "", 0o644, root)
	_, err = tree.View(t.Context(), &bridge.Avatar{Root: "file"}, tree.NewDoor())
	wantErrno(t, "a file as root", err, syscall.ENOTDIR)
}

// TestViewSettles has another door hear of each change before it is answered.
func TestViewSettles(t *testing.T) {
	tree := newTree(t, memfs.New())
	v, _ := newJailIn(t, tree, bridge.Avatar{Cred: *alice, Home: "/home"})
	sub := tree.Subscribe()
	var heard atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-sub.Ready():
				heard.Add(int64(len(sub.Take())))
				sub.Done()
			case <-stop:
				return
			}
		}
	}()
	defer func() { close(stop); <-done; sub.Close() }()
	for i, change := range []func() error{
		func() error { return v.MakeDirectory(t.Context(), "d", bridge.SetAttr{}) },
		func() error { return v.RenameFile(t.Context(), "d", "e") },
		func() error { return v.RemoveDirectory(t.Context(), "e") },
		func() error { return v.MakeLink(t.Context(), "l", "x") },
		func() error { return v.HardLink(t.Context(), "l", "m") },
		func() error { return v.RemoveFile(t.Context(), "l") },
		func() error { return v.SetAttrs(t.Context(), "file", bridge.SetAttr{Valid: bridge.SetMode}) },
	} {
		before := heard.Load()
		must(t, change())
		if heard.Load() == before {
			t.Errorf("change %d was answered before it was heard of", i)
		}
	}
}

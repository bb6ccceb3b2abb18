package bridge_test

import (
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// A walkModel is what is in a jail: for each path below it "dir", "file", or
// where a symbolic link leads after "-> ".
type walkModel map[string]string

const linkTo = "-> "

// resolve is what RealPath should find, in the simplest words.
func (m walkModel) resolve(name string) (string, syscall.Errno) {
	at, todo, links := "/", name, 0
	for {
		todo = strings.TrimLeft(todo, "/")
		if todo == "" {
			return at, 0
		}
		comp, rest, slash := strings.Cut(todo, "/")
		last := strings.Trim(rest, "/") == ""
		if at != "/" && m[at] != "dir" {
			return "", syscall.ENOTDIR
		}
		next := path.Join(at, comp) // which never leads above "/"
		kind, found := m[next]
		switch {
		case next == "/" || kind == "dir":
			at, todo = next, rest
		case !found && last && !slash:
			return next, 0
		case !found:
			return "", syscall.ENOENT
		case kind == "file" && slash:
			return "", syscall.ENOTDIR
		case kind == "file":
			return next, 0
		default:
			if links++; links > 40 {
				return "", syscall.ELOOP
			}
			todo = strings.TrimPrefix(kind, linkTo)
			if strings.HasPrefix(todo, "/") {
				at = "/"
			}
			if slash {
				todo += "/" + rest
			}
		}
	}
}

// A source makes choices of the bytes that it has, and 0 when there are no more.
type source struct{ data []byte }

func (s *source) choose(n int) int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b) % n
}

// path returns a path of up to six components.
func (s *source) path() string {
	words := []string{"a", "b", "c", "..", "..", ".", "outside", "secret", "jail", "", "a"}
	var b strings.Builder
	if s.choose(3) == 0 {
		b.WriteString("/")
	}
	for range 1 + s.choose(6) {
		b.WriteString(words[s.choose(len(words))])
		if s.choose(8) != 0 {
			b.WriteString("/")
		}
	}
	if s.choose(3) != 0 {
		return strings.TrimRight(b.String(), "/") + "/a"
	}
	return b.String()
}

// checkWalk builds a jail as data says, and compares some walks with the model.
func checkWalk(t *testing.T, data []byte) {
	s := &source{data}
	tree := newTree(t, memfs.New())
	admin := newView(t, tree, &bridge.Avatar{})
	for _, dir := range []string{"/jail", "/outside", "/a", "/b"} {
		must(t, admin.MakeDirectory(t.Context(), dir, bridge.SetAttr{}))
	}
	writeFile(t, admin, "/outside/secret", "secret", 0o666, root)
	writeFile(t, admin, "/secret", "secret", 0o666, root)
	v := newView(t, tree, &bridge.Avatar{Root: "/jail"})
	m := make(walkModel)
	dirs := []string{"/"}
	for range s.choose(16) {
		name := path.Join(dirs[s.choose(len(dirs))], string(rune('a'+s.choose(3))))
		if m[name] != "" {
			continue
		}
		switch s.choose(4) {
		case 0:
			m[name] = "file"
			writeFile(t, v, name, "", 0o666, root)
		case 1:
			m[name] = "dir"
			dirs = append(dirs, name)
			must(t, v.MakeDirectory(t.Context(), name, bridge.SetAttr{}))
		default:
			target := s.path()
			if target == "" {
				target = "."
			}
			m[name] = linkTo + target
			must(t, v.MakeLink(t.Context(), name, target))
		}
	}
	for range 8 {
		checkRealPath(t, v, m, s.path())
	}
}

func checkRealPath(t *testing.T, v *bridge.View, m walkModel, name string) {
	t.Helper()
	want, errno := m.resolve(name)
	got, err := v.RealPath(t.Context(), name)
	if got != want || bridge.Errno(err) != errno {
		t.Fatalf("RealPath(%q) = %q, %v, want %q, %v\nin %q", name, got, err, want, errno, m)
	}
	if errno != 0 {
		return
	}
	a, err := v.GetAttrs(t.Context(), name, true)
	b, err2 := v.GetAttrs(t.Context(), got, false)
	if bridge.Errno(err) != bridge.Errno(err2) || a.ID != b.ID || (err == nil) != (want == "/" || m[want] != "") {
		t.Fatalf("GetAttrs(%q) = %+v, %v, but of %q, %+v, %v\nin %q", name, a, err, got, b, err2, m)
	}
}

func TestWalkAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 400 {
		data := make([]byte, 200)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		checkWalk(t, data)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte("links that lead to links that lead to ../../outside/secret"))
	f.Add([]byte{15, 0, 0, 1, 0, 1, 2, 0, 5, 3, 1, 3, 1, 6, 1, 7, 1, 1})
	f.Fuzz(checkWalk)
}

// TestWalkWhileDirectoriesMove has a directory moved out of a jail and back while
// somebody walks through it: ".." leads back to where the walk came from, and
// never to what the directory is in by then.
func TestWalkWhileDirectoriesMove(t *testing.T) {
	tree := newTree(t, memfs.New())
	admin := newView(t, tree, &bridge.Avatar{})
	for _, dir := range []string{"/jail", "/jail/a", "/jail/a/b", "/jail/a/b/c", "/outside"} {
		makeDir(t, admin, dir, 0o777, root)
	}
	writeFile(t, admin, "/jail/a/secret", "inside", 0o666, root)
	writeFile(t, admin, "/jail/secret", "inside", 0o666, root)
	writeFile(t, admin, "/outside/secret", "outside", 0o666, root)
	writeFile(t, admin, "/secret", "outside", 0o666, root)

	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			if err := admin.RenameFile(t.Context(), "/jail/a/b", "/outside/b"); err != nil {
				t.Error(err)
				return
			}
			if err := admin.RenameFile(t.Context(), "/outside/b", "/jail/a/b"); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	v := newView(t, tree, &bridge.Avatar{Root: "/jail"})
	for _, name := range []string{"a/b/../secret", "a/b/c/../../secret", "a/b/c/../../../secret", "a/b/../../../secret"} {
		for range 500 {
			s, err := readFile(t, v, name)
			if err == nil && s != "inside" || err != nil && bridge.Errno(err) != syscall.ENOENT {
				t.Errorf("%s: %q, %v", name, s, err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

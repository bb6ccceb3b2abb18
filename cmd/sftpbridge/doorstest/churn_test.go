package doorstest

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const (
	churners   = 3 // at each door
	churnSteps = 120
)

// TestChurn has several processes at the mount and several SFTP clients make,
// link, rename and remove the same names in the same directories at the same
// time. What is left must be a tree: the same through both doors and for the
// backend, with every name that is listed to be found.
func TestChurn(t *testing.T) {
	onBackends(t, func(t *testing.T, r *rig, kind backendKind) {
		root := users[0]
		var callers []*child
		var clients []*client
		for range churners {
			callers = append(callers, startChild(t, root))
			clients = append(clients, startClient(t, r, root))
		}
		for _, dir := range churnDirs {
			callers[0].call(t, call{Op: "mkdir", Path: r.mount + "/" + dir, A: 0o755})
		}
		var wg sync.WaitGroup
		for i := range churners {
			rnd1 := rand.New(rand.NewPCG(*verdictSeed, uint64(2*i)))
			rnd2 := rand.New(rand.NewPCG(*verdictSeed, uint64(2*i+1)))
			wg.Go(func() {
				for range churnSteps {
					c := randomChurn(rnd1)
					if a := callers[i].call(t, c.under(r.mount)); !benign[a.Errno] {
						t.Errorf("-seed %d: mount: %v: %v %s", *verdictSeed, c, a.Errno, a.Text)
					}
				}
			})
			wg.Go(func() {
				for range churnSteps {
					c := randomChurn(rnd2)
					if a := clients[i].call(t, c); !benignStatus[a.Errno] {
						t.Errorf("-seed %d: SFTP: %v: status %d %s", *verdictSeed, c, a.Errno, a.Text)
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		seen := survey(t, r.mount, kind.inode)
		compareTrees(t, "SFTP", seen, surveySFTP(t, clients[0], ""))
		if kind.direct != "" {
			compareTrees(t, "the backend", seen, survey(t, filepath.Join(r.dir, kind.direct), true))
		}
	})
}

var (
	churnDirs  = []string{"p", "q", "p/s"}
	churnNames = []string{"a", "b", "c"}
)

// The errnos and statuses that follow from what the others do.
var (
	benign = errnos(0, syscall.ENOENT, syscall.EEXIST, syscall.ENOTEMPTY, syscall.ENOTDIR, syscall.EISDIR,
		syscall.EINVAL, syscall.ELOOP, syscall.EPERM)
	benignStatus = errnos(0, 2, 3, 4, 5)
)

func errnos(list ...syscall.Errno) map[syscall.Errno]bool {
	m := make(map[syscall.Errno]bool)
	for _, e := range list {
		m[e] = true
	}
	return m
}

func randomChurn(rnd *rand.Rand) call {
	path := func() string { return pick(rnd, churnDirs) + "/" + pick(rnd, churnNames) }
	switch rnd.IntN(9) {
	case 0, 1:
		data := strings.Repeat(string(rune('a'+rnd.IntN(26))), rnd.IntN(3000))
		return call{Op: "open", Path: path(), A: syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC, B: 0o644, Data: data}
	case 2:
		return call{Op: "mkdir", Path: path(), A: 0o755}
	case 3:
		return call{Op: "rmdir", Path: path()}
	case 4:
		return call{Op: "unlink", Path: path()}
	case 5:
		return call{Op: "link", Path: path(), Path2: path()}
	case 6:
		return call{Op: "symlink", Path: path(), Path2: pick(rnd, churnNames)}
	case 7:
		return call{Op: "list", Path: pick(rnd, churnDirs)}
	}
	c := call{Op: "rename", Path: path(), Path2: path()}
	if rnd.IntN(4) == 0 { // whole directories, in and out of each other
		c.Path, c.Path2 = pick(rnd, churnDirs), path()
		if rnd.IntN(2) == 0 {
			c.Path, c.Path2 = c.Path2, c.Path
		}
	}
	return c
}

// survey returns what is below a directory: type and permissions, size, and
// content. With links, it looks whether all link counts are right.
func survey(t *testing.T, root string, links bool) map[string]string {
	t.Helper()
	tree := make(map[string]string)
	names := make(map[uint64][]string) // of files, by inode
	counts := make(map[uint64]uint64)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		st := info.Sys().(*syscall.Stat_t)
		e := entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size}
		tree[name] = e.statText()
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			tree[name] += " " + string(data)
			names[st.Ino] = append(names[st.Ino], name)
			counts[st.Ino] = uint64(st.Nlink)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			tree[name] += " " + target
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", root, err)
	}
	for ino, count := range counts {
		if links && count != uint64(len(names[ino])) {
			t.Errorf("%s: %v have %d links", root, names[ino], count)
		}
	}
	return tree
}

// surveySFTP is survey through the SFTP door.
func surveySFTP(t *testing.T, c *client, dir string) map[string]string {
	t.Helper()
	info := c.call(t, call{Op: "lstat", Path: dir})
	tree := map[string]string{dir: info.Text}
	list := c.call(t, call{Op: "list", Path: dir})
	if list.Errno != 0 || info.Errno != 0 {
		t.Errorf("SFTP: %q: statuses %d and %d", dir, info.Errno, list.Errno)
	}
	for _, name := range strings.Fields(list.Text) {
		path := dir + "/" + name
		a := c.call(t, call{Op: "lstat", Path: path})
		if a.Errno != 0 {
			t.Errorf("SFTP: %q is listed, but lstat has status %d", path, a.Errno)
		}
		var more answer
		switch a.Text[0] {
		case '4':
			maps.Copy(tree, surveySFTP(t, c, path))
			continue
		case '1':
			if strings.HasPrefix(a.Text, "12") {
				more = c.call(t, call{Op: "readlink", Path: path})
			} else {
				more = c.call(t, call{Op: "open", Path: path, A: syscall.O_RDONLY})
			}
		}
		if more.Errno != 0 {
			t.Errorf("SFTP: %q cannot be read: status %d", path, more.Errno)
		}
		tree[path] = a.Text + " " + more.Text
	}
	return tree
}

func compareTrees(t *testing.T, who string, want, got map[string]string) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(want)) {
		if path != "" && got[path] != want[path] {
			t.Errorf("%q is %.100q at the mount and %.100q for %s", path, want[path], got[path], who)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[path]; !ok {
			t.Errorf("%q is %.100q for %s and not at the mount", path, got[path], who)
		}
	}
}

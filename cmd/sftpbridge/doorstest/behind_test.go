package doorstest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// eventually waits until a door shows what somebody else has changed.
func eventually(t *testing.T, what string, seen func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = seen(); err == nil {
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}

// TestBehindOurBack has somebody else change what the kernel and the tree have
// remembered: files, directories and names that were not there.
func TestBehindOurBack(t *testing.T) {
	onBackends(t, func(t *testing.T, r *rig, kind backendKind) {
		if kind.direct == "" {
			return // nobody else gets at the memory of a process
		}
		there, here := filepath.Join(r.dir, kind.direct), r.mount
		must(t, os.Mkdir(filepath.Join(there, "d"), 0o755))
		must(t, os.WriteFile(filepath.Join(there, "d/f"), []byte("first"), 0o644))
		must(t, os.WriteFile(filepath.Join(there, "d/gone"), nil, 0o644))
		must(t, os.WriteFile(filepath.Join(there, "d/old"), []byte("moved"), 0o644))
		// Everything is looked at, so that it is remembered.
		eventually(t, "what was there before", func() error { return wantFile(here+"/d/f", "first", 0o644) })
		for _, name := range []string{"d/gone", "d/old", "d/new", "d/renamed", "d/sub"} {
			os.Stat(filepath.Join(here, name))
		}
		os.ReadDir(filepath.Join(here, "d"))

		must(t, os.WriteFile(filepath.Join(there, "d/f"), []byte("second, and longer"), 0o644))
		must(t, os.Chmod(filepath.Join(there, "d/f"), 0o600))
		must(t, os.Remove(filepath.Join(there, "d/gone")))
		must(t, os.WriteFile(filepath.Join(there, "d/new"), []byte("new"), 0o644))
		must(t, os.Rename(filepath.Join(there, "d/old"), filepath.Join(there, "d/renamed")))
		must(t, os.Mkdir(filepath.Join(there, "d/sub"), 0o700))

		eventually(t, "changed file", func() error { return wantFile(here+"/d/f", "second, and longer", 0o600) })
		eventually(t, "removed file", func() error { return wantNone(here + "/d/gone") })
		eventually(t, "new file", func() error { return wantFile(here+"/d/new", "new", 0o644) })
		eventually(t, "old name", func() error { return wantNone(here + "/d/old") })
		eventually(t, "new name", func() error { return wantFile(here+"/d/renamed", "moved", 0o644) })
		eventually(t, "listing", func() error {
			entries, err := os.ReadDir(here + "/d")
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			if want := []string{"f", "new", "renamed", "sub"}; !slices.Equal(names, want) {
				return fmt.Errorf("%q, %v; want %q", names, err, want)
			}
			return nil
		})
		// A directory that the mount renamed is still looked after.
		must(t, os.Rename(here+"/d", here+"/e"))
		os.Stat(here + "/e/later")
		must(t, os.WriteFile(there+"/e/later", []byte("x"), 0o644))
		eventually(t, "in a renamed directory", func() error { return wantFile(here+"/e/later", "x", 0o644) })
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantFile(path, data string, perm os.FileMode) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != data || info.Size() != int64(len(data)) || info.Mode().Perm() != perm {
		return fmt.Errorf("%q, size %d, mode %v, %v; want %q, mode %v", got, info.Size(), info.Mode().Perm(), err, data, perm)
	}
	return nil
}

func wantNone(path string) error {
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		return fmt.Errorf("still there: %v", err)
	}
	return nil
}

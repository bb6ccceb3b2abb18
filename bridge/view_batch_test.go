package bridge_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// TestAttrBatch puts paths of all kinds to a batch, in any order, and has each
// answered as the view itself answers it.
func TestAttrBatch(t *testing.T) {
	local, _ := newLocal(t)
	for name, tree := range map[string]*bridge.Tree{
		"memory": newTreeWith(t, memfs.New(), bridge.Options{Protected: allProtected}), "local": local, "slow": newTree(t, slow{memfs.New()}),
	} {
		for user, avatar := range map[string]bridge.Avatar{
			"eve":   {Cred: *eve, Home: "/home"},
			"alice": {Cred: *alice, Home: "/home/private"},
			"root":  {},
			"rules": {Rules: bridge.Rules{{Pattern: "/home/**", Ops: bridge.OpList}}},
		} {
			t.Run(name+" "+user, func(t *testing.T) { compareBatch(t, tree, avatar) })
		}
	}
}

func compareBatch(t *testing.T, tree *bridge.Tree, avatar bridge.Avatar) {
	root := newView(t, tree, &bridge.Avatar{})
	if _, err := root.GetAttrs(t.Context(), "/jail", false); err != nil {
		_, admin := newJailIn(t, tree, avatar)
		must(t, admin.MakeLink(t.Context(), "/jail/home/way", "private"))
		must(t, admin.MakeLink(t.Context(), "/jail/pub/up", "../home"))
		must(t, admin.MakeLink(t.Context(), "/jail/pub/nowhere", "nothing"))
		must(t, admin.MakeLink(t.Context(), "/jail/pub/loop", "loop"))
		must(t, admin.MakeLink(t.Context(), "/jail/pub/alices", "../home"))
		must(t, admin.SetLinkAttrs(t.Context(), "/jail/pub/alices", owned(0, alice).Without(bridge.SetMode)))
	}
	avatar.Root = "/jail"
	v := newView(t, tree, &avatar)
	var paths []string
	for _, dir := range []string{"", "/", "//", "/home/", "home/", "/home//", "/home/private/", "/home/way/", "/pub/up/",
		"/pub/../home/", "/home/file/", "/nothing/", "../", "/pub/loop/", "/home/private/../", "/pub/alices/"} {
		for _, name := range []string{"", ".", "..", "home", "file", "private", "way", "deep", "nowhere", "loop", "up", "alices", "nothing",
			"private/", "a\x00b", strings.Repeat("n", 300), strings.Repeat("n", 4096)} {
			paths = append(paths, dir+name)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	b := v.AttrBatch()
	defer b.Close()
	for _, path := range paths {
		for range 2 {
			follow := rng.IntN(2) == 0
			got, err := b.GetAttrs(t.Context(), path, follow)
			want, wantErr := v.GetAttrs(t.Context(), path, follow)
			if got != want || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Fatalf("%.40q, follow %v: %+v, %v; want %+v, %v", path, follow, got, err, want, wantErr)
			}
		}
	}
}

// TestAttrBatchesSeeChanges: what others change between two batches is seen.
func TestAttrBatchesSeeChanges(t *testing.T) {
	tree, dir := newLocal(t)
	d := filepath.Join(dir, "d")
	must(t, os.Mkdir(d, 0o755))
	must(t, os.WriteFile(filepath.Join(d, "f"), []byte("one"), 0o644))
	v := newView(t, tree, &bridge.Avatar{Cred: *eve})
	look := func() string {
		b := v.AttrBatch()
		defer b.Close()
		a, err := b.GetAttrs(t.Context(), "/d/f", false)
		if err != nil {
			return bridge.Errno(err).Error()
		}
		return fmt.Sprint(a.Size)
	}
	if got := look(); got != "3" {
		t.Errorf("at first: %s", got)
	}
	must(t, os.Truncate(filepath.Join(d, "f"), 7))
	if got := look(); got != "7" {
		t.Errorf("after truncation: %s", got)
	}
	must(t, os.Chmod(d, 0o700))
	if got := look(); got != "permission denied" {
		t.Errorf("in a directory that was closed: %s", got)
	}
	must(t, os.Chmod(d, 0o755))
	must(t, os.Rename(d, filepath.Join(dir, "old")))
	if got := look(); got != "no such file or directory" {
		t.Errorf("in a directory that was moved: %s", got)
	}
	must(t, os.Mkdir(d, 0o755))
	must(t, os.WriteFile(filepath.Join(d, "f"), []byte("other"), 0o644))
	if got := look(); got != "5" {
		t.Errorf("in another directory: %s", got)
	}
	must(t, os.RemoveAll(d))
	must(t, os.Symlink("/etc", d))
	if got := look(); got != "no such file or directory" {
		t.Errorf("through a link that leads out: %s", got)
	}
}

package bridge_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// benchTree returns a tree with the directory d/e of 1,000 files, and a user
// who may only read it.
func benchTree(b *testing.B, slowly bool) (*bridge.Tree, bridge.Caller) {
	b.Helper()
	var backend bridge.Backend = memfs.New()
	if slowly {
		backend = slow{backend.(*memfs.FS)}
	}
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	for _, dir := range []string{"d", "d/e"} {
		check(backend.Mkdir(ctx, dir, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755}))
	}
	for i := range 1000 {
		f, err := backend.Open(ctx, fmt.Sprintf("d/e/f%03d", i), syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
		check(err)
		check(f.Close(ctx))
	}
	tree, err := bridge.New(ctx, backend, bridge.Options{AttrTimeout: 1 << 40})
	check(err)
	b.Cleanup(func() { tree.Close() })
	return tree, someone(tree, 1000)
}

// eachSpeed runs a benchmark over a backend that is asked each time, and over
// one that is believed.
func eachSpeed(b *testing.B, run func(b *testing.B, tree *bridge.Tree, c bridge.Caller)) {
	for _, slowly := range []bool{false, true} {
		name := map[bool]string{false: "fast", true: "slow"}[slowly]
		b.Run(name, func(b *testing.B) {
			tree, c := benchTree(b, slowly)
			b.ReportAllocs()
			b.ResetTimer()
			run(b, tree, c)
		})
	}
}

// benchNode returns the node at path, which the benchmark holds until its end.
func benchNode(b *testing.B, tree *bridge.Tree, path string) *bridge.Node {
	b.Helper()
	n, _, err := tree.Walk(ctx, path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { tree.Forget(n, 1) })
	return n
}

// BenchmarkLookup finds a name in a directory, as the mount's LOOKUP does.
func BenchmarkLookup(b *testing.B) {
	eachSpeed(b, func(b *testing.B, tree *bridge.Tree, c bridge.Caller) {
		dir := benchNode(b, tree, "/d/e")
		for b.Loop() {
			n, _, err := tree.Lookup(ctx, c, dir, "f500")
			if err != nil {
				b.Fatal(err)
			}
			tree.Forget(n, 1)
		}
	})
}

// BenchmarkGetAttrs walks a path of three names, as LSTAT does.
func BenchmarkGetAttrs(b *testing.B) {
	eachSpeed(b, func(b *testing.B, tree *bridge.Tree, c bridge.Caller) {
		v, err := tree.View(ctx, c.Avatar, c.Door)
		if err != nil {
			b.Fatal(err)
		}
		defer v.Close()
		for b.Loop() {
			if _, err := v.GetAttrs(ctx, "/d/e/f500", false); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEntries lists a directory of 1,000 files with their attributes.
func BenchmarkEntries(b *testing.B) {
	eachSpeed(b, func(b *testing.B, tree *bridge.Tree, c bridge.Caller) {
		dir := benchNode(b, tree, "/d/e")
		for b.Loop() {
			d, err := tree.OpenDir(ctx, c, dir)
			if err != nil {
				b.Fatal(err)
			}
			look := d.Look(ctx, c)
			for e, err := range d.Entries(ctx, 2) {
				if err != nil {
					b.Fatal(err)
				}
				if _, err := look.Attr(ctx, e); err != nil {
					b.Fatal(err)
				}
			}
			look.Close()
			d.Close()
		}
	})
}

// BenchmarkCheckAccess is the verdict on one inode, for a member of 16 groups.
func BenchmarkCheckAccess(b *testing.B) {
	cred := bridge.Cred{UID: 1000, GID: 1000}
	for i := range uint32(16) {
		cred.Groups = append(cred.Groups, 2000+i)
	}
	a := bridge.Attr{Mode: syscall.S_IFREG | 0o640, UID: 1, GID: 2015}
	b.ReportAllocs()
	for b.Loop() {
		if err := bridge.CheckAccess(&cred, a, bridge.MayRead); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRules asks ten rules about a path.
func BenchmarkRules(b *testing.B) {
	var rules bridge.Rules
	for i := range 10 {
		rules = append(rules, bridge.Rule{Pattern: fmt.Sprintf("/d%d/**", i), Ops: bridge.OpAll, Allow: true})
	}
	path := "/d9/" + strings.Repeat("e/", 5) + "f"
	b.ReportAllocs()
	for b.Loop() {
		if err := rules.Check(bridge.OpRead, path); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEvent makes a change that two other doors are told of.
func BenchmarkEvent(b *testing.B) {
	eachSpeed(b, func(b *testing.B, tree *bridge.Tree, c bridge.Caller) {
		var subs []*bridge.Subscription
		for range 2 {
			s := tree.Subscribe()
			defer s.Close()
			subs = append(subs, s)
		}
		n := benchNode(b, tree, "/d/e/f500")
		root := superuser(tree)
		for b.Loop() {
			if _, err := tree.SetAttr(ctx, root, n, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600}); err != nil {
				b.Fatal(err)
			}
			for _, s := range subs {
				if len(s.Take()) == 0 {
					b.Fatal("no event")
				}
				s.Done()
			}
		}
	})
}

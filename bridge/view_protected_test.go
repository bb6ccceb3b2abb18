package bridge_test

import (
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

var allProtected = bridge.Protected{Symlinks: true, Hardlinks: true, Regular: 2, FIFOs: 2}

// newTmp returns the view that an avatar has of a tree with a directory like
// /tmp. In it alice has a file and links, and so has the avatar.
func newTmp(t *testing.T, slowly bool, p bridge.Protected, avatar bridge.Avatar) *bridge.View {
	t.Helper()
	b := bridge.Backend(memfs.New())
	if slowly {
		b = slow{memfs.New()}
	}
	tree := newTreeWith(t, b, bridge.Options{Protected: p})
	admin := newView(t, tree, &bridge.Avatar{})
	makeDir(t, admin, "/tmp", 0o1777, root)
	makeDir(t, admin, "/tmp/dir", 0o777, root)
	writeFile(t, admin, "/tmp/dir/file", "content", 0o666, alice)
	for name, c := range map[string]*bridge.Cred{"alice": alice, "own": &avatar.Cred} {
		writeFile(t, admin, "/tmp/"+name, "content", 0o666, c)
		for link, target := range map[string]string{"-dir": "dir", "-file": "dir/file", "-new": "dir/new-" + name} {
			must(t, admin.MakeLink(t.Context(), "/tmp/"+name+link, target))
			must(t, admin.SetLinkAttrs(t.Context(), "/tmp/"+name+link, owned(0, c).Without(bridge.SetMode)))
		}
	}
	must(t, admin.MakeLink(t.Context(), "/tmp/dir/on", "../alice-file"))
	return newView(t, tree, &avatar)
}

// TestViewProtected has each operation done through links, and to files, of
// somebody else in a sticky directory that is open to all.
func TestViewProtected(t *testing.T) {
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o666}
	open := func(path string, flags bridge.OpenFlags) func(v *bridge.View) error {
		return func(v *bridge.View) error {
			f, err := v.OpenFile(t.Context(), path, flags, mode)
			if err == nil {
				err = f.Close(t.Context())
			}
			return err
		}
	}
	stat := func(path string, follow bool) func(v *bridge.View) error {
		return func(v *bridge.View) error { _, err := v.GetAttrs(t.Context(), path, follow); return err }
	}
	const eacces = syscall.EACCES
	const creat = syscall.O_WRONLY | syscall.O_CREAT
	tests := []struct {
		name string
		do   func(v *bridge.View) error
		want syscall.Errno
	}{
		{"stat", stat("alice-file", true), eacces},
		{"stat with a slash", stat("alice-dir/", true), eacces},
		{"lstat with a slash", stat("alice-dir//", false), eacces},
		{"stat by another link", stat("dir/on", true), eacces},
		{"lstat", stat("alice-file", false), 0},
		{"lstat below", stat("alice-dir/file", false), 0},
		{"stat below", stat("alice-dir/file", true), 0},
		{"stat of the directory itself", stat("alice-dir/.", true), 0},
		{"stat of own", stat("own-file", true), 0},
		{"batch", func(v *bridge.View) error {
			b := v.AttrBatch()
			defer b.Close()
			_, err := b.GetAttrs(t.Context(), v.Avatar().Home+"/alice-file", true)
			return err
		}, eacces},
		{"batch below", func(v *bridge.View) error {
			b := v.AttrBatch()
			defer b.Close()
			_, err := b.GetAttrs(t.Context(), v.Avatar().Home+"/alice-dir/file", true)
			return err
		}, 0},
		{"open", open("alice-file", syscall.O_RDONLY), eacces},
		{"open own", open("own-file", syscall.O_RDONLY), 0},
		{"open below", open("alice-dir/file", syscall.O_RDONLY), 0},
		{"create by a link", open("alice-file", creat), eacces},
		{"create what is not there by a link", open("alice-new", creat), eacces},
		{"create with O_EXCL at a link", open("alice-new", creat|syscall.O_EXCL), syscall.EEXIST},
		{"create by own link", open("own-new", creat), 0},
		{"create below", open("alice-dir/more", creat), 0},
		{"create what is other's", open("alice", creat), eacces},
		{"empty what is other's", open("alice", creat|syscall.O_TRUNC), eacces},
		{"create what is other's with O_EXCL", open("alice", creat|syscall.O_EXCL), syscall.EEXIST},
		{"create what is own", open("own", creat), 0},
		{"write to what is other's", open("alice", syscall.O_WRONLY|syscall.O_TRUNC), 0},
		{"create what is other's elsewhere", open("dir/file", creat), 0},
		{"realpath", func(v *bridge.View) error { _, err := v.RealPath(t.Context(), "alice-new"); return err }, eacces},
		{"realpath below", func(v *bridge.View) error { _, err := v.RealPath(t.Context(), "alice-dir/x"); return err }, 0},
		{"readlink", func(v *bridge.View) error { _, err := v.ReadLink(t.Context(), "alice-file"); return err }, 0},
		{"list", func(v *bridge.View) error { _, err := v.OpenDirectory(t.Context(), "alice-dir"); return err }, eacces},
		{"statfs", func(v *bridge.View) error { _, err := v.StatFS(t.Context(), "alice-dir"); return err }, eacces},
		{"truncate", func(v *bridge.View) error {
			return v.SetAttrs(t.Context(), "alice-file", bridge.SetAttr{Valid: bridge.SetSize})
		}, eacces},
		{"link", func(v *bridge.View) error { return v.HardLink(t.Context(), "alice", "l") }, 0},
	}
	for who, avatar := range map[string]bridge.Avatar{
		"eve": {Cred: *eve, Home: "/tmp"}, "eve in there": {Cred: *eve, Root: "/tmp"}, "root": {Home: "/tmp"},
	} {
		for name, slowly := range map[string]bool{"fast": false, "slow": true} {
			for _, tt := range tests {
				what := tt.name + " by " + who + ", " + name
				wantErrno(t, what, tt.do(newTmp(t, slowly, allProtected, avatar)), tt.want)
				if tt.want == eacces {
					wantErrno(t, what+", not protected", tt.do(newTmp(t, slowly, bridge.Protected{}, avatar)), 0)
				}
			}
		}
	}
}

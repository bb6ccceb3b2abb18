package backendtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"sort"
	"strings"
	"syscall"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

var randomTests = []test{
	{"Seed1", func(e *env) { testRandom(e, 1) }},
	{"Seed2", func(e *env) { testRandom(e, 2) }},
	{"Seed3", func(e *env) { testRandom(e, 3) }},
}

// testRandom does the same random steps to the backend and to a memfs. Each
// must end alike, and in between the trees must be the same.
func testRandom(e *env, seed uint64) {
	steps, every := 1_000, 20
	if e.b.Traits().Slow {
		steps, every = 300, 50
	}
	p := &pair{
		env:   e,
		rng:   rand.New(rand.NewPCG(seed, seed)),
		model: memfs.New(),
	}
	p.flags = e.renameFlags()
	p.nlink = p.knowsLinks()
	defer p.closeFiles()
	for p.step = range steps {
		p.random()
		if e.Failed() {
			e.Fatalf("seed %d, step %d; the steps were:\n%s", seed, p.step, strings.Join(p.log, "\n"))
		}
		if p.step%every == every-1 {
			p.compare()
		}
	}
	p.compare()
}

// knowsLinks reports whether the backend counts the links of files.
func (e *env) knowsLinks() bool {
	e.Helper()
	e.put("probe", "")
	known := e.lstat("probe").Nlink > 0
	e.need(e.b.Remove(e.ctx, "probe"), "Remove")
	return known
}

// A pair is the backend and the model of it.
type pair struct {
	*env
	rng   *rand.Rand
	model bridge.Backend
	files [4][2]bridge.File  // open files: that of the backend and the model's
	flags bridge.RenameFlags // those that the backend has
	nlink bool               // whether the backend counts links
	step  int
	log   []string
}

// name returns one of few names, so that steps get in each other's way.
func (p *pair) name() string {
	elems := []string{"a", "b", "c", "d"}
	n := 1 + p.rng.IntN(3)
	name := ""
	for range n {
		name = path.Join(name, elems[p.rng.IntN(len(elems))])
	}
	return name
}

// both does one step to the backend and to the model, and compares the errors.
// Those of also will do as well, if there is one.
func (p *pair) both(what string, do func(i int, b bridge.Backend) error, also ...syscall.Errno) {
	p.Helper()
	got, want := do(0, p.b), do(1, p.model)
	p.log = append(p.log, fmt.Sprintf("%d: %s = %v", p.step, what, got))
	if (got == nil) != (want == nil) {
		p.Errorf("%s = %v; want %v", what, got, want)
		return
	}
	if got == nil || want == io.EOF && got == io.EOF {
		return
	}
	also = append(also, bridge.Errno(want))
	if bridge.Errno(want) == syscall.ENOTEMPTY {
		also = append(also, syscall.EEXIST)
	}
	p.wantErrno(got, what, also...)
}

// bad returns the errnos of those names that lead nowhere. Where more than one
// thing is wrong, a backend may tell of any.
func (p *pair) bad(names ...string) []syscall.Errno {
	var errnos []syscall.Errno
	for _, name := range names {
		if _, err := p.model.Lstat(p.ctx, name); err != nil {
			errnos = append(errnos, bridge.Errno(err))
		}
	}
	return errnos
}

// random does one random step.
func (p *pair) random() {
	name, other := p.name(), p.name()
	steps := []func(){
		func() { p.mkdir2(name) }, func() { p.mkdir2(name) }, func() { p.mkdir2(name) },
		func() { p.remove(name) }, func() { p.rmdir(name) },
		func() { p.rename2(name, other) }, func() { p.rename2(name, other) }, func() { p.rename2(name, other) },
		func() { p.openFile(name) }, func() { p.openFile(name) }, func() { p.openFile(name) },
		p.write, p.write, p.write, p.truncate, p.read, p.read,
		func() { p.setAttr(name) }, func() { p.setAttr(name) },
		func() { p.symlink2(name, other) }, func() { p.link2(name, other) },
	}
	steps[p.rng.IntN(len(steps))]()
}

func (p *pair) mkdir2(name string) {
	perm := p.perm() | 0o700
	p.both(fmt.Sprintf("Mkdir(%s, %04o)", name, perm), func(_ int, b bridge.Backend) error {
		return b.Mkdir(p.ctx, name, mode(perm))
	})
}

// perm returns random permissions that leave the owner all he needs.
func (p *pair) perm() uint32 { return uint32(p.rng.IntN(0o1000)) | 0o600 }

func (p *pair) remove(name string) {
	p.both("Remove("+name+")", func(_ int, b bridge.Backend) error { return b.Remove(p.ctx, name) })
}

func (p *pair) rmdir(name string) {
	p.both("Rmdir("+name+")", func(_ int, b bridge.Backend) error { return b.Rmdir(p.ctx, name) })
}

func (p *pair) rename2(from, to string) {
	flags := bridge.RenameFlags(0)
	if p.rng.IntN(3) == 0 && p.flags != 0 {
		flags = p.flags & bridge.RenameFlags(1+p.rng.IntN(2))
	}
	p.both(fmt.Sprintf("Rename(%s, %s, %d)", from, to, flags), func(_ int, b bridge.Backend) error {
		return b.Rename(p.ctx, from, to, flags)
	}, p.bad(from, to)...)
}

func (p *pair) symlink2(name, target string) {
	if _, ok := p.b.(bridge.SymlinkBackend); !ok {
		return
	}
	p.both("Symlink("+target+", "+name+")", func(_ int, b bridge.Backend) error {
		return b.(bridge.SymlinkBackend).Symlink(p.ctx, target, name, bridge.SetAttr{})
	})
}

func (p *pair) link2(old, new string) {
	if _, ok := p.b.(bridge.LinkBackend); !ok {
		return
	}
	p.both("Link("+old+", "+new+")", func(_ int, b bridge.Backend) error {
		return b.(bridge.LinkBackend).Link(p.ctx, old, new)
	}, p.bad(old, new)...)
}

func (p *pair) setAttr(name string) {
	set := mode(p.perm() | 0o700)
	if p.rng.IntN(2) == 0 {
		set.Valid |= bridge.SetAtime | bridge.SetMtime
		set.Atime = time.Unix(p.rng.Int64N(1<<31), 0)
		set.Mtime = time.Unix(p.rng.Int64N(1<<31), 0)
	}
	if p.rng.IntN(2) == 0 && !p.opt.NoOwner {
		set.Valid |= bridge.SetUID | bridge.SetGID
		set.UID, set.GID = uint32(p.rng.IntN(5)), uint32(p.rng.IntN(5))
	}
	if a, err := p.model.Lstat(p.ctx, name); err == nil && a.IsSymlink() {
		return // each backend sets of a link what it can
	}
	p.both(fmt.Sprintf("SetAttr(%s, %+v)", name, set), func(_ int, b bridge.Backend) error {
		return b.SetAttr(p.ctx, name, set)
	})
	got, err := p.b.Lstat(p.ctx, name)
	if err == nil && set.Has(bridge.SetMtime) && !got.Mtime.Equal(set.Mtime) {
		p.Errorf("SetAttr(%s): mtime %v; want %v", name, got.Mtime, set.Mtime)
	}
}

// openFile opens name in a random way in the place of another open file.
func (p *pair) openFile(name string) {
	i := p.rng.IntN(len(p.files))
	p.closeFile(i)
	flags := rdwr
	for _, f := range []bridge.OpenFlags{creat, creat, excl, trunc, apnd} {
		if p.rng.IntN(3) == 0 {
			flags |= f
		}
	}
	if flags.Has(excl) {
		flags |= creat // alone it means nothing
	}
	perm := p.perm()
	p.both(fmt.Sprintf("files[%d] = Open(%s, %#x, %04o)", i, name, flags, perm), func(j int, b bridge.Backend) error {
		f, err := b.Open(p.ctx, name, flags, mode(perm))
		if err == nil {
			p.files[i][j] = f
		}
		return err
	})
}

func (p *pair) closeFile(i int) {
	for j, f := range p.files[i] {
		if f == nil {
			continue
		}
		if err := f.Close(context.Background()); err != nil {
			p.Errorf("Close of files[%d][%d]: %v", i, j, err)
		}
		p.files[i][j] = nil
	}
}

func (p *pair) closeFiles() {
	for i := range p.files {
		p.closeFile(i)
	}
}

// file returns a random open file, or -1.
func (p *pair) file() int {
	i := p.rng.IntN(len(p.files))
	if p.files[i][0] == nil || p.files[i][1] == nil {
		return -1
	}
	return i
}

// offset returns a random offset, often around the edges of blocks.
func (p *pair) offset() int64 {
	edges := []int64{0, 1, 4095, 4096, 32768, 65535, 65536, 100_000}
	return edges[p.rng.IntN(len(edges))] + p.rng.Int64N(4)
}

func (p *pair) write() {
	i := p.file()
	if i < 0 {
		return
	}
	data, off := []byte(noise(p.rng.Uint64(), int(p.offset()))), p.offset()
	p.both(fmt.Sprintf("files[%d].WriteAt(%d bytes, %d)", i, len(data), off), func(j int, _ bridge.Backend) error {
		_, err := p.files[i][j].WriteAt(p.ctx, data, off)
		return err
	})
}

func (p *pair) truncate() {
	i := p.file()
	if i < 0 {
		return
	}
	n := p.offset()
	p.both(fmt.Sprintf("files[%d].SetAttr(size %d)", i, n), func(j int, _ bridge.Backend) error {
		return p.files[i][j].SetAttr(p.ctx, size(n))
	})
}

func (p *pair) read() {
	i := p.file()
	if i < 0 {
		return
	}
	n, off := p.offset(), p.offset()
	var got [2]string
	p.both(fmt.Sprintf("files[%d].ReadAt(%d bytes, %d)", i, n, off), func(j int, _ bridge.Backend) error {
		buf := make([]byte, n)
		n, err := p.files[i][j].ReadAt(p.ctx, buf, off)
		got[j] = string(buf[:n])
		if n == len(buf) && err == io.EOF {
			err = nil // either will do
		}
		return err
	})
	if got[0] != got[1] {
		p.Errorf("ReadAt read %d bytes that are not the %d bytes of the model", len(got[0]), len(got[1]))
	}
}

// compare checks that both trees and the open files are the same.
func (p *pair) compare() {
	p.Helper()
	for i, f := range p.files {
		if f[0] == nil || f[1] == nil {
			continue
		}
		if got, want := p.content(f[0]), p.content(f[1]); got != want {
			p.Errorf("files[%d] has %d bytes that are not the %d bytes of the model", i, len(got), len(want))
		}
	}
	got, want := p.tree(p.b), p.tree(p.model)
	for name, want := range want {
		if got[name] != want {
			p.Errorf("%s is %q; want %q", name, got[name], want)
		}
	}
	for name, got := range got {
		if _, ok := want[name]; !ok {
			p.Errorf("%s is %q; want nothing", name, got)
		}
	}
	if p.Failed() {
		p.Fatalf("after step %d the trees differ; the steps were:\n%s", p.step, strings.Join(p.log, "\n"))
	}
}

// tree describes all files of a backend by name.
func (p *pair) tree(b bridge.Backend) map[string]string {
	p.Helper()
	all := make(map[string]string)
	dirs := []string{"."}
	for len(dirs) > 0 {
		dir := dirs[0]
		dirs = dirs[1:]
		var names []string
		for d, err := range b.ReadDir(p.ctx, dir) {
			p.need(err, "ReadDir %q", dir)
			names = append(names, path.Join(dir, d.Name))
		}
		sort.Strings(names)
		for _, name := range names {
			if _, ok := all[name]; ok {
				p.Errorf("%s was listed twice", name)
			}
			desc, isDir, err := p.describe(b, name)
			p.need(err, "describe %q", name)
			all[name] = desc
			if isDir {
				dirs = append(dirs, name)
			}
		}
	}
	return all
}

// describe says what name is, as far as all backends agree about it.
func (p *pair) describe(b bridge.Backend, name string) (desc string, isDir bool, err error) {
	a, err := b.Lstat(p.ctx, name)
	if err != nil {
		return "", false, err
	}
	switch {
	case a.IsDir():
		return fmt.Sprintf("%#o", a.Mode), true, nil
	case a.IsSymlink():
		target, err := b.(bridge.SymlinkBackend).Readlink(p.ctx, name)
		return "link to " + target, false, err
	}
	f, err := b.Open(p.ctx, name, rdonly, bridge.SetAttr{})
	if err != nil {
		return "", false, err
	}
	content := p.content(f)
	err = errors.Join(err, f.Close(p.ctx))
	if b == p.model && !p.nlink {
		a.Nlink = 0
	}
	return fmt.Sprintf("%#o links %d size %d %x", a.Mode, a.Nlink, a.Size, sha256.Sum256([]byte(content))), false, err
}

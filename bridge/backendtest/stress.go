package backendtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"syscall"

	"sftpbridge/bridge"
)

var stressTests = []test{
	{"Names", testStressNames},
	{"Disjoint", testStressDisjoint},
}

// Many who make, rename and remove the same few names get no other errors
// than the others are to blame for, and leave a tree that hangs together.
func testStressNames(e *env) {
	rounds := 150
	if e.b.Traits().Slow {
		rounds = 40
	}
	errs := race(6, func(worker int) error {
		rng := rand.New(rand.NewPCG(uint64(worker), 7))
		for range rounds {
			if err := e.stressStep(rng); err != nil && !blameless(err) {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			e.Error(err)
		}
	}
	e.wantConsistent(".")
	e.removeAll(".")
	if names := e.names("."); len(names) > 0 {
		e.Errorf("after removal of everything there are %v", names)
	}
}

// stressStep does one random operation on one of few names.
func (e *env) stressStep(rng *rand.Rand) error {
	name := func() string {
		dirs, files := []string{"", "a", "b", "a/c"}, []string{"a", "b", "c", "f", "g"}
		return path.Join(dirs[rng.IntN(len(dirs))], files[rng.IntN(len(files))])
	}
	n := name()
	switch rng.IntN(8) {
	case 0, 1:
		return e.b.Mkdir(e.ctx, n, mode(0o755))
	case 2, 3:
		return e.writeFile(n, n)
	case 4:
		return e.b.Remove(e.ctx, n)
	case 5:
		return e.b.Rmdir(e.ctx, n)
	case 6:
		for _, err := range e.b.ReadDir(e.ctx, n) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	return e.b.Rename(e.ctx, n, name(), 0)
}

// writeFile has the file name, made if need be, begin with the content.
func (e *env) writeFile(name, content string) error {
	f, err := e.b.Open(e.ctx, name, rdwr|creat, mode(0o644))
	if err != nil {
		return err
	}
	_, werr := f.WriteAt(e.ctx, []byte(content), 0)
	return errors.Join(werr, f.Close(context.Background()))
}

// blameless reports whether err can come of what others do to the names.
func blameless(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.ENOENT, syscall.EEXIST, syscall.ENOTDIR, syscall.EISDIR, syscall.ENOTEMPTY, syscall.EINVAL,
	}, errno)
}

// wantConsistent checks that all that is listed below dir is there.
func (e *env) wantConsistent(dir string) {
	e.Helper()
	for name, n := range e.names(dir) {
		name = path.Join(dir, name)
		if n != 1 {
			e.Errorf("%s is listed %d times", name, n)
		}
		if e.lstat(name).IsDir() {
			e.wantConsistent(name)
		} else {
			e.get(name)
		}
	}
}

// removeAll removes what is below dir.
func (e *env) removeAll(dir string) {
	e.Helper()
	for name := range e.names(dir) {
		name = path.Join(dir, name)
		if e.lstat(name).IsDir() {
			e.removeAll(name)
			e.need(e.b.Rmdir(e.ctx, name), "Rmdir %q", name)
			continue
		}
		e.need(e.b.Remove(e.ctx, name), "Remove %q", name)
	}
}

// Those who work in directories of their own do not notice the others, even
// while those directories are renamed.
func testStressDisjoint(e *env) {
	errs := race(6, func(worker int) error {
		for round := range 10 {
			if err := e.workAlone(fmt.Sprintf("dir%d-%d", worker, round)); err != nil {
				return err
			}
		}
		return nil
	})
	for _, err := range errs {
		if err != nil {
			e.Error(err)
		}
	}
	if names := e.names("."); len(names) > 0 {
		e.Errorf("there is left %v", names)
	}
}

// workAlone makes the directory dir with files in it, renames it and takes it
// away again. All must succeed.
func (e *env) workAlone(dir string) error {
	moved, tmp, file := dir+"-moved", dir+"/tmp", dir+"-moved/file"
	steps := []func() error{
		func() error { return e.b.Mkdir(e.ctx, dir, mode(0o755)) },
		func() error { return e.writeFile(tmp, dir) },
		func() error { return e.b.Rename(e.ctx, dir, moved, 0) },
		func() error { return e.b.Rename(e.ctx, moved+"/tmp", file, 0) },
		func() error { return e.b.SetAttr(e.ctx, file, mode(0o600)) },
		func() error { return e.wantFile(file, dir) },
		func() error { return e.b.Remove(e.ctx, file) },
		func() error { return e.b.Rmdir(e.ctx, moved) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("%s, step %d: %w", dir, i, err)
		}
	}
	return nil
}

// wantFile returns an error if the file has not the content.
func (e *env) wantFile(name, want string) error {
	f, err := e.b.Open(e.ctx, name, rdonly, bridge.SetAttr{})
	if err != nil {
		return err
	}
	got, rerr := readAll(e.ctx, f)
	if err := errors.Join(rerr, f.Close(e.ctx)); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("content %s; want %s", brief(got), brief(want))
	}
	return nil
}

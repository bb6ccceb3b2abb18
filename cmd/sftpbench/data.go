package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A scale says how large the data sets are.
type scale struct {
	big    int64 // the large file
	part   int64 // each of the files that are read in parallel
	tree   int   // files that are listed and asked for, a hundred in a directory
	flat   int   // files in one directory
	small  int   // files of 4 KiB
	copies int   // files of 16 KiB
	git    int   // files of a repository
	ops    int   // operations on one file
	idle   int   // sessions
}

func newScale(quick bool) scale {
	if quick {
		return scale{big: 32 << 20, part: 4 << 20, tree: 500, flat: 500, small: 100, copies: 50, git: 50, ops: 500, idle: 20}
	}
	return scale{big: 1 << 30, part: 64 << 20, tree: 10000, flat: 10000, small: 2000, copies: 1000, git: 2000, ops: 20000, idle: 200}
}

const (
	parts    = 8 // files that are read in parallel
	smallLen = 4 << 10
	copyLen  = 16 << 10
)

// gitFiles is the size of the repository at a distance: git status cannot be
// ended half way.
func (s scale) gitFiles(rtt time.Duration) int {
	switch {
	case rtt == 0:
		return s.git
	case rtt <= 20*time.Millisecond:
		return max(s.git/10, 20)
	}
	return max(s.git/50, 20)
}

// need makes a data set that is not there yet.
func (l *lab) need(ctx context.Context, set string, rtt time.Duration) error {
	if set == "git" {
		set = gitName(l.size.gitFiles(rtt))
	}
	if set == "" || l.made[set] {
		return nil
	}
	if err := l.make(ctx, set, rtt); err != nil {
		return fmt.Errorf("data set %s: %w", set, err)
	}
	l.made[set] = true
	return nil
}

func (l *lab) make(ctx context.Context, set string, rtt time.Duration) error {
	dir := filepath.Join(l.data, set)
	switch set {
	case "big":
		return errors.Join(makeFile(dir, l.size.big), os.Link(dir, filepath.Join(l.local, set)))
	case "part":
		for i := range parts {
			if err := makeFile(filepath.Join(l.data, partName(i)), l.size.part); err != nil {
				return err
			}
		}
		return nil
	case "tree":
		return makeFiles(dir, l.size.tree, 100)
	case "flat":
		return makeFlat(dir, l.size.flat)
	case "copy":
		return makeFiles(dir, l.size.copies, copyLen)
	case "small":
		local := filepath.Join(l.local, set)
		return errors.Join(
			makeFiles(dir, l.size.small, smallLen),
			makeFiles(local, l.size.small, smallLen),
			runQuietly(ctx, "tar", "-C", l.local, "-cf", local+".tar", set))
	}
	return makeRepository(ctx, dir, l.size.gitFiles(rtt))
}

func partName(i int) string         { return fmt.Sprintf("part%d", i) }
func gitName(n int) string          { return fmt.Sprintf("git%d", n) }
func fileName(i int) string         { return fmt.Sprintf("d%02d/f%05d", i/100, i) }
func flatName(i int) string         { return fmt.Sprintf("f%05d", i) }
func newRandom(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// makeFile makes a file of random bytes.
func makeFile(name string, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, newRandom(1), size)
	return errors.Join(err, f.Close())
}

// makeFiles makes n files, a hundred in each directory.
func makeFiles(dir string, n, size int) error {
	data := make([]byte, size)
	random := newRandom(2)
	for i := range n {
		name := filepath.Join(dir, fileName(i))
		if i%100 == 0 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				return err
			}
		}
		random.Read(data)
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeFlat makes n empty files in one directory.
func makeFlat(dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, flatName(i)), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeRepository makes a git repository of n files in directories.
func makeRepository(ctx context.Context, dir string, n int) error {
	if err := makeFiles(dir, n, 1<<10); err != nil {
		return err
	}
	git := func(args ...string) error {
		return runQuietly(ctx, "git", append([]string{"-C", dir, "-c", "user.name=bench", "-c", "user.email=bench@localhost"}, args...)...)
	}
	if err := errors.Join(git("init", "-q"), git("add", "."), git("commit", "-q", "-m", "all")); err != nil {
		return err
	}
	index, err := os.ReadFile(dir + "/.git/index")
	if err != nil {
		return err
	}
	return os.WriteFile(dir+".index", index, 0o644)
}

// freshIndex gives the repository the index of its making, and its files
// another time, as after a copy, so that git status reads all of them once.
func (l *lab) freshIndex(rtt time.Duration) error {
	dir := filepath.Join(l.data, gitName(l.size.gitFiles(rtt)))
	index, err := os.ReadFile(dir + ".index")
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/.git/index", index, 0o644); err != nil {
		return err
	}
	// A status that was ended half way has left its lock, and no other can
	// write the index then.
	if err := os.Remove(dir + "/.git/index.lock"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	then := time.Now().Add(-24 * time.Hour)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir // an index as old as the files would be doubted: racy-git
		case d.Type().IsRegular():
			err = os.Chtimes(path, then, then)
		}
		return err
	})
}

func runQuietly(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// countFiles counts the files of a size below dir.
func countFiles(dir string, size int64) (n int, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if fi, err := d.Info(); err == nil && fi.Size() == size {
			n++
		}
		return nil
	})
	return n, err
}

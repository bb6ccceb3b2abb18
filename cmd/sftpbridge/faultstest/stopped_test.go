package faultstest

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge/sftpfs/faulty"
)

// TestStoppedUpstream has an upstream that is stopped, and a network that
// swallows everything: all calls fail in time, and go on with the same mount,
// session and open files when it is over.
func TestStoppedUpstream(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeout)
	r.start()
	up := upstreamOf(r)
	for _, err := range []error{
		up.mkdir("dir"), put(up, "dir/file", "content"), put(up, "old", "old"), up.symlink("old", "link"),
		put(up, "gone", ""), up.mkdir("empty"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	doors := make(map[string]door)
	files := make(map[string]file)
	for _, kind := range doorKinds {
		d := kind.enter(t, r)
		doors[kind.name] = d
		f, err := d.open("open-"+kind.name, os.O_RDWR|os.O_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("before "), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		files[kind.name] = f
	}
	for _, away := range []struct {
		name       string
		begin, end func()
	}{
		{"stopped", func() { r.sshd.Signal(syscall.SIGSTOP) }, func() { r.sshd.Signal(syscall.SIGCONT) }},
		{"black hole",
			func() { r.proxy.Behave(faulty.Behaviour{LoseUp: true, LoseDown: true}) },
			func() { r.proxy.Behave(faulty.Behaviour{}) }},
	} {
		time.Sleep(200 * time.Millisecond) // beyond the attribute time-out
		away.begin()
		var wg sync.WaitGroup
		for name, d := range doors {
			for what, call := range allCalls(d, files[name]) {
				wg.Go(func() {
					if err := inTime(call); err == nil || errors.Is(err, errLate) {
						t.Errorf("%s: %s at %s: %v", away.name, what, name, err)
					}
				})
			}
		}
		wg.Wait()
		away.end()
		for name, f := range files {
			eventually(t, "the open file at "+name, func() error {
				if _, err := f.WriteAt([]byte(away.name), 7); err != nil {
					return err
				}
				return f.Sync()
			})
			got, err := os.ReadFile(up.path("open-" + name))
			if want := "before " + away.name; err != nil || string(got)[:len(want)] != want {
				t.Errorf("after it was %s, the file at %s has %q, %v", away.name, name, got, err)
			}
			eventually(t, "other names at "+name, func() error { _, err := doors[name].list("dir"); return err })
		}
	}
	noneStuck(t, r.process.pid())
	for name, f := range files {
		if err := f.Close(); err != nil {
			t.Errorf("close at %s: %v", name, err)
		}
	}
}

// allCalls returns one call of each kind that needs the upstream.
func allCalls(d door, f file) map[string]func() error {
	open := func(name string, flags int) error {
		f, err := d.open(name, flags)
		if err != nil {
			return err
		}
		_, err = f.ReadAt(make([]byte, 7), 0)
		return errors.Join(err, f.Close())
	}
	return map[string]func() error{
		"stat":     func() error { _, err := d.stat("not-seen"); return err },
		"list":     func() error { _, err := d.list("dir"); return err },
		"read":     func() error { return open("dir/file", os.O_RDONLY) },
		"create":   func() error { return open("new", os.O_RDWR|os.O_CREATE) },
		"mkdir":    func() error { return d.mkdir("new-dir") },
		"rmdir":    func() error { return d.rmdir("empty") },
		"remove":   func() error { return d.remove("gone") },
		"rename":   func() error { return d.rename("old", "new-old") },
		"symlink":  func() error { return d.symlink("x", "new-link") },
		"link":     func() error { return d.link("old", "hard") },
		"chmod":    func() error { return d.chmod("old", 0o600) },
		"truncate": func() error { return d.truncate("old", 1) },
		"readlink": func() error { _, err := d.readlink("link"); return err },
		"statfs":   func() error { return d.free("") },
		"write and fsync": func() error {
			_, err := f.WriteAt([]byte("lost"), 1<<20)
			return errors.Join(err, f.Sync())
		},
	}
}

package faultstest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"
	"time"

	"sftpbridge/bridge/sftpfs/faulty"
)

// A change is an operation that must not be carried out twice.
type change struct {
	name    string
	prepare func(d mountDoor, dir string) error
	run     func(d door, dir string) error
	done    func(d mountDoor, dir string) bool // whether the upstream shows it
	again   error                              // what it is to do it once more; nil for nothing to be tried
}

func there(d mountDoor, name string) bool {
	_, err := d.stat(name)
	return err == nil
}

func put(d mountDoor, name, text string) error {
	return os.WriteFile(d.path(name), []byte(text), 0o644)
}

var changes = []change{
	{"mkdir", nil,
		func(d door, dir string) error { return d.mkdir(dir + "/new") },
		func(d mountDoor, dir string) bool { return there(d, dir+"/new") }, fs.ErrExist},
	{"rmdir",
		func(d mountDoor, dir string) error { return d.mkdir(dir + "/old") },
		func(d door, dir string) error { return d.rmdir(dir + "/old") },
		func(d mountDoor, dir string) bool { return !there(d, dir+"/old") }, fs.ErrNotExist},
	{"remove",
		func(d mountDoor, dir string) error { return put(d, dir+"/old", "old") },
		func(d door, dir string) error { return d.remove(dir + "/old") },
		func(d mountDoor, dir string) bool { return !there(d, dir+"/old") }, fs.ErrNotExist},
	{"rename",
		func(d mountDoor, dir string) error { return put(d, dir+"/old", "old") },
		func(d door, dir string) error { return d.rename(dir+"/old", dir+"/new") },
		func(d mountDoor, dir string) bool { return there(d, dir+"/new") && !there(d, dir+"/old") }, fs.ErrNotExist},
	{"rename over",
		func(d mountDoor, dir string) error {
			return errors.Join(put(d, dir+"/old", "old"), put(d, dir+"/new", "replaced"))
		},
		func(d door, dir string) error { return d.rename(dir+"/old", dir+"/new") },
		func(d mountDoor, dir string) bool { return !there(d, dir+"/old") }, fs.ErrNotExist},
	{"symlink", nil,
		func(d door, dir string) error { return d.symlink("target", dir+"/new") },
		func(d mountDoor, dir string) bool { return there(d, dir+"/new") }, fs.ErrExist},
	{"link",
		func(d mountDoor, dir string) error { return put(d, dir+"/old", "old") },
		func(d door, dir string) error { return d.link(dir+"/old", dir+"/new") },
		func(d mountDoor, dir string) bool { return there(d, dir+"/new") }, fs.ErrExist},
	{"exclusive create", nil,
		func(d door, dir string) error {
			f, err := d.open(dir+"/new", os.O_WRONLY|os.O_CREATE|os.O_EXCL)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("new"), 0)
			return errors.Join(err, f.Sync(), f.Close())
		},
		func(d mountDoor, dir string) bool { return there(d, dir+"/new") }, fs.ErrExist},
}

// TestCutInFlight has the connection break after the upstream has done what it
// was asked for and before its answer is heard. Who asked is told that it was
// done.
func TestCutInFlight(t *testing.T) {
	t.Parallel()
	r := newRig(t, 20*time.Second)
	r.start()
	up := upstreamOf(r)
	for _, kind := range doorKinds {
		d := kind.enter(t, r)
		for i, c := range changes {
			t.Run(kind.name+"/"+c.name, func(t *testing.T) {
				dir := fmt.Sprintf("%s%d", kind.name, i)
				if err := up.mkdir(dir); err != nil {
					t.Fatal(err)
				}
				if c.prepare != nil {
					if err := c.prepare(up, dir); err != nil {
						t.Fatal(err)
					}
				}
				eventually(t, "before", func() error { _, err := d.stat(dir); return err })
				r.cutWhenDone(t, func() error { return c.run(d, dir) }, func() bool { return c.done(up, dir) })
				if !c.done(up, dir) {
					t.Error("the upstream does not show it")
				}
				err := inTime(func() error { return c.run(d, dir) })
				if !errors.Is(err, c.again) && !(kind.name == "sftp" && c.again == fs.ErrExist && err != nil) { // SFTP has no such status
					t.Errorf("once more: %v, want %v", err, c.again)
				}
			})
		}
	}
}

// cutWhenDone runs a call over a line that is slow to bring answers, and cuts
// it when the upstream has carried the call out.
func (r *rig) cutWhenDone(t *testing.T, call func() error, done func() bool) {
	t.Helper()
	r.proxy.Behave(faulty.Behaviour{DelayDown: 100 * time.Millisecond})
	defer r.proxy.Behave(faulty.Behaviour{})
	ended := make(chan error, 1)
	go func() { ended <- call() }()
	for end := time.Now().Add(slack); !done() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	r.proxy.Cut(true)
	r.proxy.Behave(faulty.Behaviour{})
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it was done, and the answer is %v", err)
		}
	case <-time.After(slack):
		t.Fatal(errLate)
	}
}

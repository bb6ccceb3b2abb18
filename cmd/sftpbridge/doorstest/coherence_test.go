package doorstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A file is what the model knows of one file: its content. Names and open
// files refer to it.
type file struct{ data []byte }

func (f *file) write(data []byte, off int) {
	if need := off + len(data); need > len(f.data) {
		f.data = append(f.data, make([]byte, need-len(f.data))...)
	}
	copy(f.data[off:], data)
}

func (f *file) truncate(size int) {
	if size <= len(f.data) {
		f.data = f.data[:size]
	} else {
		f.data = append(f.data, make([]byte, size-len(f.data))...)
	}
}

// An opened is a file that is held open at one of the doors.
type opened struct {
	file   *file
	fd     *os.File // at the mount
	handle []byte   // through SFTP
}

// A world is a directory seen through both doors, and a model of it.
type world struct {
	dir    string
	base   string // of SFTP paths
	sftp   *client
	names  map[string]*file
	opened []opened
}

// TestCoherence does random things at either door, and after each compares
// what either door shows with a model: nothing may be stale.
func TestCoherence(t *testing.T) {
	onBackends(t, func(t *testing.T, r *rig, kind backendKind) {
		w := &world{dir: filepath.Join(r.mount, "d"), base: "/d/", sftp: startClient(t, r, users[0]), names: map[string]*file{}}
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.closeAll)
		rnd := rand.New(rand.NewPCG(*verdictSeed, 11))
		var last []string
		for i := range *verdictSteps {
			what, err := w.step(rnd)
			last = append(last, what)
			if err == nil {
				err = w.check(rnd)
			}
			if err != nil {
				t.Fatalf("-seed %d, step %d: %v, after\n%s", *verdictSeed, i, err, strings.Join(last[max(0, len(last)-12):], "\n"))
			}
		}
	})
}

func (w *world) closeAll() {
	for _, o := range w.opened {
		if o.fd != nil {
			o.fd.Close()
		}
	}
}

var coherenceNames = []string{"a", "b", "c"}

// step does one random thing at a random door, and to the model.
func (w *world) step(rnd *rand.Rand) (what string, err error) {
	name, mount := pick(rnd, coherenceNames), rnd.IntN(2) == 0
	data := bytes.Repeat([]byte{byte('a' + rnd.IntN(26))}, 1+rnd.IntN(9000))
	off := rnd.IntN(20000)
	door := map[bool]string{true: "mount", false: "SFTP"}[mount]
	switch rnd.IntN(12) {
	case 0, 1:
		what = fmt.Sprintf("%s: write %d at %d of %s", door, len(data), off, name)
		err = w.writeName(mount, name, data, off)
	case 2:
		what = fmt.Sprintf("%s: truncate %s to %d", door, name, off)
		err = w.truncateName(mount, name, off)
	case 3:
		to := pick(rnd, coherenceNames)
		what = fmt.Sprintf("%s: rename %s %s", door, name, to)
		err = w.rename(mount, name, to)
	case 4:
		what = fmt.Sprintf("%s: remove %s", door, name)
		err = w.remove(mount, name)
	case 5, 6:
		what = fmt.Sprintf("%s: hold %s open", door, name)
		err = w.hold(mount, name)
	case 7:
		what = "map " + name
		err = w.mmap(name, data[0])
	case 8:
		what = "close one"
		err = w.closeOne(rnd)
	default:
		if len(w.opened) == 0 {
			return "nothing", nil
		}
		i := rnd.IntN(len(w.opened))
		what = fmt.Sprintf("write %d at %d of open file %d", len(data), off, i)
		err = w.writeOpened(w.opened[i], data, off)
	}
	return what, err
}

// wantMissing turns the error of something done to a name that is not there
// into nil, and the lack of one into an error.
func wantMissing(err error) error {
	var s status
	if errors.Is(err, syscall.ENOENT) || errors.As(err, &s) && s.code == 2 {
		return nil
	}
	return fmt.Errorf("of a name that is not there: %v", err)
}

func (w *world) openSFTP(name string, flags int) ([]byte, error) {
	b, err := w.sftp.ask(fxpOpen, str(w.base+name), u32(openFlags(flags)), u32(attrPerm), u32(0o644))
	if err != nil {
		return nil, err
	}
	return str(b.str()), nil
}

func (w *world) writeName(mount bool, name string, data []byte, off int) error {
	f := w.names[name]
	if f == nil {
		f = new(file)
		w.names[name] = f
	}
	f.write(data, off)
	if mount {
		fd, err := os.OpenFile(filepath.Join(w.dir, name), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		_, err = fd.WriteAt(data, int64(off))
		return errors.Join(err, fd.Close())
	}
	h, err := w.openSFTP(name, syscall.O_RDWR|syscall.O_CREAT)
	if err != nil {
		return err
	}
	_, err = w.sftp.ask(fxpWrite, h, u64(uint64(off)), str(string(data)))
	_, cerr := w.sftp.ask(fxpClose, h)
	return errors.Join(err, cerr)
}

func (w *world) truncateName(mount bool, name string, size int) (err error) {
	if mount {
		err = os.Truncate(filepath.Join(w.dir, name), int64(size))
	} else {
		_, err = w.sftp.ask(fxpSetstat, str(w.base+name), u32(attrSize), u64(uint64(size)))
	}
	f := w.names[name]
	if f == nil {
		return wantMissing(err)
	}
	f.truncate(size)
	return err
}

func (w *world) rename(mount bool, from, to string) (err error) {
	if mount {
		err = os.Rename(filepath.Join(w.dir, from), filepath.Join(w.dir, to))
	} else {
		_, err = w.sftp.ask(fxpExtended, str("posix-rename@openssh.com"), str(w.base+from), str(w.base+to))
	}
	f := w.names[from]
	if f == nil {
		return wantMissing(err)
	}
	delete(w.names, from)
	w.names[to] = f
	return err
}

func (w *world) remove(mount bool, name string) (err error) {
	if mount {
		err = os.Remove(filepath.Join(w.dir, name))
	} else {
		_, err = w.sftp.ask(fxpRemove, str(w.base+name))
	}
	if w.names[name] == nil {
		return wantMissing(err)
	}
	delete(w.names, name)
	return err
}

func (w *world) hold(mount bool, name string) (err error) {
	o := opened{file: w.names[name]}
	if mount {
		o.fd, err = os.OpenFile(filepath.Join(w.dir, name), os.O_RDWR, 0)
	} else {
		o.handle, err = w.openSFTP(name, syscall.O_RDWR)
	}
	if o.file == nil {
		return wantMissing(err)
	}
	if err != nil {
		return err
	}
	w.opened = append(w.opened, o)
	if len(w.opened) > 6 {
		return w.close(0)
	}
	return nil
}

func (w *world) closeOne(rnd *rand.Rand) error {
	if len(w.opened) == 0 {
		return nil
	}
	return w.close(rnd.IntN(len(w.opened)))
}

func (w *world) close(i int) error {
	o := w.opened[i]
	w.opened = slices.Delete(w.opened, i, i+1)
	if o.fd != nil {
		return o.fd.Close()
	}
	_, err := w.sftp.ask(fxpClose, o.handle)
	return err
}

func (w *world) writeOpened(o opened, data []byte, off int) (err error) {
	o.file.write(data, off)
	if o.fd != nil {
		_, err = o.fd.WriteAt(data, int64(off))
	} else {
		_, err = w.sftp.ask(fxpWrite, o.handle, u64(uint64(off)), str(string(data)))
	}
	return err
}

// mmap changes every 1000th byte of a file through a shared mapping.
func (w *world) mmap(name string, b byte) error {
	f := w.names[name]
	if f == nil || len(f.data) == 0 {
		return nil
	}
	fd, err := os.OpenFile(filepath.Join(w.dir, name), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer fd.Close()
	m, err := unix.Mmap(int(fd.Fd()), 0, len(f.data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if !bytes.Equal(m, f.data) {
		err = fmt.Errorf("mapping of %s is not as it should be", name)
	}
	for i := 0; i < len(m); i += 1000 {
		m[i], f.data[i] = b, b
	}
	return errors.Join(err, unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

// check compares the model with what a random door shows of each name and of
// each open file.
func (w *world) check(rnd *rand.Rand) error {
	for _, name := range coherenceNames {
		if err := w.checkName(rnd.IntN(2) == 0, name); err != nil {
			return err
		}
	}
	for i, o := range w.opened {
		data, err := w.readOpened(o)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, o.file.data) {
			return fmt.Errorf("open file %d (mount: %v): %s", i, o.fd != nil, difference(data, o.file.data))
		}
	}
	return nil
}

func (w *world) checkName(mount bool, name string) error {
	var data []byte
	var err error
	var size int64
	if mount {
		var info os.FileInfo
		if info, err = os.Stat(filepath.Join(w.dir, name)); err == nil {
			size = info.Size()
			data, err = os.ReadFile(filepath.Join(w.dir, name))
		}
	} else {
		var b *buffer
		if b, err = w.sftp.ask(fxpLstat, str(w.base+name)); err == nil {
			size = b.attrs().Size
			var text string
			text, err = w.sftp.open(call{A: syscall.O_RDONLY}, str(w.base+name))
			data = []byte(text)
		}
	}
	f := w.names[name]
	if f == nil {
		return wantMissing(err)
	}
	if err != nil {
		return fmt.Errorf("%s (mount: %v): %w", name, mount, err)
	}
	if size != int64(len(f.data)) || !bytes.Equal(data, f.data) {
		return fmt.Errorf("%s (mount: %v): size %d, %s", name, mount, size, difference(data, f.data))
	}
	return nil
}

func (w *world) readOpened(o opened) ([]byte, error) {
	if o.fd != nil {
		return io.ReadAll(io.NewSectionReader(o.fd, 0, 1<<30))
	}
	var data []byte
	for {
		b, err := w.sftp.ask(fxpRead, o.handle, u64(uint64(len(data))), u32(1<<15))
		var s status
		if errors.As(err, &s) && s.code == statusEOF {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		data = append(data, b.str()...)
	}
}

func difference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%d bytes, want %d; the first that differs is %d: %q instead of %q", len(got), len(want), i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}

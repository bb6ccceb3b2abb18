package doorstest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// fsxMax is the size that the file of TestFsx stays below.
const fsxMax = 300_000

// TestFsx is after fsx, the file system exerciser: it reads, writes, maps,
// truncates, punches holes in and synchronises one large file, at the mount
// alone and at both doors, and compares with a model what is read.
func TestFsx(t *testing.T) {
	onBackends(t, func(t *testing.T, r *rig, kind backendKind) {
		for _, both := range []bool{false, true} {
			t.Run(map[bool]string{false: "mount", true: "both"}[both], func(t *testing.T) {
				w := &world{dir: r.mount, base: "/", sftp: startClient(t, r, users[0]), names: map[string]*file{}}
				t.Cleanup(w.closeAll)
				x := &fsx{world: w, both: both, name: t.Name()[strings.LastIndexByte(t.Name(), '/')+1:]}
				x.run(t)
				if kind.direct == "" || t.Failed() {
					return
				}
				if err := w.closeAllNow(); err != nil {
					t.Error(err)
				}
				data, err := os.ReadFile(filepath.Join(r.dir, kind.direct, x.name))
				if err != nil || !bytes.Equal(data, w.names[x.name].data) {
					t.Errorf("-seed %d: the backend has %s, %v", *verdictSeed, difference(data, w.names[x.name].data), err)
				}
			})
		}
	})
}

// An fsx exercises one file of a world.
type fsx struct {
	*world
	both   bool // through SFTP, too
	name   string
	noHole bool // the backend cannot punch holes
}

func (x *fsx) run(t *testing.T) {
	if err := x.writeName(true, x.name, nil, 0); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(*verdictSeed, 13))
	var last []string
	for i := range *verdictSteps {
		what, err := x.do(rnd)
		last = append(last, what)
		if err != nil {
			t.Fatalf("-seed %d, step %d: %v, after\n%s", *verdictSeed, i, err, strings.Join(last[max(0, len(last)-12):], "\n"))
		}
	}
}

// do does one random thing.
func (x *fsx) do(rnd *rand.Rand) (what string, err error) {
	f := x.names[x.name]
	off, length := rnd.IntN(fsxMax), 1+rnd.IntN(1<<rnd.IntN(17))
	length = min(length, fsxMax-off)
	if len(x.opened) < 2 {
		return "open", x.hold(!x.both || len(x.opened) == 0, x.name)
	}
	i := rnd.IntN(len(x.opened))
	o := x.opened[i]
	who := fmt.Sprintf("open file %d (mount: %v): ", i, o.fd != nil)
	data := bytes.Repeat([]byte{byte(1 + rnd.IntN(255))}, length)
	op := rnd.IntN(14)
	if o.fd == nil && op > 9 {
		op -= 10 // what only the mount has
	}
	switch op {
	case 0, 1, 2:
		return fmt.Sprintf("%swrite %d at %d", who, length, off), x.writeOpened(o, data, off)
	case 3, 4, 5:
		return fmt.Sprintf("%sread %d at %d", who, length, off), x.read(o, off, length)
	case 6:
		return fmt.Sprintf("%struncate to %d", who, off), x.truncate(o, off)
	case 7:
		return who + "sync", x.sync(o)
	case 8:
		return who + "close", x.close(i)
	case 9:
		return "size", x.checkSize(!x.both || rnd.IntN(2) == 0)
	case 10, 11:
		return fmt.Sprintf("%smap %d at %d", who, length, off), x.mapped(o, f, off, data)
	case 12:
		return fmt.Sprintf("%spunch a hole of %d at %d", who, length, off), x.punch(o, f, off, length)
	}
	return who + "read all", x.readAll(o)
}

func (x *fsx) read(o opened, off, length int) error {
	want := o.file.data[min(off, len(o.file.data)):min(off+length, len(o.file.data))]
	var got []byte
	if o.fd != nil {
		buf := make([]byte, length)
		n, err := syscall.Pread(int(o.fd.Fd()), buf, int64(off))
		if err != nil {
			return err
		}
		got = buf[:n]
	} else {
		length = min(length, 1<<15)
		want = want[:min(length, len(want))]
		b, err := x.sftp.ask(fxpRead, o.handle, u64(uint64(off)), u32(uint32(length)))
		var s status
		switch {
		case errors.As(err, &s) && s.code == statusEOF:
		case err != nil:
			return err
		default:
			got = []byte(b.str())
		}
	}
	if !bytes.Equal(got, want) {
		return errors.New(difference(got, want))
	}
	return nil
}

func (x *fsx) readAll(o opened) error {
	data, err := x.readOpened(o)
	if err == nil && !bytes.Equal(data, o.file.data) {
		err = errors.New(difference(data, o.file.data))
	}
	return err
}

func (x *fsx) truncate(o opened, size int) error {
	o.file.truncate(size)
	if o.fd != nil {
		return o.fd.Truncate(int64(size))
	}
	_, err := x.sftp.ask(fxpFsetstat, o.handle, u32(attrSize), u64(uint64(size)))
	return err
}

func (x *fsx) sync(o opened) error {
	if o.fd != nil {
		return o.fd.Sync()
	}
	_, err := x.sftp.ask(fxpExtended, str("fsync@openssh.com"), o.handle)
	return err
}

func (x *fsx) checkSize(mount bool) error {
	want := int64(len(x.names[x.name].data))
	var got int64
	if mount {
		info, err := os.Stat(filepath.Join(x.dir, x.name))
		if err != nil {
			return err
		}
		got = info.Size()
	} else {
		b, err := x.sftp.ask(fxpLstat, str(x.base+x.name))
		if err != nil {
			return err
		}
		got = b.attrs().Size
	}
	if got != want {
		return fmt.Errorf("size %d, want %d (mount: %v)", got, want, mount)
	}
	return nil
}

// mapped compares a mapping of a range with the model, and writes to it.
func (x *fsx) mapped(o opened, f *file, off int, data []byte) error {
	page := off &^ (os.Getpagesize() - 1)
	end := min(off+len(data), len(f.data))
	if end <= off {
		return nil
	}
	m, err := unix.Mmap(int(o.fd.Fd()), int64(page), end-page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if !bytes.Equal(m, f.data[page:end]) {
		err = fmt.Errorf("mapping: %s", difference(m, f.data[page:end]))
	}
	copy(m[off-page:], data)
	copy(f.data[off:end], data)
	return errors.Join(err, unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

// punch makes a hole, where that is supported.
func (x *fsx) punch(o opened, f *file, off, length int) error {
	if x.noHole {
		return nil
	}
	err := unix.Fallocate(int(o.fd.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(off), int64(length))
	if err == unix.EOPNOTSUPP {
		x.noHole = true
		return nil
	}
	if off < len(f.data) {
		clear(f.data[off:min(off+length, len(f.data))])
	}
	return err
}

// closeAllNow closes what is open, which must not fail.
func (w *world) closeAllNow() (err error) {
	for len(w.opened) > 0 {
		err = errors.Join(err, w.close(0))
	}
	return err
}

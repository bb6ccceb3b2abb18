package hostiletest

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

var (
	which = flag.String("deceit", "", "only the deceits of upstreams with this in their `name`")
	all   = flag.Bool("all", false, "also the deceits that take long to deal with")
)

// A deceit is a way of an upstream to mean harm.
type deceit struct {
	name  string
	twist twist
}

// long are deceits that each call needs some seconds to see through.
var long = []string{"VERSION again", "each answer twice", "data without end", "closed within an answer", "NULs", "a packet of 100 MiB"}

func names(entries ...string) []any {
	fields := []any{len(entries)}
	for _, e := range entries {
		fields = append(fields, e, "-rw-r--r--", attrs(0o100644, 5))
	}
	return fields
}

func deceits() []deceit {
	list := []deceit{
		{"garbage", rawly(garbage(10_000))},
		{"a packet of 4 GiB", rawly([]byte{0xff, 0xff, 0xff, 0xff, fxData})},
		{"a packet of 100 MiB", rawly([]byte{6, 0x40, 0, 0, fxData})},
		{"a packet of nothing", rawly(make([]byte, 4))},
		{"NULs", rawly(make([]byte, 10_000))},
		{"VERSION again", instead(fxVersion)},
		{"no answer", rawly(nil)},
		{"no answer to READ", only(rawly(nil), fxRead)},
		{"no answer to what changes", only(rawly(nil), fxWrite, fxMkdir, fxRename, fxRemove, fxExtended, fxFsetstat)},
		{"closed", func(byte, []byte) ([]byte, error) { return nil, errClose }},
		{"closed within an answer", func(_ byte, a []byte) ([]byte, error) { return frame(a)[:6], errClose }},
		{"another id", func(_ byte, a []byte) ([]byte, error) { a[1] ^= 0x55; return frame(a), nil }},
		{"each answer twice", func(_ byte, a []byte) ([]byte, error) { return append(frame(a), frame(a)...), nil }},
		{"cut short", func(_ byte, a []byte) ([]byte, error) { return frame(a[:max(5, len(a)*2/3)]), nil }},
		{"cut to the id", func(_ byte, a []byte) ([]byte, error) { return frame(a[:5]), nil }},
		{"longer than it should be", func(_ byte, a []byte) ([]byte, error) { return frame(append(a, garbage(50)...)), nil }},
		{"OK to all", instead(fxStatus, statusOK, "", "")},
		{"EOF to all", instead(fxStatus, statusEOF, "", "")},
		{"no such status", instead(fxStatus, 0x7fffffff, "\x1b[2Jhi", "")},
		{"all are attributes", instead(fxAttrs, attrs(0o100644, 5))},
		{"all are handles", instead(fxHandle, "h")},
		{"all are data", instead(fxData, "0123456789")},
		{"all are names", instead(fxName, names("x")...)},
		{"all are extended replies", instead(fxExtendedReply, garbage(88))},
		{"statvfs of zeros", only(instead(fxExtendedReply, make([]byte, 88)), fxExtended)},
		{"statvfs of ones", only(instead(fxExtendedReply, bytes.Repeat([]byte{0xff}, 88)), fxExtended)},
		{"handles of 100 KiB", only(instead(fxHandle, strings.Repeat("h", 100_000)), fxOpen, fxOpendir)},
		{"empty handles", only(instead(fxHandle, ""), fxOpen, fxOpendir)},
		{"more data than asked for", only(func(_ byte, a []byte) ([]byte, error) {
			data := append(a[9:len(a):len(a)], bytes.Repeat([]byte("x"), 200_000)...)
			return frame(append(a[:5:5], body(0, string(data))[1:]...)), nil
		}, fxRead)},
		{"data without end", only(instead(fxData, "x"), fxRead)},
		{"empty data", only(instead(fxData, ""), fxRead)},
		{"data of a false length", only(instead(fxData, []byte{0xff, 0xff, 0xff, 0xff, 1}), fxRead)},
		{"a listing without end", only(endlessNames(), fxReaddir)},
		{"a listing of nothing without end", only(instead(fxName, 0), fxReaddir)},
		{"a count of names without names", only(instead(fxName, uint32(0xffffffff)), fxReaddir, fxReadlink, fxRealpath)},
		{"two targets", only(instead(fxName, names("a", "b")...), fxReadlink, fxRealpath)},
		{"a target of 100 KiB", only(instead(fxName, names(strings.Repeat("../", 33_000))...), fxReadlink)},
		{"an empty target", only(instead(fxName, names("")...), fxReadlink)},
		{"a target with NUL", only(instead(fxName, names("a\x00b")...), fxReadlink)},
	}
	for _, mode := range []uint32{0, 0o170000, 0o060660, 0o040755, 0o120777, 0xffffffff, 0o106777} {
		list = append(list, deceit{fmt.Sprintf("mode %o", mode), only(instead(fxAttrs, attrs(mode, 5)), fxLstat, fxStat, fxFstat)})
	}
	for _, size := range []uint64{1 << 62, 1 << 63, ^uint64(0)} {
		list = append(list, deceit{fmt.Sprintf("size %d", size), only(instead(fxAttrs, attrs(0o100644, size)), fxLstat, fxStat, fxFstat)})
	}
	list = append(list, deceit{"endless attributes", only(instead(fxAttrs, uint32(0x80000000), uint32(0xffffffff)), fxLstat, fxStat, fxFstat)},
		deceit{"no attributes", only(instead(fxAttrs, 0), fxLstat, fxStat, fxFstat)})
	for _, name := range []string{"../evil", "/etc/passwd", "a/b", "..", ".", "", "\x00", "a\x00b", "/", strings.Repeat("n", 5000), "\xff\xfe\n\x1b[2J"} {
		list = append(list, deceit{fmt.Sprintf("the name %.12q", name), only(once(instead(fxName, names("good", name)...)), fxReaddir)})
	}
	return list
}

// once puts a twist on every other answer that is not an end.
func once(t twist) twist {
	var n atomic.Int32
	return func(request byte, answer []byte) ([]byte, error) {
		if answer[0] == fxName && n.Add(1)%2 == 1 {
			return t(request, answer)
		}
		return frame(answer), nil
	}
}

// endlessNames answers with a hundred new names each time.
func endlessNames() twist {
	var n atomic.Int64
	return func(request byte, answer []byte) ([]byte, error) {
		var entries []string
		for range 100 {
			entries = append(entries, fmt.Sprint("n", n.Add(1)))
		}
		return instead(fxName, names(entries...)...)(request, answer)
	}
}

const contentSize = 100_000

// content is what the file of a deceit holds, which no deceit is about.
func content(i int) []byte {
	b := make([]byte, contentSize)
	for at := 0; at+8 <= len(b); at += 8 {
		binary.BigEndian.PutUint64(b[at:], uint64(i)<<32|uint64(at))
	}
	return b
}

// A door is one way to the tree.
type door struct {
	name   string
	open   func(name string) (io.ReadCloser, error)
	create func(name string) (io.WriteCloser, error)
	list   func(name string) ([]string, error)
	stat   func(name string) error
	lstat  func(name string) error
	rest   map[string]func(name string) error
}

// TestHostileUpstream mounts and re-exports a server that turns on the bridge.
// Each call returns in time, with an error or what is true; the bridge goes on,
// and serves again as soon as the server does.
func TestHostileUpstream(t *testing.T) {
	list := slices.DeleteFunc(deceits(), func(d deceit) bool {
		return !strings.Contains(d.name, *which) || !*all && slices.Contains(long, d.name)
	})
	const bridges = 6 // side by side: most of the time is waiting
	var parts sync.WaitGroup
	for part := range min(bridges, len(list)) {
		var some []deceit
		for i := part; i < len(list); i += bridges {
			some = append(some, list[i])
		}
		parts.Go(func() {
			t.Run(fmt.Sprint(part), func(t *testing.T) { sufferAll(t, some) })
		})
	}
	parts.Wait()
}

func sufferAll(t *testing.T, list []deceit) {
	u := startUpstream(t)
	for i := range list {
		must(t, os.WriteFile(filepath.Join(u.dir, fmt.Sprint("f", i)), content(i), 0o644))
		must(t, os.Mkdir(filepath.Join(u.dir, fmt.Sprint("d", i)), 0o755))
		must(t, os.WriteFile(filepath.Join(u.dir, fmt.Sprint("d", i), "x"), nil, 0o644))
		must(t, os.Symlink("target", filepath.Join(u.dir, fmt.Sprint("l", i))))
	}
	top := t.TempDir()
	mount := filepath.Join(top, "mnt")
	must(t, os.Mkdir(mount, 0o755))
	must(t, os.WriteFile(filepath.Join(top, "outside"), []byte("outside"), 0o644))
	before := treeOf(t, top)
	b := startBridge(t, u.backend(), u.config()+fmt.Sprintf("    mount: [{dir: %s}]\n", mount), noPenalties)
	t.Cleanup(func() { syscall.Unmount(mount, syscall.MNT_DETACH) })
	sc, err := sftp.NewClient(b.mustLogin(), sftp.MaxConcurrentRequestsPerFile(4))
	must(t, err)
	doors := []*door{mountDoor(mount), sftpDoor(sc)}
	for i, d := range list {
		began := time.Now()
		u.set(d.twist)
		var calls sync.WaitGroup
		for _, door := range doors {
			calls.Go(func() { door.suffer(t, d.name, i) })
		}
		calls.Wait()
		suffered := time.Since(began)
		u.set(nil)
		for _, door := range doors {
			eventually(t, fmt.Sprintf("%s recovers at %s", d.name, door.name), func() bool {
				data, err := door.read(fmt.Sprint("f", i))
				return err == nil && bytes.Equal(data, content(i))
			})
		}
		t.Logf("%s: %v, and %v to recover", d.name, suffered.Round(time.Millisecond), (time.Since(began) - suffered).Round(time.Millisecond))
		if t.Failed() {
			return
		}
	}
	if m := b.memory(); m > 600 {
		t.Errorf("%d MiB of memory afterwards", m)
	}
	must(t, syscall.Unmount(mount, syscall.MNT_DETACH))
	if after := treeOf(t, top); !slices.Equal(before, after) {
		t.Errorf("outside the mount there was %q, now %q", before, after)
	}
}

// suffer makes all calls at a door, side by side.
func (d *door) suffer(t *testing.T, deceit string, i int) {
	t.Helper()
	var calls sync.WaitGroup
	call := func(what string, f func() error) {
		calls.Go(func() {
			within(t, fmt.Sprintf("%s: %s at %s", deceit, what, d.name), f)
		})
	}
	file, dir, link := fmt.Sprint("f", i), fmt.Sprint("d", i), fmt.Sprint("l", i)
	lies := strings.HasPrefix(deceit, "all are data") || strings.HasPrefix(deceit, "data ") || strings.HasPrefix(deceit, "size ") ||
		strings.HasPrefix(deceit, "mode ") || strings.HasPrefix(deceit, "EOF") || strings.HasPrefix(deceit, "all are attr") || deceit == "no attributes" // about size or data
	call("read", func() error {
		data, err := d.read(file)
		if err == nil && !lies && !bytes.Equal(data, content(i)) {
			return fmt.Errorf("wrong data: %d bytes", len(data))
		}
		return nil
	})
	call("list", func() error {
		for _, dir := range []string{dir, "."} {
			list, err := d.list(dir)
			for _, name := range list {
				if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
					return fmt.Errorf("the name %q is shown", name)
				}
			}
			if err != nil {
				return nil
			}
		}
		return nil
	})
	call("stat", func() error { d.stat(file); return nil })
	call("lstat", func() error { d.lstat(link); return nil })
	call("write", func() error {
		f, err := d.create(fmt.Sprint(d.name, "-new", i))
		if err == nil {
			f.Write(content(i))
			f.Close()
		}
		return nil
	})
	for what, f := range d.rest {
		call(what, func() error { f(fmt.Sprint(i)); return nil })
	}
	calls.Wait()
}

func (d *door) read(name string) ([]byte, error) {
	f, err := d.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 10*contentSize))
}

func mountDoor(dir string) *door {
	at := func(name string) string { return filepath.Join(dir, name) }
	return &door{
		name:   "the mount",
		open:   func(name string) (io.ReadCloser, error) { return os.Open(at(name)) },
		create: func(name string) (io.WriteCloser, error) { return os.Create(at(strings.ReplaceAll(name, " ", ""))) },
		list: func(name string) (list []string, err error) {
			f, err := os.Open(at(name))
			if err != nil {
				return nil, err
			}
			defer f.Close()
			for len(list) < 200 && err == nil { // with a look at each, which takes its time
				var some []string
				some, err = f.Readdirnames(100)
				list = append(list, some...)
			}
			return list, err
		},
		stat:  func(name string) error { _, err := os.Stat(at(name)); return err },
		lstat: func(name string) error { _, err := os.Lstat(at(name)); return err },
		rest: map[string]func(i string) error{
			"readlink": func(i string) error { _, err := os.Readlink(at("l" + i)); return err },
			"mkdir":    func(i string) error { return os.Mkdir(at("made"+i), 0o700) },
			"rename":   func(i string) error { return os.Rename(at("d"+i+"/x"), at("d"+i+"/y")) },
			"remove":   func(i string) error { return os.Remove(at("l" + i)) },
			"symlink":  func(i string) error { return os.Symlink("x", at("link"+i)) },
			"truncate": func(i string) error { return os.Truncate(at("d"+i+"/x"), 10) },
			"chmod":    func(i string) error { return os.Chmod(at("d"+i), 0o700) },
			"statfs":   func(i string) error { var s syscall.Statfs_t; return syscall.Statfs(at("."), &s) },
		},
	}
}

func sftpDoor(c *sftp.Client) *door {
	return &door{
		name:   "SFTP",
		open:   func(name string) (io.ReadCloser, error) { return c.Open(name) },
		create: func(name string) (io.WriteCloser, error) { return c.Create(name) },
		list: func(name string) (list []string, err error) {
			if name == "." {
				return nil, nil
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			entries, err := c.ReadDirContext(ctx, name)
			for _, e := range entries {
				list = append(list, e.Name())
			}
			return list, err
		},
		stat:  func(name string) error { _, err := c.Stat(name); return err },
		lstat: func(name string) error { _, err := c.Lstat(name); return err },
		rest: map[string]func(i string) error{
			"readlink": func(i string) error { _, err := c.ReadLink("l" + i); return err },
			"realpath": func(i string) error { _, err := c.RealPath("l" + i + "/x"); return err },
			"mkdir":    func(i string) error { return c.Mkdir("also" + i) },
			"rename":   func(i string) error { return c.PosixRename("d"+i+"/y", "d"+i+"/x") },
			"statvfs":  func(i string) error { _, err := c.StatVFS("."); return err },
		},
	}
}

// treeOf is all that is below a directory, with its content, but for what is
// mounted there.
func treeOf(t *testing.T, top string) (tree []string) {
	t.Helper()
	must(t, filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "mnt":
			return fs.SkipDir
		}
		data := []byte(nil)
		if d.Type().IsRegular() {
			data, err = os.ReadFile(path)
		}
		tree = append(tree, fmt.Sprintf("%s %v %s", path, d.Type(), data))
		return err
	}))
	return tree
}

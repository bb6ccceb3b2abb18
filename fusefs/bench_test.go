package fusefs

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

// The benchmarks call the door as the FUSE library does, without a kernel: what
// they measure and what they allocate is the door's and the tree's.

// A benchDoor is a door over memory with 1,000 files in its root, f000 of them
// with 1 MiB.
type benchDoor struct {
	b *testing.B
	*door
}

func newBenchDoor(b *testing.B) benchDoor {
	b.Helper()
	ctx := context.Background()
	tree, err := bridge.New(ctx, memfs.New(), bridge.Options{})
	d := benchDoor{b: b}
	d.check(err)
	b.Cleanup(func() { tree.Close() })
	d.door, err = newDoor(ctx, tree, Options{Avatar: &bridge.Avatar{Name: "root"}})
	d.check(err)
	b.Cleanup(d.close)
	for i := range 1000 {
		var out fuse.CreateOut
		in := fuse.CreateIn{InHeader: header(fuse.FUSE_ROOT_ID), Flags: syscall.O_RDWR | syscall.O_CREAT, Mode: syscall.S_IFREG | 0o644}
		d.ok(d.Create(nil, &in, fmt.Sprintf("f%03d", i), &out))
		if i == 0 {
			_, code := d.Write(nil, &fuse.WriteIn{InHeader: header(out.NodeId), Fh: out.Fh}, make([]byte, 1<<20))
			d.ok(code)
		}
		d.Release(nil, &fuse.ReleaseIn{InHeader: header(out.NodeId), Fh: out.Fh})
	}
	b.ReportAllocs()
	return d
}

func header(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id} }

func (d benchDoor) check(err error) {
	d.b.Helper()
	if err != nil {
		d.b.Fatal(err)
	}
}

func (d benchDoor) ok(code fuse.Status) {
	d.b.Helper()
	if !code.Ok() {
		d.b.Fatal(code)
	}
}

// lookup returns the number of a file, which counts as looked up once more.
func (d benchDoor) lookup(name string) uint64 {
	d.b.Helper()
	var out fuse.EntryOut
	in := header(fuse.FUSE_ROOT_ID)
	d.ok(d.Lookup(nil, &in, name, &out))
	return out.NodeId
}

func (d benchDoor) open(id uint64, flags uint32) (fh uint64) {
	d.b.Helper()
	var out fuse.OpenOut
	d.ok(d.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: flags}, &out))
	return out.Fh
}

func (d benchDoor) release(id, fh uint64) {
	d.Release(nil, &fuse.ReleaseIn{InHeader: header(id), Fh: fh})
}

func BenchmarkLookup(b *testing.B) {
	d := newBenchDoor(b)
	for b.Loop() {
		d.Forget(d.lookup("f500"), 1)
	}
}

func BenchmarkGetAttr(b *testing.B) {
	d := newBenchDoor(b)
	id := d.lookup("f500")
	for b.Loop() {
		var out fuse.AttrOut
		d.ok(d.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(id)}, &out))
	}
}

func BenchmarkOpenRelease(b *testing.B) {
	d := newBenchDoor(b)
	id := d.lookup("f500")
	for b.Loop() {
		d.release(id, d.open(id, syscall.O_RDONLY))
	}
}

func BenchmarkRead(b *testing.B) {
	d := newBenchDoor(b)
	id := d.lookup("f000")
	fh := d.open(id, syscall.O_RDONLY)
	defer d.release(id, fh)
	buf := make([]byte, 128<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		res, code := d.Read(nil, &fuse.ReadIn{InHeader: header(id), Fh: fh, Size: uint32(len(buf))}, buf)
		d.ok(code)
		if res.Size() != len(buf) {
			b.Fatalf("%d bytes", res.Size())
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	d := newBenchDoor(b)
	id := d.lookup("f000")
	fh := d.open(id, syscall.O_WRONLY)
	defer d.release(id, fh)
	buf := make([]byte, 128<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		n, code := d.Write(nil, &fuse.WriteIn{InHeader: header(id), Fh: fh, Size: uint32(len(buf))}, buf)
		d.ok(code)
		if int(n) != len(buf) {
			b.Fatalf("%d bytes", n)
		}
	}
}

// BenchmarkReadDirPlus begins to list the root anew, and answers with as many of
// its entries as fit into 4 KiB.
func BenchmarkReadDirPlus(b *testing.B) {
	d := newBenchDoor(b)
	var out fuse.OpenOut
	d.ok(d.OpenDir(nil, &fuse.OpenIn{InHeader: header(fuse.FUSE_ROOT_ID)}, &out))
	defer d.ReleaseDir(&fuse.ReleaseIn{Fh: out.Fh})
	buf := make([]byte, 4096)
	for b.Loop() {
		list := fuse.NewDirEntryList(buf, 0)
		in := fuse.ReadIn{InHeader: header(fuse.FUSE_ROOT_ID), Fh: out.Fh, Size: uint32(len(buf))}
		d.ok(d.ReadDirPlus(nil, &in, list))
		if len(list.Bytes()) < len(buf)/2 {
			b.Fatalf("%d bytes", len(list.Bytes()))
		}
	}
}

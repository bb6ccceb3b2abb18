package memfs_test

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/memfs"
)

var ctx = context.Background()

// create opens a new file for reading and writing.
func create(t *testing.T, fs *memfs.FS, name string) bridge.File {
	t.Helper()
	f, err := fs.Open(ctx, name, syscall.O_RDWR|syscall.O_CREAT|syscall.O_EXCL, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(ctx) })
	return f
}

func write(t *testing.T, f bridge.File, off int64, n int) {
	t.Helper()
	p := make([]byte, n)
	for i := range p {
		p[i] = 'x'
	}
	if got, err := f.WriteAt(ctx, p, off); err != nil || got != n {
		t.Fatalf("WriteAt %d bytes at %d = %d, %v", n, off, got, err)
	}
}

func attr(t *testing.T, f bridge.File) bridge.Attr {
	t.Helper()
	a, err := f.Attr(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestHugeFileCostsNothing(t *testing.T) {
	fs := memfs.New(memfs.WithCapacity(64 << 10))
	f := create(t, fs, "f")
	const size = 1 << 40
	if err := f.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetSize, Size: size}); err != nil {
		t.Fatal(err)
	}
	write(t, f, size-1, 1)
	if a := attr(t, f); a.Size != size || a.Blocks != 8 {
		t.Errorf("size %d, blocks %d; want %d, 8", a.Size, a.Blocks, int64(size))
	}
	if at, err := f.(bridge.SeekFile).Seek(ctx, 0, 3); at != size-4096 || err != nil {
		t.Errorf("data at %d, %v; want %d", at, err, size-4096)
	}
}

func TestCapacity(t *testing.T) {
	const capacity = 200 << 10
	fs := memfs.New(memfs.WithCapacity(capacity))
	f := create(t, fs, "f")
	n, err := f.WriteAt(ctx, make([]byte, capacity+1), 0)
	if n != capacity || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write past the capacity = %d, %v", n, err)
	}
	if a := attr(t, f); a.Size != capacity || a.Blocks != capacity/512 {
		t.Errorf("then size %d, blocks %d", a.Size, a.Blocks)
	}
	wantFree := func(want uint64) {
		t.Helper()
		s, err := fs.StatFS(ctx, ".")
		if err != nil || s.BlocksFree*uint64(s.FragSize) != want || s.Blocks*uint64(s.FragSize) != capacity {
			t.Errorf("StatFS = %+v, %v; want %d bytes free", s, err, want)
		}
	}
	wantFree(0)
	write(t, f, 100, 100) // what is there can be overwritten
	if err := f.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetSize, Size: 5000}); err != nil {
		t.Fatal(err)
	}
	wantFree(capacity - 8192)
	if err := fs.Remove(ctx, "f"); err != nil {
		t.Fatal(err)
	}
	wantFree(capacity - 8192) // it is still open
	if err := f.Close(ctx); err != nil {
		t.Fatal(err)
	}
	wantFree(capacity)
}

func TestAllocate(t *testing.T) {
	const keep, punch, zero, collapse = 1, 2, 16, 8
	tests := []struct {
		mode         uint32
		off, n       int64
		want         error
		size, blocks int64
		hole         int64 // the first hole
	}{
		{0, 0, 200_000, nil, 200_000, 49 * 8, 200_000},
		{keep, 0, 200_000, nil, 100_000, 49 * 8, 100_000},
		{0, 10, 20, nil, 100_000, 25 * 8, 100_000},
		{punch | keep, 4096, 8192, nil, 100_000, 23 * 8, 4096},
		{punch | keep, 4097, 8191, nil, 100_000, 24 * 8, 8192},
		{punch | keep, 0, 1 << 50, nil, 100_000, 0, 0},
		{zero, 50_000, 100_000, nil, 150_000, 37 * 8, 150_000},
		{zero | keep, 50_000, 100_000, nil, 100_000, 37 * 8, 100_000},
		{collapse, 0, 4096, syscall.EOPNOTSUPP, 100_000, 25 * 8, 100_000},
		{punch, 0, 4096, syscall.EOPNOTSUPP, 100_000, 25 * 8, 100_000},
		{0, 0, 1 << 30, syscall.ENOSPC, 100_000, 25 * 8, 100_000},
		{0, 0, 0, syscall.EINVAL, 100_000, 25 * 8, 100_000},
		{0, 1 << 62, 1 << 62, syscall.EFBIG, 100_000, 25 * 8, 100_000},
	}
	for _, test := range tests {
		fs := memfs.New(memfs.WithCapacity(1 << 20))
		f := create(t, fs, "f")
		write(t, f, 0, 100_000)
		err := f.(bridge.AllocateFile).Allocate(ctx, test.mode, test.off, test.n)
		if !errors.Is(err, test.want) {
			t.Errorf("Allocate(%#x, %d, %d) = %v; want %v", test.mode, test.off, test.n, err, test.want)
		}
		if a := attr(t, f); a.Size != test.size || a.Blocks != test.blocks {
			t.Errorf("Allocate(%#x, %d, %d): size %d, blocks %d; want %d, %d",
				test.mode, test.off, test.n, a.Size, a.Blocks, test.size, test.blocks)
		}
		if at, err := f.(bridge.SeekFile).Seek(ctx, 0, 4); at != test.hole || err != nil {
			t.Errorf("Allocate(%#x, %d, %d): hole at %d, %v; want %d", test.mode, test.off, test.n, at, err, test.hole)
		}
	}
}

func TestWrongUseOfFile(t *testing.T) {
	fs := memfs.New()
	create(t, fs, "f")
	r, err := fs.Open(ctx, "f", syscall.O_RDONLY, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := fs.Open(ctx, "f", syscall.O_WRONLY, bridge.SetAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(ctx); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	for _, test := range []struct {
		what string
		got  func() error
		want error
	}{
		{"write to a file open for reading", func() error { _, err := r.WriteAt(ctx, p, 0); return err }, syscall.EBADF},
		{"truncate it", func() error { return r.SetAttr(ctx, bridge.SetAttr{Valid: bridge.SetSize}) }, syscall.EINVAL},
		{"read before the beginning", func() error { _, err := r.ReadAt(ctx, p, -1); return err }, syscall.EINVAL},
		{"read a closed file", func() error { _, err := w.ReadAt(ctx, p, 0); return err }, syscall.EBADF},
		{"close it again", func() error { return w.Close(ctx) }, syscall.EBADF},
	} {
		if err := test.got(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", test.what, err, test.want)
		}
	}
	r.Close(ctx)
}

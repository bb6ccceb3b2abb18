package backendtest

import (
	"context"
	"fmt"
	"testing"

	"sftpbridge/bridge"
)

// Bench measures a backend. Each benchmark gets a new and empty one from open.
func Bench(b *testing.B, open func(b *testing.B) bridge.Backend) {
	for _, bench := range []struct {
		name string
		run  func(b *testing.B, fs bridge.Backend)
	}{
		{"ReadAt", benchReadAt},
		{"ReadAtParallel", benchReadAtParallel},
		{"WriteAt", benchWriteAt},
		{"Lstat", benchLstat},
		{"ReadDir", benchReadDir},
		{"Create", benchCreate},
	} {
		b.Run(bench.name, func(b *testing.B) {
			fs := open(b)
			b.Cleanup(func() { fs.Close() })
			b.ReportAllocs()
			bench.run(b, fs)
		})
	}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

const (
	benchFile  = 16 << 20
	benchPiece = 128 << 10
)

// benchOpen returns a new file of the given size.
func benchOpen(b *testing.B, fs bridge.Backend, size int) bridge.File {
	b.Helper()
	f, err := fs.Open(context.Background(), "f", rdwr|creat, mode(0o644))
	must(b, err)
	if size > 0 {
		_, err := f.WriteAt(context.Background(), []byte(noise(5, size)), 0)
		must(b, err)
	}
	b.Cleanup(func() { f.Close(context.Background()) })
	return f
}

func benchReadAt(b *testing.B, fs bridge.Backend) {
	ctx := context.Background()
	f := benchOpen(b, fs, benchFile)
	p := make([]byte, benchPiece)
	b.SetBytes(benchPiece)
	off := int64(0)
	for b.Loop() {
		_, err := f.ReadAt(ctx, p, off)
		must(b, err)
		off = (off + benchPiece) % (benchFile - benchPiece)
	}
}

func benchReadAtParallel(b *testing.B, fs bridge.Backend) {
	ctx := context.Background()
	f := benchOpen(b, fs, benchFile)
	b.SetBytes(benchPiece)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, benchPiece)
		off := int64(0)
		for pb.Next() {
			if _, err := f.ReadAt(ctx, p, off); err != nil {
				b.Error(err)
				return
			}
			off = (off + benchPiece) % (benchFile - benchPiece)
		}
	})
}

func benchWriteAt(b *testing.B, fs bridge.Backend) {
	ctx := context.Background()
	f := benchOpen(b, fs, 0)
	p := []byte(noise(6, benchPiece))
	b.SetBytes(benchPiece)
	off := int64(0)
	for b.Loop() {
		_, err := f.WriteAt(ctx, p, off)
		must(b, err)
		off = (off + benchPiece) % benchFile
	}
}

func benchLstat(b *testing.B, fs bridge.Backend) {
	ctx := context.Background()
	must(b, fs.Mkdir(ctx, "d", mode(0o755)))
	must(b, fs.Mkdir(ctx, "d/sub", mode(0o755)))
	for b.Loop() {
		_, err := fs.Lstat(ctx, "d/sub")
		must(b, err)
	}
}

func benchReadDir(b *testing.B, fs bridge.Backend) {
	ctx := context.Background()
	const entries = 1000
	for i := range entries {
		must(b, makeFile(ctx, fs, fmt.Sprint("f", i)))
	}
	for b.Loop() {
		n := 0
		for _, err := range fs.ReadDir(ctx, ".") {
			must(b, err)
			n++
		}
		if n != entries {
			b.Fatalf("%d entries; want %d", n, entries)
		}
	}
}

func makeFile(ctx context.Context, fs bridge.Backend, name string) error {
	f, err := fs.Open(ctx, name, wronly|creat|excl, mode(0o644))
	if err != nil {
		return err
	}
	return f.Close(ctx)
}

// benchCreate makes files and removes them, so that the directory stays small.
func benchCreate(b *testing.B, fs bridge.Backend) {
	ctx := context.Background()
	i := 0
	for b.Loop() {
		name := fmt.Sprint("f", i%100)
		must(b, makeFile(ctx, fs, name))
		must(b, fs.Remove(ctx, name))
		i++
	}
}

package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// roundTrip makes every call of src take d.
func roundTrip(d time.Duration) func(context.Context, bool, int64, int64) error {
	return func(ctx context.Context, _ bool, _, _ int64) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// gate returns a before that holds reads until open is called.
func gate() (before func(context.Context, bool, int64, int64) error, open func()) {
	ch := make(chan struct{})
	before = func(ctx context.Context, write bool, _, _ int64) error {
		if write {
			return nil
		}
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return before, func() { close(ch) }
}

func readAll(t *testing.T, f *File, src *memSource, step int) []byte {
	t.Helper()
	size := int64(len(src.data))
	var all []byte
	p := make([]byte, step)
	for off := int64(0); ; {
		n, err := f.ReadAt(context.Background(), src, p, off, size)
		all = append(all, p[:n]...)
		off += int64(n)
		if err == io.EOF {
			return all
		}
		if err != nil || n < step {
			t.Fatalf("read at %d: %d, %v", off, n, err)
		}
	}
}

func TestSequentialReadOpensTheWindow(t *testing.T) {
	for _, step := range []int{32 << 10, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			_, f := newFile(t, 256<<20)
			src := newSource(64<<20+12345, 1)
			src.before = roundTrip(100 * time.Millisecond)
			start := time.Now()
			got := readAll(t, f, src, step)
			took := time.Since(start)
			if !bytes.Equal(got, src.data) {
				t.Errorf("step %d: wrong data", step)
			}
			if n := src.readBytes(); n != int64(len(src.data)) {
				t.Errorf("step %d: fetched %d bytes of %d", step, n, len(src.data))
			}
			if src.most < 16<<20 || src.most > 34<<20 {
				t.Errorf("step %d: at most %d bytes were under way", step, src.most)
			}
			// The window is widened about once a round trip, then 64 MiB are two windows.
			if took > 1200*time.Millisecond {
				t.Errorf("step %d: took %v", step, took)
			}
		})
	}
}

func TestReadersOutOfOrderAreInSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := newFile(t, 256<<20)
		src := newSource(32<<20, 1)
		src.before = roundTrip(100 * time.Millisecond)
		start := time.Now()
		const step, ways = 32 << 10, 8
		for off := int64(0); off < int64(len(src.data)); off += ways * step {
			var wg sync.WaitGroup
			for i := range int64(ways) {
				wg.Go(func() {
					p := make([]byte, step)
					at := off + (ways-1-i)*step
					if n, err := f.ReadAt(context.Background(), src, p, at, int64(len(src.data))); n != step || err != nil {
						t.Errorf("read at %d: %d, %v", at, n, err)
					}
					if !bytes.Equal(p, src.data[at:at+step]) {
						t.Errorf("read at %d: wrong data", at)
					}
				})
			}
			wg.Wait()
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
		if n := src.readBytes(); n > int64(len(src.data))*5/4 {
			t.Errorf("fetched %d bytes of %d", n, len(src.data))
		}
	})
}

func TestTwoStreamsInOneFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := newFile(t, 256<<20)
		src := newSource(32<<20, 1)
		src.before = roundTrip(100 * time.Millisecond)
		start := time.Now()
		p := make([]byte, 128<<10)
		for off := int64(0); off < 16<<20; off += int64(len(p)) {
			for _, at := range []int64{off, off + 16<<20} {
				if _, err := f.ReadAt(context.Background(), src, p, at, 32<<20); err != nil {
					t.Fatal(err)
				}
			}
		}
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

func TestRandomReadsFetchWhatTheyNeed(t *testing.T) {
	_, f := newFile(t, 256<<20)
	src := newSource(64<<20, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4<<10)
	const reads = 2000
	for range reads {
		off := (rng.Int64N(int64(len(src.data)) / 4096)) * 4096
		if n, err := f.ReadAt(context.Background(), src, p, off, int64(len(src.data))); n != len(p) || err != nil {
			t.Fatalf("read at %d: %d, %v", off, n, err)
		}
		if !bytes.Equal(p, src.data[off:off+4096]) {
			t.Fatalf("read at %d: wrong data", off)
		}
	}
	if n := src.readBytes(); n > reads*4096*11/10 {
		t.Errorf("fetched %d bytes for %d", n, reads*4096)
	}
}

func TestSmallFileIsFetchedOnce(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(50_000, 1)
	p := make([]byte, 1000)
	for _, off := range []int64{30_000, 0, 49_500, 12_345} {
		n, err := f.ReadAt(context.Background(), src, p, off, 50_000)
		if want := min(1000, 50_000-int(off)); n != want || (err == io.EOF) != (want < 1000) {
			t.Errorf("read at %d: %d, %v", off, n, err)
		}
		if !bytes.Equal(p[:n], src.data[off:int(off)+n]) {
			t.Errorf("read at %d: wrong data", off)
		}
	}
	if len(src.reads) != 1 || src.readBytes() != 50_000 {
		t.Errorf("reads: %v", src.reads)
	}
}

func TestReadersShareOneFetch(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(BlockSize, 1)
	var open func()
	src.before, open = gate()
	var wg sync.WaitGroup
	const readers = 5
	for range readers {
		wg.Go(func() {
			p := make([]byte, BlockSize)
			if n, err := f.ReadAt(context.Background(), src, p, 0, BlockSize); n != BlockSize || err != nil {
				t.Errorf("read: %d, %v", n, err)
			}
		})
	}
	eventually(t, "all wait", func() bool { return waiters(f) == readers })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.ReadAt(ctx, src, make([]byte, 1), 0, BlockSize); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled read: %v", err)
	}
	open()
	wg.Wait()
	if len(src.reads) != 1 {
		t.Errorf("reads: %v", src.reads)
	}
}

// waiters returns how many readers wait for fetches.
func waiters(f *File) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, ft := range f.reads {
		n += ft.refs - 1
	}
	return n
}

// duringFetch calls change while the block 0 is being fetched and somebody
// waits for it, and returns what a new reader then gets.
func duringFetch(t *testing.T, f *File, src *memSource, size int64, change func(open func())) []byte {
	t.Helper()
	var open func()
	src.before, open = gate()
	open = sync.OnceFunc(open)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := f.ReadAt(context.Background(), src, make([]byte, 4096), 0, size); err != nil {
			t.Errorf("waiting read: %v", err)
		}
	})
	eventually(t, "the fetch began", func() bool { return waiters(f) == 1 })
	change(open)
	open()
	wg.Wait()
	p := make([]byte, 4096)
	if n, err := f.ReadAt(context.Background(), src, p, 0, size); n != len(p) || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	return p
}

func TestStaleFetchIsNotStored(t *testing.T) {
	zeros := make([]byte, 4096)
	t.Run("invalidate", func(t *testing.T) {
		_, f := newFile(t, 8<<20)
		src := newSource(BlockSize, 1)
		got := duringFetch(t, f, src, BlockSize, func(open func()) {
			f.Invalidate()
			open()
			eventually(t, "the fetch ended", func() bool { return waiters(f) == 0 })
			src.store(zeros, 0)
		})
		if !bytes.Equal(got, zeros) {
			t.Error("old data")
		}
	})
	t.Run("truncate", func(t *testing.T) {
		_, f := newFile(t, 8<<20)
		src := newSource(BlockSize, 1)
		got := duringFetch(t, f, src, BlockSize, func(open func()) {
			f.Truncate(0)
			open()
			eventually(t, "the fetch ended", func() bool { return waiters(f) == 0 })
			src.truncate(0)
			src.truncate(BlockSize)
		})
		if !bytes.Equal(got, zeros) {
			t.Error("old data")
		}
	})
}

func TestWriteDuringFetch(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(BlockSize, 1)
	old := src.content()
	p := bytes.Repeat([]byte{7}, 1000)
	got := duringFetch(t, f, src, BlockSize, func(open func()) {
		if _, err := f.WriteAt(context.Background(), src, p, 500); err != nil {
			t.Error(err)
		}
		if err := f.Flush(context.Background()); err != nil { // it is in flight no more
			t.Error(err)
		}
		src.mu.Lock()
		copy(src.data, old) // what a read before the write would have brought
		src.mu.Unlock()
	})
	copy(old[500:], p)
	if !bytes.Equal(got, old[:4096]) {
		t.Error("the write is lost to the reader")
	}
}

func TestFailedWriteDuringFetch(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(BlockSize, 1)
	bad := newSource(0, 1)
	bad.failWrite = 1
	zeros := make([]byte, 4096)
	got := duringFetch(t, f, src, BlockSize, func(open func()) {
		write(t, f, bad, []byte("lost"), 100)
		if err := f.Flush(context.Background()); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("flush: %v", err)
		}
		open()
		eventually(t, "the fetch ended", func() bool { return waiters(f) == 0 })
		src.store(zeros, 0) // who knows what the write did
	})
	if !bytes.Equal(got, zeros) {
		t.Error("what was fetched before the failure was stored")
	}
}

func TestExtensionDuringFetch(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(1000, 1)
	want := resize(src.content(), 4096)
	var wg sync.WaitGroup
	duringFetch(t, f, src, 4096, func(open func()) {
		write(t, f, src, []byte("end"), 4093)
		flush(t, f)
		wg.Go(func() { // joins the fetch, but begins after the write
			p := make([]byte, 4096)
			n, err := f.ReadAt(context.Background(), src, p, 0, 4096)
			if n != 4096 || err != nil || !bytes.Equal(p, append(want[:4093], "end"...)) {
				t.Errorf("read: %d, %v", n, err)
			}
		})
		eventually(t, "the second reader waits", func() bool { return waiters(f) == 2 })
		src.truncate(1000) // what a read before the write would have brought
	})
	wg.Wait()
}

func TestExtensionReadsAsZeros(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(1000, 1)
	want := append(src.content(), make([]byte, 300_000-1000)...)
	readAll(t, f, src, 4096)
	ctx := context.Background()
	if _, err := f.WriteAt(ctx, src, []byte{1}, 299_999); err != nil {
		t.Fatal(err)
	}
	want[299_999] = 1
	check := func(when string) {
		t.Helper()
		for _, off := range []int64{200_000, 0} { // uncached, then cached
			p := bytes.Repeat([]byte{9}, 400_000)
			n, err := f.ReadAt(ctx, src, p, off, 300_000)
			if n != 300_000-int(off) || err != io.EOF || !bytes.Equal(p[:n], want[off:]) {
				t.Errorf("%s: read at %d: %d, %v, differing at %d", when, off, n, err, diff(p, want[off:]))
			}
		}
	}
	check("dirty")
	if err := f.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	check("flushed")
	src.truncate(500)
	f.Truncate(500)
	src.truncate(300_000)
	f.Truncate(300_000)
	clear(want[500:])
	check("truncated and extended")
	f.Invalidate()
	check("invalidated")
}

func TestShortSource(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(1000, 1)
	for _, size := range []int64{50_000, 500_000} {
		for _, off := range []int64{0, 900, 1000, 5000} {
			n, err := f.ReadAt(context.Background(), src, make([]byte, 200), off, size)
			if want := max(0, min(200, 1000-int(off))); n != want || want < 200 && err != io.EOF {
				t.Errorf("read at %d of %d: %d, %v, want %d", off, size, n, err, want)
			}
		}
	}
}

func TestReadErrors(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(1<<20, 1)
	src.before = func(context.Context, bool, int64, int64) error { return syscall.EIO }
	for _, off := range []int64{0, 1000, 500_000} {
		if _, err := f.ReadAt(context.Background(), src, make([]byte, 100), off, 1<<20); !errors.Is(err, syscall.EIO) {
			t.Errorf("read at %d: %v", off, err)
		}
	}
	src.before = nil
	eventually(t, "failed fetches are gone", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.reads) == 0 })
	if got := readAll(t, f, src, 4096); !bytes.Equal(got, src.data) {
		t.Error("wrong data after the errors")
	}
}

// TestEOFOfConnection has a source that fails because its connection ended: an
// error with io.EOF in it, which is not the end of the file.
func TestEOFOfConnection(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(1<<20, 1)
	src.before = func(context.Context, bool, int64, int64) error {
		return fmt.Errorf("handshake failed: %w: %w", syscall.EIO, io.EOF)
	}
	for _, size := range []int64{50_000, 1 << 20} {
		for _, off := range []int64{0, 1000, 40_000} {
			n, err := f.ReadAt(context.Background(), src, make([]byte, 100), off, size)
			if err == nil || err == io.EOF {
				t.Errorf("read at %d of %d: %d, %v", off, size, n, err)
			}
		}
	}
}

func TestReleaseEndsFetches(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src, other := newSource(1<<20, 1), newSource(1<<20, 1)
	src.before, _ = gate() // for ever
	var wg sync.WaitGroup
	read := func(s *memSource, want error) {
		wg.Go(func() {
			p := make([]byte, 4096)
			_, err := f.ReadAt(context.Background(), s, p, 0, 1<<20)
			if !errors.Is(err, want) || err == nil && !bytes.Equal(p, s.data[:4096]) {
				t.Errorf("read: %v, want %v", err, want)
			}
		})
	}
	read(src, context.Canceled)
	eventually(t, "the first waits", func() bool { return waiters(f) == 1 })
	read(other, nil)
	eventually(t, "both wait", func() bool { return waiters(f) == 2 })
	f.Release(src)
	src.mu.Lock()
	if src.now != 0 {
		t.Error("the source is in use")
	}
	src.mu.Unlock()
	wg.Wait()
}

func TestFill(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(200_000, 1)
	src.before = func(context.Context, bool, int64, int64) error { return syscall.EIO }
	f.Fill(src.data, 0)
	if got := readAll(t, f, src, 1000); !bytes.Equal(got, src.data) {
		t.Error("wrong data")
	}
	f.Invalidate()
	f.Fill(src.data, 0)
	if _, err := f.ReadAt(context.Background(), src, make([]byte, 1), 0, 1); !errors.Is(err, syscall.EIO) {
		t.Errorf("read of what was filled in after a change: %v", err)
	}
	f.FillVersion(src.data, 0, f.Version())
	if got := readAll(t, f, src, 1000); !bytes.Equal(got, src.data) {
		t.Error("wrong data")
	}
}

func TestHitDoesNotAllocate(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(1<<20, 1)
	f.Fill(src.data, 0)
	for _, size := range []int{4 << 10, 128 << 10} {
		p := make([]byte, size)
		if n := testing.AllocsPerRun(100, func() { f.ReadAt(context.Background(), src, p, 128<<10, 1<<20) }); n != 0 {
			t.Errorf("%v allocations for a hit of %d bytes", n, size)
		}
	}
}

func BenchmarkHit4K(b *testing.B)   { benchmarkHit(b, 4<<10) }
func BenchmarkHit128K(b *testing.B) { benchmarkHit(b, 128<<10) }

func benchmarkHit(b *testing.B, size int) {
	_, f := newFile(b, 64<<20)
	src := newSource(32<<20, 1)
	f.Fill(src.data, 0)
	p := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := f.ReadAt(context.Background(), src, p, off, 32<<20); err != nil {
			b.Fatal(err)
		}
		off = (off + int64(size)) % (32 << 20)
	}
}

package blockcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func write(t *testing.T, f *File, src Source, p []byte, off int64) {
	t.Helper()
	if n, err := f.WriteAt(context.Background(), src, p, off); n != len(p) || err != nil {
		t.Fatalf("write of %d at %d: %d, %v", len(p), off, n, err)
	}
}

func flush(t *testing.T, f *File) {
	t.Helper()
	if err := f.Flush(context.Background()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

func TestWritesArePipelinedAndJoined(t *testing.T) {
	for _, step := range []int{4 << 10, 1 << 20, 3<<20 + 5} {
		synctest.Test(t, func(t *testing.T) {
			_, f := newFile(t, 256<<20)
			src := newSource(0, 1)
			src.before = roundTrip(100 * time.Millisecond)
			want := newSource(32<<20, 2).data
			start := time.Now()
			for off := 0; off < len(want); off += step {
				write(t, f, src, want[off:min(off+step, len(want))], int64(off))
			}
			flush(t, f)
			if took := time.Since(start); took > time.Second {
				t.Errorf("step %d: took %v", step, took)
			}
			if !bytes.Equal(src.data, want) {
				t.Errorf("step %d: wrong data", step)
			}
			if src.most > maxFileDirty {
				t.Errorf("step %d: %d bytes were in flight", step, src.most)
			}
			if n := len(src.writes); n > 80 {
				t.Errorf("step %d: %d writes", step, n)
			}
		})
	}
}

func TestRandomWritesArePipelined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := newFile(t, 64<<20)
		src := newSource(16<<20, 1)
		src.before = roundTrip(100 * time.Millisecond)
		want := src.content()
		rng := rand.New(rand.NewPCG(1, 1))
		start := time.Now()
		for range 2000 {
			off := rng.IntN(len(want) - 4096)
			p := bytes.Repeat([]byte{byte(rng.Uint32())}, 4096)
			copy(want[off:], p)
			write(t, f, src, p, int64(off))
		}
		flush(t, f)
		if took := time.Since(start); took > 10*time.Second { // one at a time they take 200 s
			t.Errorf("took %v", took)
		}
		if !bytes.Equal(src.data, want) {
			t.Error("wrong data")
		}
	})
}

func TestOverlappingWritesKeepTheirOrder(t *testing.T) {
	for seed := range uint64(5) {
		_, f := newFile(t, 8<<20)
		src := newSource(10_000, seed)
		src.pause = 200 * time.Microsecond
		want := src.content()
		rng := rand.New(rand.NewPCG(seed, 3))
		for i := range 500 {
			off := rng.IntN(9000)
			p := bytes.Repeat([]byte{byte(i)}, 1+rng.IntN(1000))
			copy(want[off:], p)
			write(t, f, src, p, int64(off))
		}
		flush(t, f)
		if !bytes.Equal(src.content(), want) {
			t.Errorf("seed %d: wrong at %d", seed, diff(src.content(), want))
		}
		if src.overlap {
			t.Errorf("seed %d: overlapping writes ran at once", seed)
		}
	}
}

func TestBackwardAndSparseWrites(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(0, 1)
	want := newSource(1<<20, 2).data
	for off := len(want) - 1000; off >= 0; off -= 2000 {
		write(t, f, src, want[off:off+1000], int64(off))
		clear(want[max(0, off-1000):off])
		if off < 2000 {
			clear(want[:off])
		}
	}
	flush(t, f)
	if !bytes.Equal(src.content(), want) {
		t.Errorf("wrong at %d", diff(src.content(), want))
	}
}

func TestWrittenIsReadAtOnce(t *testing.T) {
	c, f := newFile(t, 8<<20)
	src := newSource(0, 1)
	block := make(chan struct{})
	src.before = func(context.Context, bool, int64, int64) error { <-block; return nil }
	want := newSource(300_000, 2).data
	write(t, f, src, want[:200_000], 0) // goes into flight
	write(t, f, src, want[100_000:], 100_000)
	if !f.Dirty() || f.End() != 300_000 || c.Used() < 300_000 {
		t.Errorf("dirty %v, end %d, used %d", f.Dirty(), f.End(), c.Used())
	}
	p := make([]byte, 400_000)
	n, err := f.ReadAt(context.Background(), src, p, 0, 0)
	if n != 300_000 || err != io.EOF || !bytes.Equal(p[:n], want) {
		t.Errorf("read: %d, %v, differing at %d", n, err, diff(p, want))
	}
	close(block)
	flush(t, f)
	if f.Dirty() || f.End() != 0 || !bytes.Equal(src.content(), want) {
		t.Error("not flushed")
	}
}

func TestWriteErrorIsReportedOnce(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(50_000, 1)
	old := src.content()
	ctx := context.Background()
	readAll(t, f, src, 4096)
	src.before = func(_ context.Context, write bool, _, _ int64) error {
		if write {
			return syscall.EDQUOT
		}
		return nil
	}
	write(t, f, src, []byte("lost"), 100)
	if err := f.Flush(ctx); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("flush: %v", err)
	}
	if f.Dirty() || f.Flush(ctx) != nil {
		t.Error("the error was reported twice, or the data kept")
	}
	if got := readAll(t, f, src, 4096); !bytes.Equal(got, old) {
		t.Error("data that was not written is still read")
	}

	write(t, f, src, []byte("lost"), 100)
	eventually(t, "the write failed", func() bool { return !f.Dirty() })
	if _, err := f.WriteAt(ctx, src, []byte("x"), 0); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("write after an error: %v", err)
	}
	if err := f.Flush(ctx); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("flush: %v", err)
	}
	src.before = nil
	write(t, f, src, []byte("kept"), 100)
	flush(t, f)
	if got := src.content(); string(got[100:104]) != "kept" {
		t.Errorf("got %q", got[100:104])
	}
}

func TestWritersWaitForRoom(t *testing.T) {
	for _, limit := range []int64{0, 256 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c, f := newFile(t, limit)
			src := newSource(0, 1)
			block := make(chan struct{})
			src.before = func(context.Context, bool, int64, int64) error { <-block; return nil }
			ctx, cancel := context.WithCancel(context.Background())
			var n int
			var err error
			done := make(chan struct{})
			want := newSource(20<<20, 2).data
			go func() {
				defer close(done)
				n, err = f.WriteAt(ctx, src, want, 0)
			}()
			eventually(t, "the writer waits", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				c.mu.Lock()
				defer c.mu.Unlock()
				return f.wake != nil || c.wake != nil
			})
			if used := c.Used(); used > max(limit, 2*minDirty) || used > 2*maxFileDirty {
				t.Errorf("used %d", used)
			}
			cancel()
			<-done
			if !errors.Is(err, context.Canceled) || n == 0 || n == len(want) {
				t.Errorf("write: %d, %v", n, err)
			}
			close(block)
			write(t, f, src, want[n:], int64(n))
			flush(t, f)
			if !bytes.Equal(src.content(), want) {
				t.Error("wrong data")
			}
		})
	}
}

func TestFlushWaitsForWhatWasWrittenBefore(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src, other := newSource(10, 1), newSource(10, 1)
	block := make(chan struct{})
	other.before = func(context.Context, bool, int64, int64) error { <-block; return nil }
	write(t, f, src, []byte("a"), 0)
	flush(t, f)
	write(t, f, other, []byte("b"), 5)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flush: %v", err)
	}
	close(block)
	flush(t, f)
	if string(src.data[:1]) != "a" || string(other.data[5:6]) != "b" {
		t.Error("written through the wrong source")
	}
}

func TestFlushWaitsForJoinedExtents(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(200, 1)
	next := make(chan struct{})
	src.before = func(context.Context, bool, int64, int64) error { <-next; return nil }
	write(t, f, src, make([]byte, 200), 0) // goes into flight
	write(t, f, src, bytes.Repeat([]byte{1}, 100), 100)
	flushed := make(chan error, 1)
	go func() { flushed <- f.Flush(context.Background()) }()
	eventually(t, "the flush waits", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.flushers == 1 })
	write(t, f, src, bytes.Repeat([]byte{2}, 50), 50) // newer, and joined to what Flush waits for
	next <- struct{}{}
	eventually(t, "both were sent as one", func() bool { return src.writingNow(span{50, 200}) })
	select {
	case err := <-flushed:
		t.Errorf("flush returned %v while data was in flight", err)
	case <-time.After(20 * time.Millisecond): // no flush may come, however long
	}
	close(next)
	if err := <-flushed; err != nil {
		t.Errorf("flush: %v", err)
	}
	flush(t, f)
}

func TestTruncateForgetsWrites(t *testing.T) {
	_, f := newFile(t, 8<<20)
	src := newSource(0, 1)
	block := make(chan struct{})
	src.before = func(context.Context, bool, int64, int64) error { <-block; return nil }
	write(t, f, src, bytes.Repeat([]byte{1}, 1000), 0)   // in flight
	write(t, f, src, bytes.Repeat([]byte{2}, 1000), 500) // dirty
	f.Truncate(200)
	if f.End() != 200 {
		t.Errorf("end %d", f.End())
	}
	p := make([]byte, 1000)
	n, err := f.ReadAt(context.Background(), src, p, 0, 200)
	if n != 200 || err != io.EOF || !bytes.Equal(p[:200], bytes.Repeat([]byte{1}, 200)) {
		t.Errorf("read: %d, %v", n, err)
	}
	close(block)
	flush(t, f)
}

func TestClose(t *testing.T) {
	c := New(8 << 20)
	f, g := c.NewFile(), c.NewFile()
	src := newSource(1<<20, 1)
	src.before = func(ctx context.Context, _ bool, _, _ int64) error { <-ctx.Done(); return ctx.Err() }
	ctx := context.Background()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := f.ReadAt(ctx, src, make([]byte, 1), 0, 1<<20); err == nil {
			t.Error("a read of a closed file succeeded")
		}
	})
	eventually(t, "the reader waits", func() bool { return waiters(f) == 1 })
	write(t, f, src, []byte("x"), 0)
	write(t, f, src, []byte("y"), 100)
	write(t, g, src, []byte("x"), 0)
	write(t, g, src, []byte("y"), 0)
	f.Close()
	wg.Wait()
	if _, err := f.ReadAt(ctx, src, make([]byte, 1), 0, 1); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := f.WriteAt(ctx, src, make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	c.Close()
	if err := g.Flush(ctx); err == nil || g.Dirty() {
		t.Errorf("flush after the cache was closed: %v, dirty %v", err, g.Dirty())
	}
	src.before = nil
	if n, err := g.ReadAt(ctx, src, make([]byte, 10), 0, 1<<20); n != 10 || err != nil {
		t.Errorf("read after the cache was closed: %d, %v", n, err)
	}
	g.Close()
	if c.Used() != 0 {
		t.Errorf("used %d", c.Used())
	}
}

// TestWhatWasWrittenIsNotFetched writes a file in pieces and reads it back:
// the source is asked for nothing, also where newer data came on top.
func TestWhatWasWrittenIsNotFetched(t *testing.T) {
	for _, step := range []int{4 << 10, 100_000, 1 << 20} {
		_, f := newFile(t, 64<<20)
		src := newSource(0, 1)
		want := newSource(3<<20+77, 2).data
		for off := 0; off < len(want); off += step {
			write(t, f, src, want[off:min(off+step, len(want))], int64(off))
		}
		write(t, f, src, []byte("on top"), 200_000)
		copy(want[200_000:], "on top")
		flush(t, f)
		got := make([]byte, len(want))
		if _, err := f.ReadAt(context.Background(), src, got, 0, int64(len(want))); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("step %d: wrong data", step)
		}
		var fetched int64
		for _, r := range src.reads {
			fetched += int64(r.hi - r.lo)
		}
		if fetched > int64(len(want)/4) {
			t.Errorf("step %d: %d of %d bytes were fetched", step, fetched, len(want))
		}
	}
}

// TestFillDuringWrite has data read ahead while a write is in flight: what the
// source had before the write arrived must not stay in the cache.
func TestFillDuringWrite(t *testing.T) {
	_, f := newFile(t, 64<<20)
	src := newSource(1000, 1)
	arrive := make(chan struct{})
	src.before = func(ctx context.Context, isWrite bool, off, n int64) error {
		if isWrite {
			<-arrive
		}
		return nil
	}
	want := bytes.Clone(src.data)
	copy(want[100:], "new")
	write(t, f, src, []byte("new"), 100)
	version := f.Version()
	old := make([]byte, 1000)
	if _, err := src.ReadAt(context.Background(), old, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	for _, arrived := range []bool{false, true} {
		if arrived {
			close(arrive)
			flush(t, f)
		}
		f.FillVersion(old, 0, version)
		got := make([]byte, 1000)
		if _, err := f.ReadAt(context.Background(), src, got, 0, 1000); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("arrived %v: wrong data", arrived)
		}
		if !arrived {
			f.Invalidate()
			version = f.Version()
		}
	}
}

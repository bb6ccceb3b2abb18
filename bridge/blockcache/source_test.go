package blockcache

import (
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A memSource is a file in memory that can be slow and fail.
type memSource struct {
	before func(ctx context.Context, write bool, off, n int64) error // called first, with no lock; may be nil
	pause  time.Duration                                             // every call takes up to so long, if not 0

	mu        sync.Mutex
	rng       *rand.Rand
	data      []byte
	reads     []span // all ReadAt calls
	writes    []span // all WriteAt calls
	writing   []span // WriteAt calls now
	overlap   bool   // overlapping writes ran at once
	now, most int64  // bytes under way, and their maximum
	failWrite float64
	failed    int // writes that failed
}

func newSource(size int, seed uint64) *memSource {
	s := &memSource{rng: rand.New(rand.NewPCG(seed, 1)), data: make([]byte, size)}
	rand.NewChaCha8([32]byte{byte(seed)}).Read(s.data)
	return s
}

func (s *memSource) chance(p float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.Float64() < p
}

// delay lets others run for a while.
func (s *memSource) delay() {
	if s.pause == 0 {
		return
	}
	s.mu.Lock()
	d := time.Duration(s.rng.Int64N(int64(s.pause)))
	s.mu.Unlock()
	if d < s.pause/4 {
		runtime.Gosched()
		return
	}
	time.Sleep(d)
}

func (s *memSource) enter(n int64) {
	s.now += n
	s.most = max(s.most, s.now)
}

func (s *memSource) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	s.mu.Lock()
	s.reads = append(s.reads, span{int(off), int(off) + len(p)})
	s.enter(int64(len(p)))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.now -= int64(len(p))
		s.mu.Unlock()
	}()
	if s.before != nil {
		if err := s.before(ctx, false, off, int64(len(p))); err != nil {
			return 0, err
		}
	}
	s.delay()
	s.mu.Lock()
	n := 0
	if off < int64(len(s.data)) {
		n = copy(p, s.data[off:])
	}
	s.mu.Unlock()
	s.delay()
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (s *memSource) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	me := span{int(off), int(off) + len(p)}
	s.mu.Lock()
	s.writes = append(s.writes, me)
	for _, w := range s.writing {
		if w.lo < me.hi && me.lo < w.hi {
			s.overlap = true
		}
	}
	s.writing = append(s.writing, me)
	s.enter(int64(len(p)))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.now -= int64(len(p))
		i := slices.Index(s.writing, me)
		s.writing = slices.Delete(s.writing, i, i+1)
	}()
	if s.before != nil {
		if err := s.before(ctx, true, off, int64(len(p))); err != nil {
			return 0, err
		}
	}
	s.delay()
	if s.chance(s.failWrite) {
		s.store(p[:len(p)/2], off)
		s.mu.Lock()
		s.failed++
		s.mu.Unlock()
		return len(p) / 2, syscall.ENOSPC
	}
	s.store(p, off)
	s.delay()
	return len(p), nil
}

// writingNow reports whether a write of the range r is under way.
func (s *memSource) writingNow(r span) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.writing, r)
}

func (s *memSource) store(p []byte, off int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if end := int(off) + len(p); end > len(s.data) {
		s.data = append(s.data, make([]byte, end-len(s.data))...)
	}
	copy(s.data[off:], p)
}

func (s *memSource) truncate(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = resize(s.data, size)
}

func (s *memSource) content() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]byte(nil), s.data...)
}

// readBytes returns how many bytes were asked for so far.
func (s *memSource) readBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.reads {
		n += r.hi - r.lo
	}
	return int64(n)
}

func resize(p []byte, size int) []byte {
	if size <= len(p) {
		return append([]byte(nil), p[:size]...)
	}
	return append(p, make([]byte, size-len(p))...)
}

// newFile returns a file of a cache, which are closed at the end of the test.
func newFile(t testing.TB, limit int64) (*Cache, *File) {
	c := New(limit)
	f := c.NewFile()
	t.Cleanup(func() {
		f.Close()
		c.Close()
		if n := c.Used(); n != 0 {
			t.Errorf("%d bytes are used at the end", n)
		}
	})
	return c, f
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

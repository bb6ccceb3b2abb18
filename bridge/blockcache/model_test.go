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
	"time"
)

// A model is what a file should contain. Each worker writes in stripes of its
// own, so that it knows what is there whatever the others do; the stripes of
// different workers lie in each other's blocks.
type model struct {
	t     *testing.T
	f     *File
	src   *memSource
	exact bool // no write fails: what was written is what is read

	mu     sync.RWMutex // held for writing by who changes all of the file
	data   []byte       // each worker's part is its own, but for the size
	noise  []byte       // what is written, from anywhere in it
	size   int64        // guarded by sizeMu
	sizeMu sync.Mutex
}

const (
	modelSize = 3 << 19
	workers   = 4
	stripe    = 30_000
)

func TestModel(t *testing.T) {
	for _, limit := range []int64{0, 1 << 20, 64 << 20} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("limit=%d/seed=%d", limit, seed), func(t *testing.T) {
				runModel(t, limit, seed, 0)
			})
		}
	}
}

func TestModelFailingWrites(t *testing.T) {
	for _, limit := range []int64{1 << 20, 64 << 20} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("limit=%d/seed=%d", limit, seed), func(t *testing.T) {
				runModel(t, limit, seed, 0.1)
			})
		}
	}
}

func runModel(t *testing.T, limit int64, seed uint64, fail float64) {
	_, f := newFile(t, limit)
	src := newSource(modelSize/2, seed)
	src.pause, src.failWrite = 300*time.Microsecond, fail
	m := &model{t: t, f: f, src: src, exact: fail == 0, data: make([]byte, modelSize), noise: newSource(4*stripe, seed+1).data, size: modelSize / 2}
	copy(m.data, src.data)
	var wg sync.WaitGroup
	for id := range workers {
		rng := rand.New(rand.NewPCG(seed, uint64(id)+100))
		wg.Go(func() {
			for range 60 {
				m.step(rng, id)
			}
		})
	}
	wg.Wait()
	m.settle(true)
	if src.overlap {
		t.Error("overlapping writes ran at once")
	}
}

// own returns a random range of one stripe of the worker id.
func (m *model) own(rng *rand.Rand, id int) (off, n int64) {
	stripes := modelSize / stripe / workers
	lo := (rng.IntN(stripes)*workers + id) * stripe
	off = int64(rng.IntN(stripe))
	n = 1 + rng.Int64N(stripe-off)
	if rng.IntN(2) == 0 {
		n = min(n, 2000)
	}
	return int64(lo) + off, n
}

func (m *model) step(rng *rand.Rand, id int) {
	switch k := rng.IntN(200); {
	case k < 2:
		m.truncate(rng.Int64N(modelSize))
	case k < 4:
		m.settle(false)
	case k < 8:
		m.f.Invalidate()
	case k < 16:
		if err := m.f.Flush(context.Background()); err != nil && m.exact {
			m.t.Errorf("flush: %v", err)
		} else if err != nil {
			m.settle(false)
		}
	case k < 100:
		m.write(rng, id)
	case k < 110:
		m.readAll(id)
	default:
		off, n := m.own(rng, id)
		m.read(off, n)
	}
}

func (m *model) write(rng *rand.Rand, id int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	off, n := m.own(rng, id)
	at := rng.IntN(len(m.noise) / 2)
	p := m.noise[at : at+int(n)]
	w, err := m.f.WriteAt(context.Background(), m.src, p, off)
	if err != nil && (m.exact || !errors.Is(err, syscall.ENOSPC)) || err == nil && w != len(p) {
		m.t.Errorf("write of %d at %d: %d, %v", n, off, w, err)
	}
	if err != nil {
		return
	}
	copy(m.data[off:], p)
	m.sizeMu.Lock()
	m.size = max(m.size, off+n)
	m.sizeMu.Unlock()
}

// read reads a range of the worker's own and compares.
func (m *model) read(off, n int64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.sizeMu.Lock()
	size := m.size
	m.sizeMu.Unlock()
	p := make([]byte, n)
	got, err := m.f.ReadAt(context.Background(), m.src, p, off, size)
	if !m.exact {
		return
	}
	want := max(0, min(n, size-off))
	if int64(got) < want || (err != nil && err != io.EOF) || err == nil && int64(got) != n {
		m.t.Errorf("read of %d at %d of %d: %d, %v", n, off, size, got, err)
		return
	}
	if i := diff(p[:got], m.data[off:off+int64(got)]); i >= 0 {
		m.t.Errorf("read of %d at %d of %d: wrong at %d: got %d, want %d", n, off, size, off+int64(i), p[i], m.data[off+int64(i)])
	}
}

// readAll reads the whole file in sequence, and compares the worker's own part.
func (m *model) readAll(id int) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.sizeMu.Lock()
	size := m.size
	m.sizeMu.Unlock()
	p := make([]byte, 50_000)
	for off := int64(0); off < size; off += int64(len(p)) {
		n, err := m.f.ReadAt(context.Background(), m.src, p, off, size)
		if !m.exact {
			continue
		}
		if int64(n) < min(int64(len(p)), size-off) || err != nil && err != io.EOF {
			m.t.Errorf("read at %d of %d: %d, %v", off, size, n, err)
			return
		}
		for lo := int64(id * stripe); lo < off+int64(n); lo += stripe * workers {
			a, b := max(off, lo), min(off+int64(n), lo+stripe)
			if a < b && diff(p[a-off:b-off], m.data[a:b]) >= 0 {
				m.t.Errorf("sequential read at %d of %d: wrong in %d to %d", off, size, a, b)
				return
			}
		}
	}
}

func (m *model) truncate(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settleLocked()
	m.src.truncate(int(size))
	m.f.Truncate(size)
	clear(m.data[size:])
	m.size = size
}

// settle flushes and compares the source and the cache with the model.
func (m *model) settle(invalidate bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settleLocked()
	if invalidate {
		m.f.Invalidate()
	}
	p := make([]byte, m.size)
	n, err := m.f.ReadAt(context.Background(), m.src, p, 0, m.size)
	if int64(n) != m.size || err != nil && err != io.EOF {
		m.t.Errorf("read of all %d bytes: %d, %v", m.size, n, err)
	}
	if i := diff(p, m.data[:m.size]); i >= 0 {
		m.t.Errorf("read of all: wrong at %d of %d", i, m.size)
	}
}

func (m *model) settleLocked() {
	err := m.f.Flush(context.Background())
	m.src.mu.Lock()
	failed := m.src.failed
	m.src.failed = 0
	m.src.mu.Unlock()
	// A Flush without the lock may have reported the failures already.
	if err != nil && (failed == 0 || !errors.Is(err, syscall.ENOSPC)) {
		m.t.Errorf("flush after %d failures: %v", failed, err)
	}
	if m.f.Dirty() || m.f.End() != 0 {
		m.t.Errorf("dirty after flush: end %d", m.f.End())
	}
	got := m.src.content()
	if !m.exact {
		m.size = int64(len(got))
		clear(m.data)
		copy(m.data, got)
	}
	if !bytes.Equal(got, m.data[:m.size]) {
		m.t.Errorf("source has %d bytes, want %d, differing at %d", len(got), m.size, diff(got, m.data[:m.size]))
	}
}

// diff returns where a and b, of which one may be longer, differ first, or -1.
func diff(a, b []byte) int {
	n := min(len(a), len(b))
	if bytes.Equal(a[:n], b[:n]) {
		return -1
	}
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

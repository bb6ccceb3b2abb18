package blockcache

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
)

// A queueSource has what is read ahead wait until open is closed.
type queueSource struct {
	*memSource
	open chan struct{}

	mu     sync.Mutex
	queued int // those that wait now; guarded by mu
}

func newQueueSource(size int) *queueSource {
	return &queueSource{memSource: newSource(size, 1), open: make(chan struct{})}
}

func (s *queueSource) ReadAhead(ctx context.Context, unwanted <-chan struct{}, p []byte, off int64) (int, error) {
	s.wait(1)
	defer s.wait(-1)
	select {
	case <-s.open:
		return s.ReadAt(ctx, p, off)
	case <-unwanted:
		return 0, syscall.ECANCELED
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *queueSource) wait(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queued += n
}

func (s *queueSource) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}

// readQueued reads n bytes at off and checks them.
func readQueued(t *testing.T, f *File, s *queueSource, off int64, n int) {
	t.Helper()
	p := make([]byte, n)
	if got, err := f.ReadAt(context.Background(), s, p, off, int64(len(s.data))); got != n || err != nil {
		t.Fatalf("read at %d: %d, %v", off, got, err)
	}
	if !bytes.Equal(p, s.data[off:off+int64(n)]) {
		t.Fatalf("read at %d: wrong data", off)
	}
}

// TestTurningDropsWhatIsQueued reads in sequence, and then here and there: what
// was to be fetched ahead and was not sent by then is not sent any more.
func TestTurningDropsWhatIsQueued(t *testing.T) {
	_, f := newFile(t, 256<<20)
	s := newQueueSource(16 << 20)
	readQueued(t, f, s, 0, BlockSize)
	eventually(t, "blocks are to be fetched ahead", func() bool { return s.waiting() >= 3 })
	rng := rand.New(rand.NewPCG(1, 2))
	const reads = 100
	for i := range reads {
		readQueued(t, f, s, 8<<20+rng.Int64N(2<<10)<<12, 4<<10)
		if i == 0 {
			eventually(t, "they are dropped", func() bool { return s.waiting() == 0 })
		}
	}
	close(s.open)
	if n := s.readBytes(); n != BlockSize+reads*4<<10 {
		t.Errorf("%d bytes were fetched, %d of them ahead of need", n, n-(BlockSize+reads*4<<10))
	}

	before := s.readBytes() // the sequence goes on
	for off := int64(BlockSize); off < 8<<20; off += BlockSize {
		readQueued(t, f, s, off, BlockSize)
	}
	eventually(t, "all has come", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.reads) == 0 })
	if n := s.readBytes() - before; n > 16<<20-BlockSize {
		t.Errorf("%d bytes were fetched again", n)
	}
}

// TestOthersKeepWhatIsQueued has somebody else read elsewhere, and somebody wait
// for what is queued: it is not dropped.
func TestOthersKeepWhatIsQueued(t *testing.T) {
	_, f := newFile(t, 256<<20)
	s, other := newQueueSource(16<<20), newSource(16<<20, 1)
	readQueued(t, f, s, 0, BlockSize)
	eventually(t, "blocks are to be fetched ahead", func() bool { return s.waiting() >= 3 })
	queued := s.waiting()
	if n, err := f.ReadAt(context.Background(), other, make([]byte, 4096), 8<<20, 16<<20); n != 4096 || err != nil {
		t.Fatal(n, err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { readQueued(t, f, s, BlockSize, 4096) })
	eventually(t, "somebody waits", func() bool { return waiters(f) == 1 })
	readQueued(t, f, s, 12<<20, 4096)
	eventually(t, "the others are dropped", func() bool { return s.waiting() == 1 })
	if queued < 3 {
		t.Errorf("%d were queued", queued)
	}
	close(s.open)
	wg.Wait()
}

package blockcache

import (
	"context"
	"sync"
	"testing"
)

// A startingSource is a memSource that starts writes, if it may, which end when
// they are let.
type startingSource struct {
	*memSource
	let chan struct{}

	mu    sync.Mutex
	may   bool
	began []int64 // offsets, in the order of the starts
}

func (s *startingSource) StartWrite(p []byte, off int64) func(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.may {
		return nil
	}
	s.began = append(s.began, off)
	return func(ctx context.Context) error {
		<-s.let
		_, err := s.memSource.WriteAt(ctx, p, off)
		return err
	}
}

// TestPush tells whether what was written is on its way in order.
func TestPush(t *testing.T) {
	ctx := context.Background()
	c := New(1 << 20)
	defer c.Close()
	for _, step := range []struct {
		name string
		may  bool
		want bool
	}{{"started", true, true}, {"not started", false, false}} {
		f := c.NewFile()
		src := &startingSource{memSource: newSource(0, 1), let: make(chan struct{}), may: step.may}
		if !step.may {
			src.before = func(context.Context, bool, int64, int64) error { <-src.let; return nil }
		}
		for off := range int64(3) {
			if _, err := f.WriteAt(ctx, src, []byte{byte(off)}, off); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.Push(src); got != step.want {
			t.Errorf("%s: Push = %v", step.name, got)
		}
		if f.Push(newSource(0, 2)) {
			t.Errorf("%s: what went through one source is pushed through another", step.name)
		}
		src.mu.Lock()
		n := len(src.began)
		src.mu.Unlock()
		if step.may && n == 0 {
			t.Errorf("%s: nothing was", step.name)
		}
		close(src.let)
		if err := f.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if got := string(src.memSource.data); got != "\x00\x01\x02" {
			t.Errorf("%s: the source has %q", step.name, got)
		}
		if !f.Push(src) {
			t.Errorf("%s: Push is false with nothing under way", step.name)
		}
		f.Close()
	}
}

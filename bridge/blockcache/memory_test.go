package blockcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// Many files of one cache are read and written at once: the cache keeps its
// limit, and all get on however small it is.
func TestMemoryIsBounded(t *testing.T) {
	for _, limit := range []int64{1 << 20, 6 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c := New(limit)
			defer c.Close()
			var wg sync.WaitGroup
			for id := range uint64(4) {
				wg.Go(func() { useFile(t, c, limit, id) })
			}
			wg.Wait()
			if n := c.Used(); n != 0 {
				t.Errorf("%d bytes are used at the end", n)
			}
		})
	}
}

func useFile(t *testing.T, c *Cache, limit int64, id uint64) {
	f := c.NewFile()
	defer f.Close()
	src := newSource(2<<20, id)
	src.pause = 100 * time.Microsecond
	want := src.content()
	rng := rand.New(rand.NewPCG(id, 5))
	ctx := context.Background()
	for range 3 {
		for off := 0; off < len(want); {
			p := make([]byte, 1+rng.IntN(200_000))
			if rng.IntN(4) == 0 {
				p = p[:min(len(p), len(want)-off)]
				p[0] = byte(off)
				copy(want[off:], p)
				if _, err := f.WriteAt(ctx, src, p, int64(off)); err != nil {
					t.Error(err)
				}
			} else {
				n, err := f.ReadAt(ctx, src, p, int64(off), int64(len(want)))
				if err != nil && err != io.EOF || !bytes.Equal(p[:n], want[off:off+n]) {
					t.Errorf("read at %d: %d, %v", off, n, err)
				}
			}
			off += len(p)
			// Data of writes that a running read must know of comes on top.
			if used := c.Used(); used > limit+limit/2 {
				t.Errorf("used %d of %d", used, limit)
			}
		}
	}
	if err := f.Flush(ctx); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(src.content(), want) {
		t.Error("wrong data in the source")
	}
}

func TestEvictionTakesTheOldest(t *testing.T) {
	c, f := newFile(t, 1<<20)
	g := c.NewFile()
	defer g.Close()
	p := make([]byte, BlockSize)
	for i := range int64(8) {
		f.Fill(p, i*BlockSize)
	}
	if _, err := f.ReadAt(context.Background(), nil, p, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	g.Fill(p, 0)
	g.Fill(p, BlockSize)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.blocks[0] == nil || f.blocks[1] != nil || f.blocks[2] != nil || f.blocks[3] == nil {
		t.Error("it is not the two blocks used least recently that are gone")
	}
	if c.Used() != 1<<20 {
		t.Errorf("used %d", c.Used())
	}
}

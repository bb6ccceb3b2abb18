package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sync/errgroup"
)

const block = 1 << 20 // of sequential reads and writes

// readFile reads a file from its beginning, at most limit bytes of it, until
// the time is over. It returns how much it has read.
func (e *env) readFile(ctx context.Context, name string, limit int64) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, block)
	var total int64
	for total < limit && !e.over(ctx) {
		n, err := f.Read(buf[:min(block, limit-total)])
		total += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return total, err
		}
	}
	return total, ctx.Err()
}

func seqRead(ctx context.Context, e *env) (float64, error) {
	n, err := e.readFile(ctx, e.mounted("big"), e.size.big)
	return float64(n), err
}

// readOnce reads the beginning of the large file, for reread.
func readOnce(ctx context.Context, e *env) (err error) {
	e.done, err = e.readFile(ctx, e.mounted("big"), e.size.big/4)
	return err
}

// reread reads what was read before, opening it anew, as often as the large
// file is large.
func reread(ctx context.Context, e *env) (float64, error) {
	var total int64
	for total < e.size.big && !e.over(ctx) {
		n, err := e.readFile(ctx, e.mounted("big"), e.done)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, errors.New("nothing to read again")
		}
		total += n
	}
	return float64(total), nil
}

// seqWrite writes a file and waits until it is safe.
func seqWrite(ctx context.Context, e *env) (float64, error) {
	return e.writeFile(ctx, e.out+"/big", e.size.big)
}

// writeFile writes a file of the mount until it has size or the time is over,
// and makes sure that the upstream has it.
func (e *env) writeFile(ctx context.Context, name string, size int64) (float64, error) {
	f, err := os.Create(e.mounted(name))
	if err != nil {
		return 0, err
	}
	buf := make([]byte, block)
	newRandom(3).Read(buf)
	var total int64
	for total < size && err == nil && !e.over(ctx) {
		var n int
		n, err = f.Write(buf)
		total += int64(n)
	}
	if err := errors.Join(err, f.Sync(), f.Close(), ctx.Err()); err != nil {
		return 0, err
	}
	e.stop()
	fi, err := os.Stat(e.real(name))
	if err == nil && fi.Size() != total {
		err = fmt.Errorf("of %d bytes the upstream has %d", total, fi.Size())
	}
	return float64(total), err
}

// randRead reads 4 KiB here and there, with as many readers at once as depth.
func randRead(depth int) func(context.Context, *env) (float64, error) {
	return func(ctx context.Context, e *env) (float64, error) {
		f, err := os.Open(e.mounted("big"))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		counts := make([]int, depth)
		g, ctx := errgroup.WithContext(ctx)
		for i := range depth {
			g.Go(func() error {
				random := rand.New(rand.NewPCG(4, uint64(i)))
				buf := make([]byte, 4<<10)
				for counts[i] < e.size.ops/depth && !e.over(ctx) {
					if _, err := f.ReadAt(buf, random.Int64N(e.size.big/4096)*4096); err != nil {
						return err
					}
					counts[i]++
				}
				return ctx.Err()
			})
		}
		err = g.Wait()
		total := 0
		for _, n := range counts {
			total += n
		}
		return float64(total), err
	}
}

// parRead reads several files at once.
func parRead(ctx context.Context, e *env) (float64, error) {
	counts := make([]int64, parts)
	g, ctx := errgroup.WithContext(ctx)
	for i := range parts {
		g.Go(func() (err error) {
			counts[i], err = e.readFile(ctx, e.mounted(partName(i)), e.size.part)
			return err
		})
	}
	err := g.Wait()
	var total int64
	for _, n := range counts {
		total += n
	}
	return float64(total), err
}

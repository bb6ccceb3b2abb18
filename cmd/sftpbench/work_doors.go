package main

import (
	"context"
	"errors"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"
)

// doorsWorkloads are those of a mount and an SFTP server of one tree.
func doorsWorkloads() []workload {
	notify := group("doors", false, notifySystems(), []workload{
		{name: "notify", unit: unitTime, set: "flat", prepare: look, run: mutate},
	})
	return append(notify, group("doors", true, doorsSystems(), []workload{
		{name: "write_here_read_there", unit: unitBytes, prepare: writeHere, run: readThere},
		{name: "read_both", unit: unitBytes, set: "part", run: readBoth},
	})...)
}

// look has the kernel know all files that mutate changes, if there is a mount.
func look(ctx context.Context, e *env) error {
	if e.in.dir == "" {
		return nil
	}
	return exec.CommandContext(ctx, "ls", "-l", e.mounted("flat")).Run()
}

// mutate changes files through SFTP, one after another.
func mutate(ctx context.Context, e *env) (float64, error) {
	c, err := e.goClient()
	if err != nil {
		return 0, err
	}
	defer c.close()
	n := 0
	then := time.Now().Add(-time.Hour)
	for ; n < e.size.flat && !e.over(ctx); n++ {
		if err := c.Chtimes(e.served("flat/"+flatName(n)), then, then); err != nil {
			return 0, err
		}
	}
	return float64(n), ctx.Err()
}

// writeHere writes a file through the mount, for readThere.
func writeHere(ctx context.Context, e *env) error {
	n, err := e.writeFile(ctx, e.out+"/shared", e.size.part)
	e.done = int64(n)
	return err
}

// readThere reads it through SFTP.
func readThere(ctx context.Context, e *env) (float64, error) {
	n, err := e.fetch(ctx, e.out+"/shared", e.done)
	if err == nil && n < e.done && !e.over(ctx) {
		err = errors.New("the file is shorter than what was written")
	}
	return float64(n), err
}

// readBoth reads a file at both doors at once.
func readBoth(ctx context.Context, e *env) (float64, error) {
	var here, there int64
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		here, err = e.readFile(ctx, e.mounted(partName(0)), e.size.part)
		return err
	})
	g.Go(func() (err error) {
		there, err = e.fetch(ctx, partName(0), e.size.part)
		return err
	})
	err := g.Wait()
	return float64(here + there), err
}

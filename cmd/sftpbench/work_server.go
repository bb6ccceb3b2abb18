package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const pinned = "Ciphers=" + cipher

// serverWorkloads are those of SFTP servers of a directory.
func serverWorkloads() []workload {
	return group("server", false, serverSystems(), []workload{
		{name: "get", unit: unitBytes, set: "big", run: get(pinned)},
		{name: "put", unit: unitBytes, set: "big", run: put(pinned)},
		{name: "get_default_cipher", unit: unitBytes, set: "big", run: get()},
		{name: "put_default_cipher", unit: unitBytes, set: "big", run: put()},
		{name: "get_go", unit: unitBytes, set: "big", run: getGo},
		{name: "put_go", unit: unitBytes, set: "big", run: putGo},
		{name: "get_r", unit: "file/s", set: "small", run: getTree},
		{name: "put_r", unit: "file/s", set: "small", run: putTree},
		{name: "lstat", unit: "op/s", set: "tree", prepare: connect, run: lstat},
		{name: "ls", unit: "entry/s", set: "flat", prepare: connect, run: list},
		{name: "clients_64", unit: unitBytes, set: "part", prepare: connectMany, run: manyClients},
		{name: "sessions", unit: "session/s", run: sessions},
		{name: "idle_session", unit: unitMemory, run: idleSessions},
	})
}

// chainWorkloads are those of SFTP servers of the upstream.
func chainWorkloads() []workload {
	return group("chain", true, chainSystems(), []workload{
		{name: "get", unit: unitBytes, set: "big", run: get(pinned)},
		{name: "put", unit: unitBytes, set: "big", run: put(pinned)},
		{name: "get_go", unit: unitBytes, set: "big", run: getGo},
		{name: "put_go", unit: unitBytes, set: "big", run: putGo},
		{name: "get_r", unit: "file/s", set: "small", run: getTree},
		{name: "put_r", unit: "file/s", set: "small", run: putTree},
		{name: "lstat", unit: "op/s", set: "tree", prepare: connect, run: lstat},
		{name: "ls", unit: "entry/s", set: "flat", prepare: connect, run: list},
	})
}

// size is how large a file has become, 0 if there is none.
func size(name string) float64 {
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return float64(fi.Size())
}

// get fetches the large file with OpenSSH's client.
func get(options ...string) func(context.Context, *env) (float64, error) {
	return func(ctx context.Context, e *env) (float64, error) {
		err := e.openSSH(ctx, "get "+e.served("big")+" "+e.dst+"/big", options...)
		e.stop()
		return size(e.dst + "/big"), err
	}
}

// put sends the large file with OpenSSH's client.
func put(options ...string) func(context.Context, *env) (float64, error) {
	return func(ctx context.Context, e *env) (float64, error) {
		err := e.openSSH(ctx, "put "+e.local+"/big "+e.served(e.out+"/big"), options...)
		e.stop()
		return size(e.real(e.out + "/big")), err
	}
}

// getTree fetches many small files with OpenSSH's client.
func getTree(ctx context.Context, e *env) (float64, error) {
	if err := e.openSSH(ctx, "get -r "+e.served("small")+" "+e.dst, pinned); err != nil {
		return 0, err
	}
	e.stop()
	n, err := countFiles(e.dst, smallLen)
	return float64(n), err
}

// putTree sends many small files with OpenSSH's client.
func putTree(ctx context.Context, e *env) (float64, error) {
	if err := e.openSSH(ctx, "put -r "+e.local+"/small "+e.served(e.out), pinned); err != nil {
		return 0, err
	}
	e.stop()
	n, err := countFiles(e.real(e.out), smallLen)
	return float64(n), err
}

// errOver ends a transfer whose time is over.
var errOver = errors.New("the time is over")

// A counter is what a transfer of the Go client reads from or writes to.
type counter struct {
	limit int64
	n     int64
	over  func() bool
}

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if c.n >= c.limit || c.over() {
		return len(p), errOver
	}
	return len(p), nil
}

func (c *counter) Read(p []byte) (int, error) {
	if c.n >= c.limit || c.over() {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), c.limit-c.n))
	for i := range p[:n] {
		p[i] = byte(i)
	}
	c.n += int64(n)
	return n, nil
}

// fetch reads a file through SFTP, at most limit bytes of it, until the time
// is over.
func (e *env) fetch(ctx context.Context, name string, limit int64) (int64, error) {
	c, err := e.goClient()
	if err != nil {
		return 0, err
	}
	defer c.close()
	return e.fetchBy(ctx, c, name, limit)
}

func (e *env) fetchBy(ctx context.Context, c *goClient, name string, limit int64) (int64, error) {
	f, err := c.Open(e.served(name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	to := &counter{limit: limit, over: func() bool { return e.over(ctx) }}
	if _, err := f.WriteTo(to); err != nil && !errors.Is(err, errOver) {
		return 0, err
	}
	return to.n, ctx.Err()
}

func getGo(ctx context.Context, e *env) (float64, error) {
	n, err := e.fetch(ctx, "big", e.size.big)
	return float64(n), err
}

func putGo(ctx context.Context, e *env) (float64, error) {
	c, err := e.goClient()
	if err != nil {
		return 0, err
	}
	defer c.close()
	f, err := c.Create(e.served(e.out + "/big"))
	if err != nil {
		return 0, err
	}
	from := &counter{limit: e.size.big, over: func() bool { return e.over(ctx) }}
	_, err = f.ReadFromWithConcurrency(from, 64)
	if err := errors.Join(err, f.Close(), ctx.Err()); err != nil {
		return 0, err
	}
	e.stop()
	return size(e.real(e.out + "/big")), nil
}

// connect opens a session.
func connect(ctx context.Context, e *env) (err error) {
	if e.raw, err = e.rawClient(); err == nil {
		e.undo = append(e.undo, e.raw.close)
	}
	return err
}

// connectMany opens 64 sessions.
func connectMany(ctx context.Context, e *env) error {
	for range 64 {
		c, err := e.goClient()
		if err != nil {
			return err
		}
		e.clients = append(e.clients, c)
		e.undo = append(e.undo, c.close)
	}
	return nil
}

// lstat asks for the attributes of all files of the tree, with many requests
// under way.
func lstat(ctx context.Context, e *env) (float64, error) {
	names := make([][]byte, e.size.tree)
	for i := range names {
		names[i] = []byte(e.served("tree/" + fileName(i)))
	}
	n, err := e.raw.lstats(names, func() bool { return e.over(ctx) })
	return float64(n), err
}

// list lists a directory several times.
func list(ctx context.Context, e *env) (float64, error) {
	total := 0
	for range 5 {
		n, err := e.raw.list(e.served("flat"))
		if err != nil {
			return 0, err
		}
		if n < e.size.flat {
			return 0, errors.New("the listing is not complete")
		}
		if total += n; e.over(ctx) {
			break
		}
	}
	return float64(total), nil
}

// manyClients reads files through all connections at once.
func manyClients(ctx context.Context, e *env) (float64, error) {
	var total atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range e.clients {
		g.Go(func() error {
			n, err := e.fetchBy(ctx, c, partName(i%parts), e.size.part/4)
			total.Add(n)
			return err
		})
	}
	err := g.Wait()
	return float64(total.Load()), err
}

// sessions logs in again and again, four clients at a time.
func sessions(ctx context.Context, e *env) (float64, error) {
	var total atomic.Int64
	n := int64(e.size.idle * 5)
	g, ctx := errgroup.WithContext(ctx)
	for range 4 {
		g.Go(func() error {
			for total.Add(1) <= n && !e.over(ctx) {
				c, err := e.rawClient()
				if err != nil {
					return err
				}
				c.close()
			}
			total.Add(-1)
			return nil
		})
	}
	err := g.Wait()
	return float64(total.Load()), err
}

// idleSessions opens many sessions that do nothing, and returns the memory
// that each costs the server.
func idleSessions(ctx context.Context, e *env) (float64, error) {
	before, err := e.in.memory()
	if err != nil {
		return 0, err
	}
	for range e.size.idle {
		c, err := e.rawClient()
		if err != nil {
			return 0, err
		}
		defer c.close()
	}
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := e.in.memory()
	return float64(after-before) / float64(e.size.idle), err
}

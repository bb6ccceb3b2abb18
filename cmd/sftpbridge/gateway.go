package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"sftpbridge/bridge"
	"sftpbridge/fusefs"
)

// A gateway is a plan that is being carried out: the trees that are open and
// the doors to them.
type gateway struct {
	log   *slog.Logger
	tell  *announcer
	trees []*bridge.Tree
	doors []door
	addrs []net.Addr    // where the SFTP doors listen, in the order of the plan
	ended chan error    // what a door says that has ended
	over  chan struct{} // closed when nobody listens to ended any more
	wg    sync.WaitGroup
}

// A door is open until close returns.
type door interface {
	// wait returns when the door has closed, with the reason if it was not
	// asked to.
	wait() error
	close() error
}

// runPlan opens all trees and doors of a plan, serves until it is told to stop
// by a signal or ctx, and closes them.
func runPlan(ctx context.Context, p *plan, logFile string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signalContext(ctx)
	defer stop()
	g := newGateway(p, stdout, stderr)
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.openAll(ctx, p); err != nil {
		return stopped(ctx, err)
	}
	if err := g.tell.ready(logFile); err != nil {
		return err
	}
	return g.run(ctx)
}

// openGateway opens all that a config asks for.
func openGateway(ctx context.Context, cfg *config, stdout, stderr io.Writer) (*gateway, error) {
	p, err := planOf(cfg)
	if err != nil {
		return nil, err
	}
	g := newGateway(p, stdout, stderr)
	if err := g.openAll(ctx, p); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func newGateway(p *plan, stdout, stderr io.Writer) *gateway {
	return &gateway{
		log:   newLogger(p.log, stderr),
		tell:  newAnnouncer(stdout),
		ended: make(chan error),
		over:  make(chan struct{}),
	}
}

func (g *gateway) openAll(ctx context.Context, p *plan) error {
	limitMemory(p.trees)
	mounts := 0
	for _, t := range p.trees {
		if err := g.open(ctx, t, p.users); err != nil {
			return err
		}
		mounts += len(t.mounts)
	}
	makeRoom(mounts)
	return nil
}

// run returns when ctx ends, and with the reason when a door fails. Doors that
// end without one, such as a mount that somebody has unmounted, end it when
// none is left.
func (g *gateway) run(ctx context.Context) error {
	for open := len(g.doors); open > 0; open-- {
		select {
		case <-ctx.Done():
			return nil
		case err := <-g.ended:
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// stopped returns nil for an error that came because ctx has ended.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// signalContext returns a context that ends at the first SIGINT or SIGTERM. A
// second one ends the process.
func signalContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-signals:
				if n > 0 {
					os.Exit(exitFailure)
				}
				cancel()
			case <-over:
				return
			}
		}
	})
	return ctx, func() {
		signal.Stop(signals)
		close(over)
		wg.Wait()
		cancel()
	}
}

// open opens a tree and its doors.
func (g *gateway) open(ctx context.Context, p treePlan, users *userList) error {
	log := g.log.With("tree", p.name)
	p.options.Logger = log
	tree, err := openTree(ctx, p, log)
	if err != nil {
		return err
	}
	g.trees = append(g.trees, tree)
	for _, m := range p.mounts {
		if err := g.mount(ctx, p, m, tree, users, log); err != nil {
			return err
		}
	}
	for _, s := range p.servers {
		if err := g.serve(ctx, p, s, tree, log); err != nil {
			return err
		}
	}
	return nil
}

// watch takes a door in: it will be closed with the others.
func (g *gateway) watch(d door) {
	g.doors = append(g.doors, d)
	g.wg.Go(func() {
		err := d.wait()
		select {
		case g.ended <- err:
		case <-g.over:
		}
	})
}

func (g *gateway) mount(ctx context.Context, p treePlan, mp mountPlan, tree *bridge.Tree, users *userList, log *slog.Logger) error {
	opt := fusefs.Options{
		Avatar:     mp.avatar,
		AllowOther: mp.AllowOther,
		FSName:     p.backend.Text,
		ReadOnly:   p.options.ReadOnly,
		Mount:      mp.Options,
		Logger:     log,
	}
	if mp.AllowOther {
		opt.Realm = users
		opt.Rules = users.anyRules()
	}
	m, err := fusefs.Mount(ctx, mp.Dir, tree, opt)
	if err != nil {
		return err
	}
	g.watch(mountDoor{m})
	g.tell.opened("mounted %s on %s", p.backend, mp.Dir)
	return nil
}

type mountDoor struct{ m *fusefs.MountPoint }

func (d mountDoor) wait() error {
	d.m.Wait()
	return nil
}

func (d mountDoor) close() error { return d.m.Unmount() }

// close closes the doors, all at once, and then the trees, which waits for
// what was written to reach the backends.
func (g *gateway) close() error {
	g.tell.stopping()
	close(g.over)
	errs := make([]error, len(g.doors))
	var wg sync.WaitGroup
	for i, d := range g.doors {
		wg.Go(func() { errs[i] = d.close() })
	}
	wg.Wait()
	g.wg.Wait()
	err := errors.Join(errs...)
	for _, t := range g.trees {
		if e := t.Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("closing the tree: %w", e))
		}
	}
	return err
}

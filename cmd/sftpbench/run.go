package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// grace is how much longer than its limit a step may take before it has
// failed: what was begun has to end.
const grace = time.Minute

// A row is what the systems reached in a workload at a distance.
type row struct {
	workload
	rtt   time.Duration
	cells []cell
}

// A cell is what one of them reached.
type cell struct {
	system  system
	samples []sample
	failed  error // the last failure, if it failed
}

// benchmark measures what opt asks for and reports it, also when it is
// interrupted.
func benchmark(ctx context.Context, opt options) (err error) {
	l, err := newLab(opt.dir, opt.bridge, newScale(opt.quick))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	began := time.Now()
	var rows []row
	for _, r := range plan(opt) {
		if ctx.Err() != nil {
			break
		}
		if err := l.need(ctx, r.set, r.rtt); err != nil {
			return err
		}
		l.measureRow(ctx, opt, &r)
		rows = append(rows, r)
	}
	rep := report{rows: rows, opt: opt, took: time.Since(began)}
	err = rep.text(opt.table)
	if opt.markdown != "" {
		err = errors.Join(err, writeMarkdown(opt.markdown, rep.markdown()))
	}
	return errors.Join(err, ctx.Err())
}

// plan lists the rows that opt asks for. Workloads without an upstream have no
// distance.
func plan(opt options) []row {
	var rows []row
	for _, rtt := range opt.rtts {
		for _, w := range workloads() {
			if !opt.run.MatchString(w.name) || !w.remote && rtt != opt.rtts[0] {
				continue
			}
			r := row{workload: w, rtt: rtt}
			if !w.remote {
				r.rtt = 0
			}
			for _, s := range w.systems {
				if opt.systems.MatchString(s.name) {
					r.cells = append(r.cells, cell{system: s})
				}
			}
			if len(r.cells) > 0 {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// measureRow measures the systems of a row in turns. Another begins in each
// round.
func (l *lab) measureRow(ctx context.Context, opt options, r *row) {
	for round := range opt.rounds {
		for i := range r.cells {
			if ctx.Err() != nil {
				return
			}
			c := &r.cells[(i+round)%len(r.cells)]
			s, err := l.measure(ctx, opt, r, c.system)
			if err != nil {
				c.failed = err
				fmt.Fprintf(opt.progress, "%s @%d %s: %v\n", r.name, r.rtt.Milliseconds(), c.system.name, err)
				continue
			}
			c.samples = append(c.samples, s)
			fmt.Fprintf(opt.progress, "%s @%d %s: %s %s (%s in %.2f s)\n", r.name, r.rtt.Milliseconds(), c.system.name,
				number(r.value(s)), r.unit, number(s.amount), s.elapsed.Seconds())
		}
	}
}

// measure starts a system, measures a workload on it and ends it.
func (l *lab) measure(ctx context.Context, opt options, r *row, s system) (sample, error) {
	e := &env{lab: l, in: &instance{lab: l, rtt: r.rtt}, limit: opt.limit}
	defer e.in.stop()
	defer e.close()
	var err error
	real, err := os.MkdirTemp(l.out, "")
	if err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(real)
	e.out = filepath.Join("out", filepath.Base(real))
	if e.dst, err = os.MkdirTemp(l.local, ""); err != nil {
		return sample{}, err
	}
	defer os.RemoveAll(e.dst)
	if r.set == "git" {
		if err := l.freshIndex(r.rtt); err != nil {
			return sample{}, err
		}
	}
	if err := s.start(ctx, e.in); err != nil {
		return sample{}, err
	}
	if err := dropCaches(); err != nil {
		return sample{}, err
	}
	if r.prepare != nil {
		if err := e.step(ctx, func(ctx context.Context) error { return r.prepare(ctx, e) }); err != nil {
			return sample{}, fmt.Errorf("preparing: %w", err)
		}
	}
	return e.sample(ctx, r.workload)
}

// sample runs the workload once.
func (e *env) sample(ctx context.Context, w workload) (s sample, err error) {
	trips, down := e.in.wire()
	m := startMeter(e.in.procs)
	e.ended = time.Time{}
	began := time.Now()
	err = e.step(ctx, func(ctx context.Context) (err error) {
		s.amount, err = w.run(ctx, e)
		return err
	})
	s.elapsed = time.Since(began)
	if !e.ended.IsZero() {
		s.elapsed = e.ended.Sub(began)
	}
	cpu, peak := m.end()
	tripsNow, downNow := e.in.wire()
	s.cpu, s.peak = cpu, float64(peak)
	s.trips, s.down = float64(tripsNow-trips), float64(downNow-down)
	return s, err
}

// step runs a part of a measurement. When it takes too long, or ctx ends, the
// instance is killed: that is what ends an operation on a mount.
func (e *env) step(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 4*e.limit+grace)
	defer cancel()
	e.begin()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	e.in.kill()
	<-done
	return ctx.Err()
}

// wire is what the proxy has counted.
func (in *instance) wire() (trips, down int64) {
	if in.proxy == nil {
		return 0, 0
	}
	return in.proxy.clock.trips(), in.proxy.wire.down.Load()
}

// memory is what the processes have for themselves.
func (in *instance) memory() (int64, error) {
	var pids []int
	for _, p := range in.procs {
		pids = append(pids, p.cmd.Process.Pid)
	}
	return pss(newProcTable().tree(pids...))
}

package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"
)

// A workload is what is measured.
type workload struct {
	name    string // group/name
	unit    string
	set     string // the data set that it needs
	remote  bool   // it has an upstream, at several distances
	systems []system
	prepare func(ctx context.Context, e *env) error // before the clock starts; may be nil

	// run does the work and returns how much of it was done. What it does after
	// env.stop is not measured.
	run func(ctx context.Context, e *env) (float64, error)
}

// Units that say more than how many a second.
const (
	unitBytes  = "MiB/s"
	unitTime   = "µs"  // of one operation
	unitMemory = "KiB" // the amount itself
)

// lessIsBetter reports whether the smaller value wins.
func (w workload) lessIsBetter() bool { return w.unit == unitTime || w.unit == unitMemory }

// value is a sample in the unit of the workload.
func (w workload) value(s sample) float64 {
	switch w.unit {
	case unitBytes:
		return s.amount / (1 << 20) / s.elapsed.Seconds()
	case unitTime:
		return s.elapsed.Seconds() * 1e6 / s.amount
	case unitMemory:
		return s.amount / 1024
	}
	return s.amount / s.elapsed.Seconds()
}

// workloads are all that there are.
func workloads() []workload {
	return slices.Concat(
		mountWorkloads("mount", true, mountSystems()),
		mountWorkloads("local", false, localSystems()),
		serverWorkloads(),
		chainWorkloads(),
		doorsWorkloads(),
	)
}

// group fills in what the workloads of a group have in common.
func group(name string, remote bool, systems []system, list []workload) []workload {
	for i := range list {
		list[i].name = name + "/" + list[i].name
		list[i].remote = remote
		list[i].systems = systems
	}
	return list
}

// An env is what one measurement has.
type env struct {
	*lab
	in       *instance
	limit    time.Duration
	deadline time.Time
	ended    time.Time // when the work was done, if before the end of run
	out      string    // a new directory for what is written, relative to the data
	dst      string    // a new directory here

	done    int64       // what prepare has done, for run to do again
	raw     *rawClient  // that prepare has opened
	clients []*goClient // that prepare has opened
	undo    []func()
}

// begin starts the time that there is.
func (e *env) begin() { e.deadline = time.Now().Add(e.limit) }

// stop stops the clock.
func (e *env) stop() { e.ended = time.Now() }

// over reports whether the time is over.
func (e *env) over(ctx context.Context) bool {
	return ctx.Err() != nil || time.Now().After(e.deadline)
}

// mounted is the path of a file of the data in the mount.
func (e *env) mounted(name string) string { return filepath.Join(e.in.dir, name) }

// real is its path without anything between.
func (e *env) real(name string) string { return filepath.Join(e.data, name) }

// served is its path at the SFTP server.
func (e *env) served(name string) string { return filepath.Join("/", e.in.root, name) }

// close ends the connections.
func (e *env) close() {
	for _, undo := range e.undo {
		undo()
	}
}

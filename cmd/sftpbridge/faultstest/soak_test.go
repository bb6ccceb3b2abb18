package faultstest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

var soak = flag.Duration("soak", 0, "how long TestSoak runs")

// A meter collects how long calls take.
type meter struct {
	mu     sync.Mutex
	took   []time.Duration // guarded by mu; since the last report
	failed int             // guarded by mu; the same
	errs   map[string]int  // guarded by mu; since the start
}

// call makes a call and notes its time. The error of one that hangs is
// returned, others are counted.
func (m *meter) call(f func() error) error {
	began := time.Now()
	err := inTime(f)
	took := time.Since(began)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.took = append(m.took, took)
	if err != nil {
		m.failed++
		m.errs[errText(err)]++
	}
	return late(err)
}

// report tells of the calls since the last report.
func (m *meter) report(d time.Duration) string {
	m.mu.Lock()
	took, failed := m.took, m.failed
	m.took, m.failed = nil, 0
	m.mu.Unlock()
	if len(took) == 0 {
		return "no calls"
	}
	slices.Sort(took)
	at := func(part float64) time.Duration {
		return took[int(part*float64(len(took)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%4.0f calls/s, p50 %v, p99 %v, max %v, %d failed",
		float64(len(took))/d.Seconds(), at(0.5), at(0.99), at(1), failed)
}

const (
	soakTick  = 10 * time.Second
	soakBreak = 30 * time.Second // from one cut of the line to the next
	soakLarge = 8 << 20
)

// TestSoak has a mixed load at both doors for a long time, with a line that
// breaks now and then, and looks for growth.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("only for -soak DURATION")
	}
	r := newRig(t, 10*timeout, "--cache-size", "32M")
	r.start()
	up := upstreamOf(r)
	if err := put(up, "large", string(bytes.Repeat([]byte("large "), soakLarge/6))); err != nil {
		t.Fatal(err)
	}
	doors := make(map[string]door)
	var writers []*writer
	for i, kind := range doorKinds {
		doors[kind.name] = kind.enter(t, r)
		w := newWriter(r, "journal-"+kind.name, kind.enter(t, r), uint64(i))
		w.pause = 10 * time.Millisecond
		writers = append(writers, w)
	}
	before := usageOf(t, r.process.pid())
	t.Logf("at the start: %v", before)
	m := &meter{errs: make(map[string]int)}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for name, d := range doors {
		for what, work := range soakWorks(r, d) {
			wg.Go(func() { soakWork(t, m, stop, name+"-"+what, work) })
		}
	}
	for _, w := range writers {
		wg.Go(func() {
			for !closed(stop) {
				if err := w.step(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	samples := watchSoak(t, r, m)
	close(stop)
	wg.Wait()
	for _, w := range writers {
		if err := w.finish(); err != nil {
			t.Error(err)
		}
		w.f.Close()
		t.Logf("%s: %d calls, %d fsync, %d failed: %v", w.name, w.calls, w.syncs, w.failures, w.errs)
	}
	t.Logf("errors: %v", m.errs)
	wantNoGrowth(t, samples)
	noGrowth(t, r.process.pid(), before)
	noneStuck(t, r.process.pid())
	if n := r.process.goroutines(r); n > idleGoroutines {
		t.Errorf("%d goroutines are left, want at most %d", n, idleGoroutines)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// watchSoak reports while the load goes on, breaks the line now and then, and
// returns what the command had.
func watchSoak(t *testing.T, r *rig, m *meter) []usage {
	tick, cut := time.NewTicker(soakTick), time.NewTicker(soakBreak)
	defer tick.Stop()
	defer cut.Stop()
	began := time.Now()
	over := time.After(*soak)
	var samples []usage
	for n := 0; ; {
		select {
		case <-tick.C:
			u := usageOf(t, r.process.pid())
			samples = append(samples, u)
			t.Logf("%5.0f s: %v, %s", time.Since(began).Seconds(), u, m.report(soakTick))
		case <-cut.C:
			n++
			r.proxy.Cut(n%2 == 0)
		case <-over:
			return samples
		}
		if t.Failed() {
			return samples
		}
	}
}

// wantNoGrowth compares the last third of the time with the second.
func wantNoGrowth(t *testing.T, samples []usage) {
	t.Helper()
	third := len(samples) / 3
	if third == 0 {
		return
	}
	most := func(part []usage) (u usage) {
		for _, s := range part {
			u.descriptors = max(u.descriptors, s.descriptors)
			u.threads = max(u.threads, s.threads)
			u.memory = max(u.memory, s.memory)
		}
		return u
	}
	then, now := most(samples[third:2*third]), most(samples[2*third:])
	t.Logf("most in the second third: %v; in the last: %v", then, now)
	if now.memory > then.memory+then.memory/4+(16<<20) || now.descriptors > then.descriptors+16 || now.threads > then.threads+16 {
		t.Error("it grows")
	}
}

// soakWorks are what programs do at a door, over and over.
func soakWorks(r *rig, d door) map[string]func(dir string, n int) error {
	return map[string]func(string, int) error{
		"files": func(dir string, n int) error { return churn(d, dir, n) },
		"large": func(string, int) error {
			f, err := d.open("large", os.O_RDONLY)
			if err != nil {
				return err
			}
			buf := make([]byte, 1<<20)
			_, err = f.ReadAt(buf, int64(rand.IntN(soakLarge-len(buf))))
			time.Sleep(50 * time.Millisecond)
			return errors.Join(err, f.Close())
		},
		"names": func(string, int) error {
			_, err := d.list("")
			time.Sleep(20 * time.Millisecond)
			return errors.Join(err, d.free(""))
		},
		"logins": func(string, int) error {
			time.Sleep(200 * time.Millisecond)
			in, err := r.dial()
			if err != nil {
				return err
			}
			_, err = in.list("")
			return errors.Join(err, in.close())
		},
	}
}

// soakWork does one of them until it is stopped.
func soakWork(t *testing.T, m *meter, stop <-chan struct{}, name string, work func(dir string, n int) error) {
	for n := 0; !closed(stop); n++ {
		if err := m.call(func() error { return work(name, n) }); err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
	}
}

// churn makes, writes, renames, reads, lists and removes files. What is left
// over after an error is removed.
func churn(d door, dir string, n int) error {
	dir = fmt.Sprintf("%s%d", dir, n%50)
	d.mkdir(dir)
	name, final := dir+"/tmp", fmt.Sprintf("%s/file%d", dir, n)
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	text := bytes.Repeat([]byte(final), 200)
	_, err = f.WriteAt(text, 0)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := errors.Join(d.rename(name, final), d.chmod(final, 0o600)); err != nil {
		return err
	}
	names, err := d.list(dir)
	for _, fi := range names {
		err = errors.Join(err, d.remove(dir+"/"+fi.Name()))
	}
	return errors.Join(err, d.rmdir(dir))
}

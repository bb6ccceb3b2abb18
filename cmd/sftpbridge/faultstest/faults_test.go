package faultstest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge/sftpfs/faulty"
)

// timeout is that of the command in most tests.
const timeout = time.Second

// A fault is something that goes wrong for a while.
type fault struct {
	name string
	run  func(r *rig, rnd *rand.Rand)
}

// behave is a fault of the network.
func behave(b faulty.Behaviour, d time.Duration) func(*rig, *rand.Rand) {
	return func(r *rig, _ *rand.Rand) {
		r.proxy.Behave(b)
		time.Sleep(d)
		r.proxy.Behave(faulty.Behaviour{})
	}
}

var faults = []fault{
	{"a cut", func(r *rig, _ *rand.Rand) { r.proxy.Cut(false) }},
	{"a reset", func(r *rig, _ *rand.Rand) { r.proxy.Cut(true) }},
	{"a cut at a byte", func(r *rig, rnd *rand.Rand) {
		for range 3 {
			r.proxy.CutAfter(rnd.Int64N(100_000))
			time.Sleep(timeout / 4)
		}
	}},
	{"a short stall", behave(faulty.Behaviour{Stall: true}, timeout/3)},
	{"a long stall", behave(faulty.Behaviour{Stall: true}, 2*timeout)},
	{"half-open", behave(faulty.Behaviour{LoseUp: true, LoseDown: true}, 2*timeout)},
	{"lost requests", behave(faulty.Behaviour{LoseUp: true}, timeout/2)},
	{"lost answers", behave(faulty.Behaviour{LoseDown: true}, timeout/2)},
	{"a slow drip", behave(faulty.Behaviour{Drip: 900, Delay: 2 * time.Millisecond}, timeout)},
	{"delay", behave(faulty.Behaviour{Delay: 50 * time.Millisecond}, timeout)},
	{"refused", func(r *rig, _ *rand.Rand) {
		r.proxy.Behave(faulty.Behaviour{Refuse: true})
		r.proxy.Cut(true)
		time.Sleep(timeout / 2)
		r.proxy.Behave(faulty.Behaviour{})
	}},
	{"killed sessions", func(r *rig, _ *rand.Rand) { r.sshd.KillConnections() }},
	{"a restart", func(r *rig, _ *rand.Rand) {
		r.sshd.Stop()
		time.Sleep(timeout / 2)
		r.sshd.Run()
	}},
	{"a stopped server", func(r *rig, _ *rand.Rand) {
		r.sshd.Signal(syscall.SIGSTOP)
		time.Sleep(2 * timeout)
		r.sshd.Signal(syscall.SIGCONT)
	}},
}

// TestFaults has writers with checksums at both doors while one thing after
// another goes wrong.
func TestFaults(t *testing.T) {
	t.Parallel()
	r := newRig(t, timeout)
	r.start()
	var writers []*writer
	doors := make(map[string]door)
	for i, kind := range doorKinds {
		doors[kind.name] = kind.enter(t, r)
		for n := range 2 {
			name := fmt.Sprintf("%s%d", kind.name, n)
			writers = append(writers, newWriter(r, name, kind.enter(t, r), uint64(2*i+n)))
		}
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.step(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(timeout / 2)
	before := usageOf(t, r.process.pid())
	rnd := rand.New(rand.NewPCG(*seed, 99))
	for range *rounds {
		for _, i := range rnd.Perm(len(faults)) {
			t.Logf("%s", faults[i].name)
			faults[i].run(r, rnd)
			eventually(t, "after "+faults[i].name, func() error { return doors["mount"].free("") })
			time.Sleep(timeout / 2)
			if t.Failed() {
				break
			}
		}
	}
	close(stop)
	wg.Wait()
	for _, w := range writers {
		if err := w.finish(); err != nil {
			t.Error(err)
			continue
		}
		for name, d := range doors {
			if err := w.check(d, "through "+name); err != nil {
				t.Error(err)
			}
		}
		t.Logf("%s: %d calls, %d of them failed, %d fsync, the slowest took %v: %v", w.name, w.calls, w.failures, w.syncs, w.slowest.Round(time.Millisecond), w.errs)
		if w.f != nil {
			if err := w.f.Close(); err != nil {
				t.Errorf("closing %s: %v", w.name, err)
			}
		}
	}
	noGrowth(t, r.process.pid(), before)
	noneStuck(t, r.process.pid())
	if n := r.process.goroutines(r); n > idleGoroutines {
		t.Errorf("%d goroutines are left, want at most %d", n, idleGoroutines)
	}
}

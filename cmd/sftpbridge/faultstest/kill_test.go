package faultstest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestKill kills the command at random moments under load, and starts it again
// with the same arguments: the dead mount is replaced, what fsync has
// acknowledged is there, and the host key is the same.
func TestKill(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10*timeout)
	rnd := rand.New(rand.NewPCG(*seed, 5))
	var key []byte
	for round := range 3 * *rounds {
		r.start()
		got := wantWhole(t, r.hostKey)
		if key != nil && !bytes.Equal(got, key) {
			t.Error("the host key is another one after a restart")
		}
		key = got
		var writers []*writer
		for i, kind := range doorKinds {
			for n := range 2 {
				name := fmt.Sprintf("%s-%d-%d", kind.name, round, n)
				writers = append(writers, newWriter(r, name, kind.enter(t, r), uint64(round*10+2*i+n)))
			}
		}
		var wg sync.WaitGroup
		for _, w := range writers {
			wg.Go(func() { w.untilDead(t) })
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(timeout))))
		r.process.kill()
		wg.Wait()
		syncs := 0
		for _, w := range writers {
			if err := w.check(upstreamOf(r), "upstream"); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after SIGKILL: %v", err)
			}
			syncs += w.syncs
		}
		t.Logf("killed after %d calls of fsync", syncs)
		if t.Failed() {
			return
		}
	}
	r.start()
	if got := wantWhole(t, r.hostKey); !bytes.Equal(got, key) {
		t.Error("the host key is another one after a restart")
	}
	for i, kind := range doorKinds {
		w := newWriter(r, kind.name+"-last", kind.enter(t, r), uint64(1000+i))
		for range 20 {
			if err := w.step(); err != nil {
				t.Error(err)
			}
		}
		if err := w.finish(); err != nil {
			t.Error(err)
		}
		if w.failures > 0 {
			t.Errorf("%s after the restart: %v", kind.name, w.errs)
		}
		if w.f != nil {
			w.f.Close()
		}
	}
}

// untilDead writes until the command is gone. What a call is told in the
// moment of its death may be anything, but no success that is none.
func (w *writer) untilDead(t *testing.T) {
	for {
		if err := w.step(); err != nil {
			select {
			case <-w.r.process.killed: // it and its checks fail because it is dead, or about to be
				if errors.Is(err, errLate) {
					t.Error(err)
				}
			default:
				t.Error(err)
			}
			return
		}
		select {
		case <-w.r.process.ended:
			if w.f != nil {
				inTime(w.f.Close)
			}
			return
		default:
		}
	}
}

// wantWhole returns the content of a host key file, which is a key.
func wantWhole(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ssh.ParsePrivateKey(data); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return data
}

// TestKillAtStart kills the command while it starts for the first time: what
// it leaves is never half a file.
func TestKillAtStart(t *testing.T) {
	t.Parallel()
	r := newRig(t, 10*timeout, "--accept-new-host-keys")
	rnd := rand.New(rand.NewPCG(*seed, 6))
	known := filepath.Join(r.dir, "known_hosts")
	full, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for range 8 * *rounds {
		os.RemoveAll(filepath.Dir(r.hostKey))
		r.write(known, "")
		p := startProcess(t, r.mount, r.args)
		time.Sleep(time.Duration(rnd.Int64N(int64(1500 * time.Millisecond))))
		p.kill()
		takeAway(r.mount)
		if data, err := os.ReadFile(r.hostKey); err == nil {
			made++
			if _, err := ssh.ParsePrivateKey(data); err != nil {
				t.Errorf("half a host key: %v", err)
			}
		}
		got, err := os.ReadFile(known)
		if err != nil || len(got) > 0 && !bytes.Contains(got, bytes.Fields(full)[2]) || len(got) > 0 && got[len(got)-1] != '\n' {
			t.Errorf("known_hosts is %q, %v", got, err)
		}
	}
	t.Logf("%d host keys were made", made)
	r.start()
	wantWhole(t, r.hostKey)
}

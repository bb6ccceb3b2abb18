package faultstest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A usage is what a process has.
type usage struct {
	descriptors, threads int
	memory               int64 // resident, in bytes
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %d MiB", u.descriptors, u.threads, u.memory>>20)
}

func usageOf(t *testing.T, pid int) usage {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/", pid)
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		t.Fatal(err)
	}
	u := usage{descriptors: len(fds)}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.Fields(value + " 0")[0], 10, 64)
		switch key {
		case "Threads":
			u.threads = int(n)
		case "VmRSS":
			u.memory = n << 10
		}
	}
	return u
}

// noGrowth waits until the process has no more descriptors than before, but
// for those of a second connection and of the pipes through which the mount
// answers.
func noGrowth(t *testing.T, pid int, before usage) {
	t.Helper()
	const spare = 8
	eventually(t, "descriptors", func() error {
		if now := usageOf(t, pid); now.descriptors > before.descriptors+spare {
			return fmt.Errorf("%v, and before the faults %v: %v", now, before, targets(pid))
		}
		return nil
	})
	now := usageOf(t, pid)
	t.Logf("before: %v; after: %v: %v", before, now, targets(pid))
	if now.threads > before.threads+40 {
		t.Errorf("%d threads, and before the faults %d", now.threads, before.threads)
	}
}

// targets counts what the descriptors of a process are of.
func targets(pid int) map[string]int {
	kinds := make(map[string]int)
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil {
			kind, _, _ := strings.Cut(target, ":[")
			kinds[kind]++
		}
	}
	return kinds
}

// noneStuck waits until no thread of the process, nor of this one, is in
// uninterruptible sleep.
func noneStuck(t *testing.T, pid int) {
	t.Helper()
	eventually(t, "state D", func() error {
		for _, p := range []int{pid, os.Getpid()} {
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p))
			for _, task := range tasks {
				stat, _ := os.ReadFile(task)
				if _, after, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(after, "D") {
					return fmt.Errorf("%s: %s", task, stat)
				}
			}
		}
		return nil
	})
}

// idleGoroutines is more than the command has when it serves a mount, a few
// SFTP clients and an upstream, and nothing is going on.
const idleGoroutines = 150

var goroutineHead = regexp.MustCompile(`(?m)^goroutine \d+ .*:$`)

// goroutines ends the process by SIGQUIT and returns how many goroutines it
// had, once the number is as small as it gets.
func (p *process) goroutines(r *rig) int {
	p.condemn()
	p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(slack):
		p.t.Error("sftpbridge did not end on SIGQUIT")
		p.kill()
	}
	takeAway(r.mount)
	text := p.log.text()
	if at := strings.LastIndex(text, "SIGQUIT"); at >= 0 {
		text = text[at:]
	}
	n := len(goroutineHead.FindAllString(text, -1))
	p.t.Logf("%d goroutines at the end", n)
	return n
}

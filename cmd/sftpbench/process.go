package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is a program that runs until it is stopped.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string // file with what it said
	done chan struct{}
}

// startProcess starts a program whose output goes to a file in logs.
func startProcess(logs, name string, args ...string) (*process, error) {
	log, err := os.CreateTemp(logs, filepath.Base(name)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{name: name, cmd: exec.Command(name, args...), log: log.Name(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to handle
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// wait polls until ready succeeds, and fails when the process or ctx ends.
func (p *process) wait(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	for !ready() {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.said())
		case <-ctx.Done():
			return fmt.Errorf("%s does not start: %w: %s", p.name, context.Cause(ctx), p.said())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// said is the end of what the process has written.
func (p *process) said() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data[max(0, len(data)-1000):]))
}

// stop ends the process and what descends from it: first kindly.
func (p *process) stop() {
	if p.ended() {
		return
	}
	family := newProcTable().tree(p.cmd.Process.Pid)
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
	}
	family.kill()
	<-p.done
}

// kill ends the process and what descends from it at once. What it has
// mounted then answers with errors.
func (p *process) kill() {
	if p.ended() {
		return
	}
	newProcTable().tree(p.cmd.Process.Pid).kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// procStat is a line of /proc/PID/stat.
type procStat struct {
	parent int
	start  int64         // when it began, in clock ticks since the machine did
	cpu    time.Duration // its own, and of the children that it has waited for
	rss    int64
}

// A procTable is what runs on this machine at one moment.
type procTable map[int]procStat

func newProcTable() procTable {
	t := make(procTable)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if data, err := os.ReadFile("/proc/" + e.Name() + "/stat"); err == nil {
			if s, err := parseStat(string(data)); err == nil {
				t[pid] = s
			}
		}
	}
	return t
}

const clockTick = time.Second / 100 // USER_HZ is 100 on all Linux architectures we know

func parseStat(line string) (procStat, error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:]) // from the third on
	if len(fields) < 22 {
		return procStat{}, errors.New("short /proc/PID/stat")
	}
	var errs []error
	num := func(field int) int64 {
		n, err := strconv.ParseInt(fields[field-3], 10, 64)
		errs = append(errs, err)
		return n
	}
	s := procStat{
		parent: int(num(4)),
		start:  num(22),
		cpu:    time.Duration(num(14)+num(15)+num(16)+num(17)) * clockTick,
		rss:    num(24) * int64(os.Getpagesize()),
	}
	return s, errors.Join(errs...)
}

// tree returns the processes among roots and what descends from them.
func (t procTable) tree(roots ...int) procTable {
	children := make(map[int][]int)
	for pid, s := range t {
		children[s.parent] = append(children[s.parent], pid)
	}
	found := make(procTable)
	for todo := roots; len(todo) > 0; todo = todo[1:] {
		pid := todo[0]
		s, ok := t[pid]
		if _, again := found[pid]; ok && !again {
			found[pid] = s
			todo = append(todo, children[pid]...)
		}
	}
	return found
}

// kill ends those of the processes that still run.
func (t procTable) kill() {
	now := newProcTable()
	for pid, s := range t {
		if other, ok := now[pid]; ok && other.start == s.start {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// total sums up.
func (t procTable) total() (cpu time.Duration, rss int64) {
	for _, s := range t {
		cpu += s.cpu
		rss += s.rss
	}
	return cpu, rss
}

// pss is the memory of processes in which shared pages count by their share.
func pss(t procTable) (int64, error) {
	var sum int64
	for pid := range t {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := bytes.Cut(data, []byte("\nPss:"))
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			return 0, fmt.Errorf("no Pss of process %d", pid)
		}
		kib, err := strconv.ParseInt(string(fields[0]), 10, 64)
		if err != nil {
			return 0, err
		}
		sum += kib << 10
	}
	return sum, nil
}

// A meter watches the processor time and the memory of processes.
type meter struct {
	roots []int
	began time.Duration
	peak  int64
	stop  chan struct{}
	wg    sync.WaitGroup
}

// startMeter begins to watch.
func startMeter(procs []*process) *meter {
	m := &meter{stop: make(chan struct{})}
	for _, p := range procs {
		m.roots = append(m.roots, p.cmd.Process.Pid)
	}
	m.began, m.peak = newProcTable().tree(m.roots...).total()
	m.wg.Go(m.sample)
	return m
}

// sample looks at the memory now and then.
func (m *meter) sample() {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, rss := newProcTable().tree(m.roots...).total()
			m.peak = max(m.peak, rss)
		case <-m.stop:
			return
		}
	}
}

// end stops watching and returns the processor time that was used since the
// start and the most memory that was seen.
func (m *meter) end() (cpu time.Duration, peak int64) {
	close(m.stop)
	m.wg.Wait()
	cpu, rss := newProcTable().tree(m.roots...).total()
	return cpu - m.began, max(m.peak, rss)
}

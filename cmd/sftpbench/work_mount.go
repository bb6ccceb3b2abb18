package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// mountWorkloads are those of a mount, of the upstream or of a directory.
func mountWorkloads(name string, remote bool, systems []system) []workload {
	return group(name, remote, systems, []workload{
		{name: "seqread", unit: unitBytes, set: "big", run: seqRead},
		{name: "seqwrite", unit: unitBytes, run: seqWrite},
		{name: "reread", unit: unitBytes, set: "big", prepare: readOnce, run: reread},
		{name: "randread_q1", unit: "op/s", set: "big", run: randRead(1)},
		{name: "randread_q16", unit: "op/s", set: "big", run: randRead(16)},
		{name: "parread", unit: unitBytes, set: "part", run: parRead},
		{name: "ls_lR", unit: "file/s", set: "tree", run: listLong},
		{name: "stat_cold", unit: "op/s", set: "tree", run: statCold},
		{name: "stat_warm", unit: "op/s", set: "tree", prepare: statOnce, run: statWarm},
		{name: "create", unit: "file/s", run: create},
		{name: "untar", unit: "file/s", set: "small", run: untar},
		{name: "cp_r", unit: "file/s", set: "copy", run: copyOut},
		{name: "git_status_cold", unit: "file/s", set: "git", run: gitStatus},
		{name: "git_status_warm", unit: "file/s", set: "git", prepare: gitStatusOnce, run: gitStatus},
	})
}

// command runs a program until it ends or the time is over, and returns what
// it has written to standard output.
func (e *env) command(ctx context.Context, stdin, name string, args ...string) ([]byte, error) {
	timed, cancel := context.WithDeadline(ctx, e.deadline)
	defer cancel()
	cmd := exec.CommandContext(timed, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out, said bytes.Buffer
	cmd.Stdin = bytes.NewBufferString(stdin)
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case timed.Err() != nil:
		return out.Bytes(), nil
	case err != nil:
		return nil, &commandError{name, err, said.String()}
	}
	return out.Bytes(), nil
}

// A commandError is the failure of a program.
type commandError struct {
	name string
	err  error
	said string
}

func (e *commandError) Error() string { return e.name + ": " + e.err.Error() + ": " + e.said }
func (e *commandError) Unwrap() error { return e.err }

// listLong lists the tree as ls -lR does.
func listLong(ctx context.Context, e *env) (float64, error) {
	out, err := e.command(ctx, "", "ls", "-lR", e.mounted("tree"))
	return float64(bytes.Count(out, []byte("\n-"))), err
}

// statFiles asks for the attributes of the first n files of the tree.
func (e *env) statFiles(ctx context.Context, n int64) (int64, error) {
	for i := range n {
		if e.over(ctx) {
			return i, ctx.Err()
		}
		if _, err := os.Lstat(e.mounted("tree/" + fileName(int(i)))); err != nil {
			return i, err
		}
	}
	return n, nil
}

func statCold(ctx context.Context, e *env) (float64, error) {
	n, err := e.statFiles(ctx, int64(e.size.tree))
	return float64(n), err
}

func statOnce(ctx context.Context, e *env) (err error) {
	e.done, err = e.statFiles(ctx, int64(e.size.tree))
	return err
}

// statWarm asks again for the attributes that statOnce has asked for.
func statWarm(ctx context.Context, e *env) (float64, error) {
	var total int64
	for total < int64(4*e.size.tree) && !e.over(ctx) {
		n, err := e.statFiles(ctx, e.done)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return float64(total), nil
}

// create makes files of 4 KiB in one directory.
func create(ctx context.Context, e *env) (float64, error) {
	data := make([]byte, smallLen)
	newRandom(5).Read(data)
	for i := 0; i < e.size.small && !e.over(ctx); i++ {
		f, err := os.OpenFile(e.mounted(e.out+"/"+flatName(i)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return 0, err
		}
		if _, err := f.Write(data); err != nil {
			f.Close()
			return 0, err
		}
		if err := f.Close(); err != nil {
			return 0, err
		}
	}
	e.stop()
	n, err := countFiles(e.real(e.out), smallLen)
	return float64(n), err
}

// untar unpacks an archive. What is there is counted, not what tar says.
func untar(ctx context.Context, e *env) (float64, error) {
	if _, err := e.command(ctx, "", "tar", "-C", e.mounted(e.out), "-xf", e.local+"/small.tar"); err != nil {
		return 0, err
	}
	e.stop()
	n, err := countFiles(e.real(e.out), smallLen)
	return float64(n), err
}

// copyOut copies files out of the mount.
func copyOut(ctx context.Context, e *env) (float64, error) {
	if _, err := e.command(ctx, "", "cp", "-r", e.mounted("copy"), e.dst); err != nil {
		return 0, err
	}
	e.stop()
	n, err := countFiles(e.dst, copyLen)
	return float64(n), err
}

// gitStatus is git status. It cannot be ended half way: it has four times as
// long as others.
func gitStatus(ctx context.Context, e *env) (float64, error) {
	e.deadline = e.deadline.Add(3 * e.limit)
	n := e.size.gitFiles(e.in.rtt)
	_, err := e.command(ctx, "", "git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-C", e.mounted(gitName(n)), "status", "--porcelain")
	if err == nil && e.over(ctx) {
		err = context.DeadlineExceeded
	}
	return float64(n), err
}

func gitStatusOnce(ctx context.Context, e *env) error {
	_, err := gitStatus(ctx, e)
	return err
}

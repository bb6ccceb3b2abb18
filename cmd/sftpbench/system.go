package main

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// A system is something that can be measured.
type system struct {
	name  string
	start func(ctx context.Context, in *instance) error
	limit bool // not a peer: what the machine itself allows
}

const ours = "sftpbridge" // the system that the others are peers of

const defaultSystems = "sftpbridge|sshfs|rclone|openssh|stock|sshfs\\+openssh|loopback|directory|without-mount"

// An instance is a system that runs.
type instance struct {
	lab   *lab
	rtt   time.Duration
	dir   string     // where its mount is, if it has one
	addr  string     // where it serves SFTP, if it does
	root  string     // the path of the data there
	proxy *proxy     // to the upstream, if it has one
	procs []*process // what it consists of
	undo  []func()
}

// stop ends the instance, in the reverse order of its start.
func (in *instance) stop() {
	for i := len(in.undo) - 1; i >= 0; i-- {
		in.undo[i]()
	}
	in.undo = nil
}

// kill ends its processes at once, so that nobody waits for them for ever.
func (in *instance) kill() {
	for _, p := range in.procs {
		p.kill()
	}
}

// needUpstream puts a proxy before the upstream and returns its port.
func (in *instance) needUpstream(ctx context.Context) (port string, err error) {
	if err := in.lab.needUpstream(ctx); err != nil {
		return "", err
	}
	if in.proxy, err = startProxy(in.lab.addr, in.rtt); err != nil {
		return "", err
	}
	in.undo = append(in.undo, in.proxy.close)
	if err := in.lab.trust(in.proxy.addr); err != nil {
		return "", err
	}
	_, port, err = net.SplitHostPort(in.proxy.addr)
	return port, err
}

// run starts a program and waits until it is ready.
func (in *instance) run(ctx context.Context, ready func() bool, name string, args ...string) error {
	p, err := startProcess(in.lab.logs(), name, args...)
	if err != nil {
		return err
	}
	in.add(p)
	return p.wait(ctx, ready)
}

func (in *instance) add(p *process) {
	in.procs = append(in.procs, p)
	in.undo = append(in.undo, p.stop)
}

// mount starts a program that mounts on the directory in.dir, which is made.
func (in *instance) mount(ctx context.Context, command func(dir string) []string) error {
	dir, err := in.lab.mountPoint()
	if err != nil {
		return err
	}
	in.dir = dir
	args := command(dir)
	err = in.run(ctx, func() bool { return mounted(dir) }, args[0], args[1:]...)
	in.undo = append(in.undo, func() { unmount(dir) })
	return err
}

// serve starts a program that serves SFTP at in.addr, which is chosen.
func (in *instance) serve(ctx context.Context, command func(addr string) []string) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	in.addr = addr
	args := command(addr)
	return in.run(ctx, func() bool { return answers(addr) }, args[0], args[1:]...)
}

// unmount unmounts dir: at once if it can be, and lazily if not. As in a
// user's life, the helper does it where we may not.
func unmount(dir string) error {
	if !mounted(dir) {
		return nil
	}
	err := unix.Unmount(dir, 0)
	if err == unix.EBUSY {
		err = unix.Unmount(dir, unix.MNT_DETACH)
	}
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, exec.CommandContext(ctx, "fusermount3", "-u", "-z", dir).Run())
}

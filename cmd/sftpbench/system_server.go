package main

import (
	"context"
	"path/filepath"
)

// serverSystems serve the data of this machine over SFTP.
func serverSystems() []system {
	return []system{
		{name: ours, start: serveBridge},
		{name: "openssh", start: serveOpenSSH},
		{name: "stock", start: func(ctx context.Context, in *instance) error {
			in.root = in.lab.data
			return in.serve(ctx, func(addr string) []string {
				return []string{in.lab.self, "stock", "--listen", addr, "--host-key", in.lab.hostKey(), "--authorized-key", in.lab.key + ".pub"}
			})
		}},
	}
}

// notifySystems serve the data of this machine with a mount of it, and
// without.
func notifySystems() []system {
	return []system{
		{name: ours, start: func(ctx context.Context, in *instance) error { return serveBridgeMounted(ctx, in, in.lab.data) }},
		{name: "without-mount", start: serveBridge},
	}
}

// chainSystems serve the upstream over SFTP.
func chainSystems() []system {
	return []system{
		{name: ours, start: func(ctx context.Context, in *instance) error {
			args, err := chainBridge(ctx, in)
			if err != nil {
				return err
			}
			return serveTree(ctx, in, args...)
		}},
		{name: "sshfs+openssh", start: chainSSHFS},
		{name: "rclone", start: chainRclone},
	}
}

// doorsSystems serve the upstream over SFTP and have it mounted.
func doorsSystems() []system {
	return []system{
		{name: ours, start: func(ctx context.Context, in *instance) error {
			args, err := chainBridge(ctx, in)
			if err != nil {
				return err
			}
			return serveBridgeMounted(ctx, in, args...)
		}},
		{name: "sshfs+openssh", start: chainSSHFS},
	}
}

func serveBridge(ctx context.Context, in *instance) error {
	return serveTree(ctx, in, in.lab.data)
}

// serveTree starts sftpbridge serve with what follows the doors in its
// command line.
func serveTree(ctx context.Context, in *instance, args ...string) error {
	return in.serve(ctx, func(addr string) []string {
		return append([]string{in.lab.bridge, "serve", "--listen", addr,
			"--host-key", in.lab.hostKey(), "--authorized-keys", in.lab.key + ".pub"}, args...)
	})
}

// chainBridge is the command line of sftpbridge that names the upstream.
func chainBridge(ctx context.Context, in *instance) ([]string, error) {
	port, err := in.needUpstream(ctx)
	if err != nil {
		return nil, err
	}
	args := append(bridgeUpstream(in, port), "--attr-timeout", "1h")
	return append(args, backend(in.lab)), nil
}

func serveBridgeMounted(ctx context.Context, in *instance, args ...string) error {
	dir, err := in.lab.mountPoint()
	if err != nil {
		return err
	}
	in.dir = dir
	in.undo = append(in.undo, func() { unmount(dir) })
	return serveTree(ctx, in, append([]string{"--mount", dir}, args...)...)
}

func serveOpenSSH(ctx context.Context, in *instance) error {
	in.root = in.lab.data
	p, addr, err := in.lab.startSSHD(ctx)
	if p != nil {
		in.add(p)
	}
	in.addr = addr
	return err
}

func chainSSHFS(ctx context.Context, in *instance) error {
	if err := mountSSHFS(ctx, in); err != nil {
		return err
	}
	if err := serveOpenSSH(ctx, in); err != nil {
		return err
	}
	in.root = in.dir
	return nil
}

func chainRclone(ctx context.Context, in *instance) error {
	port, err := in.needUpstream(ctx)
	if err != nil {
		return err
	}
	return in.serve(ctx, func(addr string) []string {
		command := append([]string{"rclone", "serve", "sftp"}, rcloneUpstream(in, port)...)
		return append(command, "--addr", addr, "--authorized-keys", in.lab.key+".pub", "--key", in.lab.hostKey(),
			"--vfs-cache-mode", "off", ":sftp:"+filepath.Clean(in.lab.data))
	})
}

package main

import (
	"context"
	"path/filepath"
)

// mountSystems are mounts of the upstream. All believe names and attributes
// for an hour, so that none pays for being careful.
func mountSystems() []system {
	return []system{
		{name: ours, start: func(ctx context.Context, in *instance) error { return mountBridge(ctx, in, "--attr-timeout", "1h") }},
		{name: ours + "-1s", start: func(ctx context.Context, in *instance) error { return mountBridge(ctx, in) }},
		{name: "sshfs", start: mountSSHFS},
		{name: "rclone", start: mountRclone},
	}
}

// localSystems are mounts of a directory.
func localSystems() []system {
	return []system{
		{name: ours, start: func(ctx context.Context, in *instance) error {
			return in.mount(ctx, func(dir string) []string {
				return []string{in.lab.bridge, "mount", in.lab.data, dir}
			})
		}},
		{name: "loopback", start: func(ctx context.Context, in *instance) error {
			return in.mount(ctx, func(dir string) []string {
				return []string{in.lab.self, "loopback", in.lab.data, dir}
			})
		}},
		{name: "directory", limit: true, start: func(ctx context.Context, in *instance) error {
			in.dir = in.lab.data
			return nil
		}},
	}
}

// bridgeUpstream are the arguments with which sftpbridge reaches the upstream.
func bridgeUpstream(in *instance, port string) []string {
	return []string{"--ssh-config", "none", "--identity", in.lab.key, "--known-hosts", in.lab.known, "--port", port}
}

// backend is how sftpbridge and sshfs name the data on the upstream.
func backend(l *lab) string { return l.user + "@127.0.0.1:" + l.data }

func mountBridge(ctx context.Context, in *instance, args ...string) error {
	port, err := in.needUpstream(ctx)
	if err != nil {
		return err
	}
	return in.mount(ctx, func(dir string) []string {
		command := append([]string{in.lab.bridge, "mount"}, bridgeUpstream(in, port)...)
		return append(append(command, args...), backend(in.lab), dir)
	})
}

// mountSSHFS mounts with the caches of sshfs as long as they can be. More
// connections (max_conns) make it slower in most workloads.
func mountSSHFS(ctx context.Context, in *instance) error {
	port, err := in.needUpstream(ctx)
	if err != nil {
		return err
	}
	return in.mount(ctx, func(dir string) []string {
		return []string{"sshfs", "-f", "-F", "/dev/null", "-p", port,
			"-o", "IdentityFile=" + in.lab.key,
			"-o", "UserKnownHostsFile=" + in.lab.known,
			"-o", "Ciphers=" + cipher,
			"-o", "Compression=no",
			"-o", "kernel_cache,entry_timeout=3600,negative_timeout=3600,attr_timeout=3600",
			"-o", "dcache_timeout=3600,dcache_max_size=200000,dcache_clean_interval=3600,dcache_min_clean_interval=3600",
			backend(in.lab), dir}
	})
}

// rcloneUpstream are the arguments with which rclone reaches the upstream: no
// hashes, which it would have computed by commands there, and large requests.
func rcloneUpstream(in *instance, port string) []string {
	return []string{
		"--config", "/dev/null",
		"--cache-dir", filepath.Join(in.lab.dir, "cache"),
		"--sftp-host", "127.0.0.1", "--sftp-port", port, "--sftp-user", in.lab.user,
		"--sftp-key-file", in.lab.key,
		"--sftp-disable-hashcheck",
		"--sftp-chunk-size", "255k", "--sftp-concurrency", "64",
		"--dir-cache-time", "1h",
	}
}

// mountRclone mounts without a cache on disk: with one, close returns before
// the data is on the upstream, and a file is fetched before it is read.
func mountRclone(ctx context.Context, in *instance) error {
	port, err := in.needUpstream(ctx)
	if err != nil {
		return err
	}
	return in.mount(ctx, func(dir string) []string {
		command := append([]string{"rclone", "mount"}, rcloneUpstream(in, port)...)
		return append(command, "--attr-timeout", "1h", "--vfs-cache-mode", "off", ":sftp:"+in.lab.data, dir)
	})
}

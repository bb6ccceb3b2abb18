package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"sftpbridge/bridge"
)

// demoAddr is where the demo serves SFTP, if nobody else does.
const demoAddr = "127.0.0.1:2022"

func newDemo() *cobra.Command {
	f := treeFlags{}
	cmd := &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Show what it is: a sample server, mounted and served again",
		Long: `demo starts an SFTP server with sample files in memory on a port of 127.0.0.1,
connects to it over SSH, mounts it at DIR (default a new directory) and serves it
again, until Ctrl-C. Nothing of it stays.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("demo: unexpected argument %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := ""
			if len(args) > 0 {
				dir = args[0]
			}
			return runDemo(cmd.Context(), f.log, dir, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&f.log.Level, "log-level", "warn", "log `LEVEL`: debug, info, warn or error")
	cmd.Flags().StringVar(&f.log.Format, "log-format", "text", "log `FORMAT`: text or json")
	return cmd
}

// A demo is where the demo keeps its files, and who may log in.
type demo struct {
	log  logConfig
	dir  string // its own
	user userConfig
}

func (d *demo) file(name string) string { return filepath.Join(d.dir, name) }

// runDemo runs the demo until a signal comes.
func runDemo(ctx context.Context, log logConfig, mountDir string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signalContext(ctx)
	defer stop()
	d, err := newDemoFiles(log)
	if err != nil {
		return err
	}
	defer d.remove()
	if mountDir == "" {
		mountDir = d.file("mnt")
	}
	if err := os.Mkdir(mountDir, 0o755); err == nil {
		defer os.Remove(mountDir)
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	upstream, port, err := d.upstream(ctx, stderr)
	if err != nil {
		return stopped(ctx, err)
	}
	defer func() { err = errors.Join(err, upstream.close()) }()
	gate, err := d.bridge(ctx, port, mountDir, stdout, stderr)
	if err != nil {
		return stopped(ctx, err)
	}
	defer func() { err = errors.Join(err, gate.close()) }()
	d.explain(stdout, mountDir, gate.addrs[0].(*net.TCPAddr).Port)
	if err := gate.tell.ready(""); err != nil {
		return err
	}
	return gate.run(ctx)
}

// newDemoFiles makes the demo's directory and keys.
func newDemoFiles(log logConfig) (*demo, error) {
	dir, err := os.MkdirTemp("", "sftpbridge-demo-")
	if err != nil {
		return nil, err
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	d := &demo{log: log, dir: dir}
	d.user = userConfig{Name: "demo", UID: &uid, GID: &gid, AuthorizedKeys: []string{d.file("key.pub")}}
	for _, key := range []string{"key", "host_key"} {
		if err = makeKey(d.file(key), false); err == nil {
			err = writePublic(d.file(key))
		}
		if err != nil {
			d.remove()
			return nil, err
		}
	}
	return d, nil
}

// remove takes the demo's files away, but goes into nothing that is mounted.
func (d *demo) remove() {
	entries, _ := os.ReadDir(d.dir)
	for _, e := range entries {
		os.Remove(d.file(e.Name()))
	}
	os.Remove(d.dir)
}

// writePublic writes the public key of a private one beside it.
func writePublic(file string) error {
	key, err := loadKey(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(key.PublicKey()), 0o644)
}

// upstream starts the server with the sample files, and returns its port.
func (d *demo) upstream(ctx context.Context, stderr io.Writer) (*gateway, int, error) {
	cfg := &config{Log: d.log, Users: []userConfig{d.user}, Trees: []treeConfig{{
		Name:    "sample",
		Backend: "mem:",
		SFTP:    []sftpConfig{{Listen: "127.0.0.1:0", HostKeys: []string{d.file("host_key")}}},
	}}}
	g, err := openGateway(ctx, cfg, io.Discard, stderr)
	if err != nil {
		return nil, 0, err
	}
	port := g.addrs[0].(*net.TCPAddr).Port
	err = errors.Join(d.writeSamples(ctx, g.trees[0]), d.trust(port))
	if err != nil {
		return nil, 0, errors.Join(err, g.close())
	}
	return g, port, nil
}

// trust adds the demo's host key at a port to its known_hosts.
func (d *demo) trust(port int) error {
	key, err := loadKey(d.file("host_key"))
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.file("known_hosts"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("[127.0.0.1]:%d", port)
	_, err = fmt.Fprintln(f, knownhosts.Line([]string{addr}, key.PublicKey()))
	return errors.Join(err, f.Close())
}

// bridge mounts the server at port and serves it again.
func (d *demo) bridge(ctx context.Context, port int, dir string, stdout, stderr io.Writer) (*gateway, error) {
	t := treeConfig{
		Name:    "demo",
		Backend: fmt.Sprintf("sftp://demo@127.0.0.1:%d/", port),
		Upstream: upstreamConfig{
			Identity:   []string{d.file("key")},
			KnownHosts: d.file("known_hosts"),
			SSHConfig:  "none",
		},
		Mount: []mountConfig{{Dir: dir}},
		SFTP:  []sftpConfig{{Listen: demoListen(), HostKeys: []string{d.file("host_key")}}},
	}
	g, err := openGateway(ctx, &config{Log: d.log, Users: []userConfig{d.user}, Trees: []treeConfig{t}}, stdout, stderr)
	if err != nil {
		return nil, err
	}
	if err := d.trust(g.addrs[0].(*net.TCPAddr).Port); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// demoListen returns demoAddr, or an address with any port if that is taken.
func demoListen() string {
	ln, err := net.Listen("tcp", demoAddr)
	if err != nil {
		return "127.0.0.1:0"
	}
	ln.Close()
	return demoAddr
}

// demoFiles are the sample files.
var demoFiles = []struct{ name, content string }{
	{"README.txt", "These files are in the memory of an SFTP server. sftpbridge is its client, and\nshows them at two doors: the mount and an SFTP server of its own.\n"},
	{"docs/doors.txt", "Write a file at one door, and look at the other.\n"},
	{"docs/users.txt", "Each operation is checked against the user who asks for it.\n"},
	{"music/scale.txt", "do re mi fa so la ti do\n"},
}

func (d *demo) writeSamples(ctx context.Context, tree *bridge.Tree) error {
	root := &bridge.Avatar{Name: "root"}
	owner := bridge.SetAttr{Valid: bridge.SetMode | bridge.SetUID | bridge.SetGID, UID: *d.user.UID, GID: *d.user.GID, Mode: 0o755}
	view, err := tree.View(ctx, root, tree.NewDoor())
	if err != nil {
		return err
	}
	defer view.Close()
	if err := view.SetAttrs(ctx, "/", owner); err != nil {
		return err
	}
	for _, sample := range demoFiles {
		if dir, _ := filepath.Split("/" + sample.name); dir != "/" {
			err := view.MakeDirectory(ctx, strings.TrimSuffix(dir, "/"), owner)
			if err != nil && !errors.Is(err, syscall.EEXIST) {
				return err
			}
		}
		attr := owner
		attr.Mode = 0o644
		f, err := view.OpenFile(ctx, "/"+sample.name, syscall.O_WRONLY|syscall.O_CREAT, attr)
		if err != nil {
			return err
		}
		err = f.WriteChunk(ctx, []byte(sample.content), 0)
		if err := errors.Join(err, f.Close(ctx)); err != nil {
			return err
		}
	}
	return view.MakeLink(ctx, "/latest", "music/scale.txt")
}

// explain prints what to try.
func (d *demo) explain(w io.Writer, dir string, port int) {
	fmt.Fprintf(w, `
Both doors show the same tree. In another terminal, try

  ls -l %s
  sftp -P %d -i %s -o UserKnownHostsFile=%s -o IdentitiesOnly=yes demo@127.0.0.1

What you change at one door is at once at the other. Ctrl-C ends the demo.
`, dir, port, d.file("key"), d.file("known_hosts"))
}

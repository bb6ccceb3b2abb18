package fusefs_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
	"sftpbridge/bridge/memfs"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/fusefs"
)

// A process must not use a mount that it serves itself: its threads may wait
// for one another. The tests therefore serve from a child, which is the test
// binary again, and use the mount from the parent. Over its standard input the
// child takes commands that change the tree through another door.

// A config says what a child serves.
type config struct {
	Dir    string
	Local  string // a local directory to serve in place of memory
	Remote string // a directory to serve through an SFTP server
	Root   string
	Avatar bridge.Cred
	Rules  bridge.Rules
	Users  []bridge.Cred // a realm of these, for all users
	Mount  []string
	RO     bool
	Second string // a directory to mount on too
	UID    uint32 // who the server runs as
	Long   bool   // for the kernel to believe what it was told until it is told otherwise
}

const (
	serveEnv = "FUSEFS_TEST_SERVE"
	childEnv = "FUSEFS_TEST_CHILD"
	deadline = 30 * time.Second
)

func TestMain(m *testing.M) {
	if conf := os.Getenv(serveEnv); conf != "" {
		if err := serve(conf); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(childEnv) != "" {
		os.Exit(child(os.Args[1:]))
	}
	code := m.Run()
	if bin, err := readableSelf(); err == nil {
		os.Remove(bin)
	}
	os.Exit(code)
}

// ownGroups is the first user whose processes have their own groups.
const ownGroups = 2000

// realm is a bridge.Realm of users by number.
type realm []bridge.Cred

func (r realm) AvatarByName(string) (*bridge.Avatar, error) { return nil, syscall.ENOENT }

func (r realm) AvatarByUID(uid, gid uint32) (*bridge.Avatar, error) {
	for _, c := range r {
		if c.UID == uid {
			c.GID = gid
			return &bridge.Avatar{Name: "user" + strconv.Itoa(int(uid)), Cred: c, ProcessGroups: uid >= ownGroups}, nil
		}
	}
	return nil, syscall.EACCES
}

// serve is the child: it mounts, says "ready", carries out commands, and
// unmounts at the end of its input.
func serve(conf string) error {
	syscall.Umask(0o077) // which must not matter
	var c config
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var backend bridge.Backend = memfs.New()
	if c.Local != "" {
		local, err := localfs.New(c.Local)
		if err != nil {
			return err
		}
		backend = local
	}
	if c.Remote != "" {
		remote, err := sftpfs.New(ctx, dialUpstream, sftpfs.Options{Root: c.Remote, Logger: log})
		if err != nil {
			return err
		}
		backend = remote
	}
	tree, err := bridge.New(ctx, backend, bridge.Options{Logger: log})
	if err != nil {
		return err
	}
	root := &bridge.Avatar{Name: "root"}
	view, err := tree.View(ctx, root, tree.NewDoor())
	if err != nil {
		return err
	}
	if c.Root != "" {
		if err := view.MakeDirectory(ctx, c.Root, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755}); err != nil {
			return err
		}
	}
	opt := fusefs.Options{Root: c.Root, Mount: c.Mount, ReadOnly: c.RO, Logger: log}
	if c.Long {
		opt.AttrTimeout = time.Hour
	}
	if c.Users != nil {
		opt.Realm, opt.AllowOther = realm(c.Users), true
	} else {
		opt.Avatar = &bridge.Avatar{Name: "user", Cred: c.Avatar, Rules: c.Rules}
	}
	var mounts []*fusefs.MountPoint
	for _, dir := range []string{c.Dir, c.Second} {
		if dir == "" {
			continue
		}
		m, err := fusefs.Mount(ctx, dir, tree, opt)
		if err != nil {
			return err
		}
		mounts = append(mounts, m)
	}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var args []string
		if err := json.Unmarshal(lines.Bytes(), &args); err != nil {
			return err
		}
		out, err := command(ctx, mounts[0], view, args)
		tree.Settle(ctx, 0)
		if err != nil {
			out = "error: " + err.Error()
		}
		fmt.Println(strconv.Quote(out))
	}
	for _, m := range mounts {
		if err := m.Unmount(); err != nil {
			return err
		}
		m.Wait()
	}
	view.Close()
	if err := tree.Close(); err != nil {
		return err
	}
	return goleak.Find()
}

// command changes the tree through a door that is not the mount.
func command(ctx context.Context, m *fusefs.MountPoint, v *bridge.View, args []string) (string, error) {
	switch args[0] {
	case "unmount":
		return "", m.Unmount()
	case "write", "append":
		flags := bridge.OpenFlags(syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC)
		if args[0] == "append" {
			flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_APPEND
		}
		f, err := v.OpenFile(ctx, args[1], flags, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o644})
		if err != nil {
			return "", err
		}
		return "", errors.Join(f.WriteChunk(ctx, []byte(args[2]), 0), f.Close(ctx))
	case "read":
		f, err := v.OpenFile(ctx, args[1], syscall.O_RDONLY, bridge.SetAttr{})
		if err != nil {
			return "", err
		}
		buf := make([]byte, 1<<16)
		n, err := f.ReadChunk(ctx, buf, 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return string(buf[:n]), errors.Join(err, f.Close(ctx))
	case "fill": // a directory, with empty files
		n, err := strconv.Atoi(args[2])
		for i := range n {
			f, err := v.OpenFile(ctx, filepath.Join(args[1], fmt.Sprintf("%05d", i)), syscall.O_WRONLY|syscall.O_CREAT, bridge.SetAttr{})
			if err != nil {
				return "", err
			}
			f.Close(ctx)
		}
		return "", err
	case "rename":
		return "", v.PosixRename(ctx, args[1], args[2])
	case "remove":
		return "", v.RemoveFile(ctx, args[1])
	case "mkdir":
		return "", v.MakeDirectory(ctx, args[1], bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o755})
	case "truncate", "chmod", "chown":
		n, err := strconv.ParseUint(args[2], 0, 32)
		if err != nil {
			return "", err
		}
		set := bridge.SetAttr{Mode: uint32(n), Size: int64(n), UID: uint32(n)}
		set.Valid = map[string]bridge.SetFields{"truncate": bridge.SetSize, "chmod": bridge.SetMode, "chown": bridge.SetUID}[args[0]]
		return "", v.SetAttrs(ctx, args[1], set)
	}
	return "", fmt.Errorf("no command %q", args[0])
}

// childEnviron is the environment of a child. The race detector would have it
// wait a second before it exits.
func childEnviron() []string { return append(os.Environ(), "GORACE=atexit_sleep_ms=0") }

// A server is a child that serves a mount.
type server struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	err logBuffer

	expect string // what the server is to warn of
}

// A logBuffer is what a server says of itself.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start mounts on a new directory. The mount ends with the test.
func start(t *testing.T, c config) *server {
	t.Helper()
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	s := spawn(t, c)
	if line := s.line(); line != "ready" {
		t.Fatalf("server: %s\n%s", line, s.err.String())
	}
	return s
}

// spawn starts a child without waiting for it.
func spawn(t *testing.T, c config) *server {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	conf, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: c.Dir, cmd: exec.Command(os.Args[0])}
	if c.UID != 0 {
		bin, err := readableSelf()
		must(t, err)
		s.cmd = exec.Command(bin)
		s.cmd.Dir = "/"
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: c.UID, Gid: c.UID}}
	}
	s.cmd.Env = append(childEnviron(), serveEnv+"="+string(conf))
	s.cmd.Stderr = &s.err
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	s.out.Buffer(nil, 1<<20)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) line() string {
	if !s.out.Scan() {
		return "end of output"
	}
	return s.out.Text()
}

// do has the server carry out a command through its other door, and returns
// what that says.
func (s *server) do(args ...string) string {
	s.t.Helper()
	line, err := json.Marshal(args)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		s.t.Fatal(err)
	}
	out, err := strconv.Unquote(s.line())
	if err != nil {
		s.t.Fatalf("%q: server died\n%s", args, s.err.String())
	}
	if strings.HasPrefix(out, "error: ") {
		s.t.Fatalf("%q: %s", args, out)
	}
	return out
}

// path returns the path of a name in the mount.
func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

// stop ends the server, which unmounts, and sees that it ended well.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	cmd := s.cmd
	s.cmd = nil
	s.in.Close()
	timer := time.AfterFunc(deadline, func() { cmd.Process.Kill() })
	for s.out.Scan() {
		s.t.Log("server:", s.out.Text())
	}
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("server: %v", err)
	}
	timer.Stop()
	if log := s.err.String(); (log != "") != (s.expect != "") || !strings.Contains(log, s.expect) {
		s.t.Errorf("server says %q, want %q", log, s.expect)
	}
	syscall.Unmount(s.dir, syscall.MNT_DETACH) // if it is still there
}

// kill ends the server as a crash would.
func (s *server) kill() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
}

// as runs a helper (see child) as another user, and returns its answer.
func as(t *testing.T, uid uint32, args ...string) string {
	t.Helper()
	return asCred(t, bridge.Cred{UID: uid, GID: uid}, args...)
}

func asCred(t *testing.T, cred bridge.Cred, args ...string) string {
	t.Helper()
	bin, err := readableSelf()
	must(t, err)
	cmd := exec.Command(bin, args...)
	cmd.Env = append(childEnviron(), childEnv+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: cred.UID, Gid: cred.GID, Groups: cred.Groups}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helper %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// readableSelf returns a copy of the test binary that every user may run.
var readableSelf = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		return "", err
	}
	bin, err := os.CreateTemp("/tmp", "fusefs-test-")
	if err != nil {
		return "", err
	}
	_, err = bin.Write(data)
	return bin.Name(), errors.Join(err, bin.Chmod(0o755), bin.Close())
})

// child is a process of its own that makes one system call and prints the
// errno, or "OK".
func child(args []string) int {
	var err error
	switch args[0] {
	case "stat":
		_, err = os.Stat(args[1])
	case "read":
		_, err = os.ReadFile(args[1])
	case "write":
		err = os.WriteFile(args[1], []byte("written"), 0o644)
	case "mkdir":
		err = os.Mkdir(args[1], 0o755)
	case "remove":
		err = os.Remove(args[1])
	case "chmod":
		err = os.Chmod(args[1], 0o777)
	case "lock":
		err = tryLock(args[1])
	case "lockwait":
		fmt.Println("waiting")
		err = waitLock(args[1])
	case "append":
		err = appendLines(args[1], args[2])
	case "allocate":
		err = changeRange(args[1], func(fd int) error { return unix.Fallocate(fd, 0, 0, 4096) })
	case "copy":
		err = changeRange(args[1], func(fd int) error {
			from, to := int64(0), int64(4096)
			_, err := unix.CopyFileRange(fd, &from, fd, &to, 1, 0)
			return err
		})
	}
	fmt.Println(errname(err))
	return 0
}

// errname names the errno of err.
func errname(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "OK"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

package doorstest

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sftpbridge/bridge/sftpfs/sshdtest"
)

// users are who the tests act as. Some share groups.
var users = []user{
	{Name: "u0", UID: 0, GID: 0, Groups: []uint32{0}},
	{Name: "u1", UID: 4001, GID: 4001, Groups: []uint32{4001, 4100}},
	{Name: "u2", UID: 4002, GID: 4002, Groups: []uint32{4002, 4100, 4200}},
	{Name: "u3", UID: 4003, GID: 4003, Groups: []uint32{4003}},
}

// command is the file of the built command.
var command string

// runTests builds the command, with the race detector, and runs the tests.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "doorstest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "sftpbridge")
	build := exec.Command("go", "build", "-race", "-o", command, "sftpbridge/cmd/sftpbridge")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	return m.Run()
}

// A rig is the command, running with a mount and an SFTP door for all users.
type rig struct {
	dir   string // of the test
	mount string
	addr  string
	keys  map[string]ssh.Signer
}

// A backendKind is what the tree of a rig is on.
type backendKind struct {
	name   string
	start  func(t *testing.T, dir string) (backend, upstream string)
	inode  bool   // link counts are known
	direct string // the directory below that of the rig in which others can change things
}

var backendKinds = []backendKind{
	{"memfs", func(t *testing.T, dir string) (string, string) { return "mem:", "" }, true, ""},
	{"localfs", func(t *testing.T, dir string) (string, string) {
		local := filepath.Join(dir, "local")
		if err := os.Mkdir(local, 0o755); err != nil {
			t.Fatal(err)
		}
		return local, ""
	}, true, "local"},
	{"sftpfs", func(t *testing.T, dir string) (string, string) {
		remote := filepath.Join(dir, "remote")
		if err := os.Mkdir(remote, 0o755); err != nil {
			t.Fatal(err)
		}
		s := sshdtest.Start(t)
		return fmt.Sprintf("sftp://root@%s%s", s.Addr, remote),
			fmt.Sprintf("    upstream: {identity: [%s], known_hosts: %s}\n", s.KeyFile, s.KnownHosts)
	}, false, "remote"},
}

// onBackends runs a test over each kind of backend.
func onBackends(t *testing.T, test func(t *testing.T, r *rig, kind backendKind)) {
	for _, kind := range backendKinds {
		t.Run(kind.name, func(t *testing.T) { test(t, startRig(t, kind), kind) })
	}
}

// shmDir returns a directory in memory that everybody may search.
func shmDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "doorstest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startRig(t *testing.T, kind backendKind) *rig {
	t.Helper()
	r := &rig{dir: shmDir(t), keys: make(map[string]ssh.Signer)}
	r.mount = filepath.Join(r.dir, "mnt")
	if err := os.Mkdir(r.mount, 0o755); err != nil {
		t.Fatal(err)
	}
	backend, upstream := kind.start(t, r.dir)
	var cfg strings.Builder
	cfg.WriteString("users:\n")
	for _, u := range users {
		key := filepath.Join(r.dir, u.Name+".pub")
		r.keys[u.Name] = newKey(t, key)
		fmt.Fprintf(&cfg, "  - {name: %s, uid: %d, gid: %d, groups: %s, umask: \"000\", authorized_keys: [%s]}\n",
			u.Name, u.UID, u.GID, strings.ReplaceAll(fmt.Sprint(u.Groups), " ", ","), key)
	}
	fmt.Fprintf(&cfg, "trees:\n  - name: t\n    backend: %q\n%s", backend, upstream)
	fmt.Fprintf(&cfg, "    mount:\n      - {dir: %s, allow_other: true}\n", r.mount)
	fmt.Fprintf(&cfg, "    sftp:\n      - {listen: \"127.0.0.1:0\", host_keys: [%s]}\n", filepath.Join(r.dir, "hostkey"))
	file := filepath.Join(r.dir, "config.yaml")
	if err := os.WriteFile(file, []byte(cfg.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start(t, "run", "--config", file)
	return r
}

// newKey makes a key pair and writes the public one to a file.
func newKey(t *testing.T, file string) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644); err != nil {
		t.Fatal(err)
	}
	return signer
}

// start starts the command and waits until its doors are open. At the end of
// the test it is told to stop, and has to do so cleanly.
func (r *rig) start(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(command, args...)
	cmd.Stderr = newLogTail(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, addr, ok := strings.Cut(lines.Text(), "serving "); ok {
				r.addr = addr[strings.LastIndex(addr, " on ")+4:]
				close(ready)
				break
			}
		}
		io.Copy(io.Discard, out)
	}()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("sftpbridge: %v", err)
			}
		case <-time.After(60 * time.Second):
			t.Error("sftpbridge did not end within a minute of SIGTERM")
			cmd.Process.Kill()
			exec.Command("umount", "-l", r.mount).Run()
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("sftpbridge ended: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("sftpbridge was not ready within a minute")
	}
}

// A logTail shows what the command says if the test fails.
type logTail struct {
	mu  sync.Mutex
	buf []byte
}

func newLogTail(t *testing.T) *logTail {
	l := new(logTail)
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.Failed() || strings.Contains(string(l.buf), "DATA RACE") {
			t.Errorf("sftpbridge says:\n%s", l.buf)
		}
	})
	return l
}

func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if len(l.buf) > 1<<16 {
		l.buf = l.buf[len(l.buf)-1<<15:]
	}
	return len(p), nil
}

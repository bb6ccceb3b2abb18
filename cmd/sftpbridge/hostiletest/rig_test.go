package hostiletest

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// command is the file of the built command.
var command string

var raceless = flag.Bool("raceless", false, "build the command without the race detector, to measure its memory")

// TestMain builds the command, with the race detector, and runs the tests.
func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "hostiletest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "sftpbridge")
	args := []string{"build", "-o", command, "sftpbridge/cmd/sftpbridge"}
	if !*raceless {
		args = slices.Insert(args, 1, "-race")
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	return m.Run()
}

// A bridge is the command, running.
type bridge struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string     // of its SFTP door
	key  ssh.Signer // of the user "u"
	log  *logTail
}

// startBridge starts the command with a tree on a backend. extra goes into the
// tree's configuration, door into that of its SFTP door.
func startBridge(t *testing.T, backend, extra, door string) *bridge {
	t.Helper()
	dir := t.TempDir()
	b := &bridge{t: t, key: newKey(t), log: new(logTail)}
	keys := filepath.Join(dir, "authorized_keys")
	must(t, os.WriteFile(keys, ssh.MarshalAuthorizedKey(b.key.PublicKey()), 0o600))
	file := filepath.Join(dir, "config.yaml")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `
users:
  - {name: u, uid: %d, gid: %d, authorized_keys: [%s]}
trees:
  - name: t
    backend: %q
%s    sftp:
      - listen: 127.0.0.1:0
        host_keys: [%s]
%s`, os.Getuid(), os.Getgid(), keys, backend, extra, filepath.Join(dir, "hostkey"), door), 0o600))
	b.start("run", "--config", file)
	return b
}

// start starts the command and waits until its doors are open. At the end of
// the test it has to be alive, and to stop cleanly when it is told to.
func (b *bridge) start(args ...string) {
	t := b.t
	t.Helper()
	b.cmd = exec.Command(command, args...)
	b.cmd.Stderr = b.log
	out, err := b.cmd.StdoutPipe()
	must(t, err)
	must(t, b.cmd.Start())
	ready := make(chan struct{})
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, addr, ok := strings.Cut(lines.Text(), "serving "); ok {
				b.addr = addr[strings.LastIndex(addr, " on ")+4:]
				close(ready)
				break
			}
		}
		io.Copy(io.Discard, out)
	}()
	ended := make(chan error, 1)
	go func() {
		<-read
		ended <- b.cmd.Wait()
	}()
	t.Cleanup(func() {
		b.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("sftpbridge: %v", err)
			}
		case <-time.After(2 * patience):
			t.Error("sftpbridge did not end in time")
			b.cmd.Process.Signal(syscall.SIGQUIT)
			<-ended
		}
		if t.Failed() || strings.Contains(b.log.text(), "DATA RACE") {
			t.Errorf("sftpbridge says:\n%s", b.log.text())
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("sftpbridge ended: %v", err)
	case <-time.After(2 * patience):
		t.Fatal("sftpbridge was not ready in time")
	}
}

// dialFrom connects from an address of this machine, such as 127.0.0.2.
func (b *bridge) dialFrom(from string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	return d.Dial("tcp", b.addr)
}

// login logs in as the user "u".
func (b *bridge) login(key ssh.Signer, from string) (*ssh.Client, error) {
	nc, err := b.dialFrom(from)
	if err != nil {
		return nil, err
	}
	nc.SetDeadline(time.Now().Add(patience))
	conn, chans, reqs, err := ssh.NewClientConn(nc, b.addr, &ssh.ClientConfig{
		User:            "u",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		nc.Close()
		return nil, err
	}
	nc.SetDeadline(time.Time{})
	return ssh.NewClient(conn, chans, reqs), nil
}

// mustLogin is login with the right key, for a client that ends with the test.
func (b *bridge) mustLogin() *ssh.Client {
	b.t.Helper()
	c, err := b.login(b.key, "127.0.0.1")
	must(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

// serves checks that a good client is served.
func (b *bridge) serves(after string) {
	b.t.Helper()
	within(b.t, "a good client after "+after, func() error {
		c, err := b.login(b.key, "127.0.0.1")
		if err != nil {
			return err
		}
		defer c.Close()
		sc, err := sftp.NewClient(c)
		if err != nil {
			return err
		}
		defer sc.Close()
		f, err := sc.Create("/good")
		if err != nil {
			return err
		}
		_, err = f.Write([]byte("hello"))
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		if f, err = sc.Open("/good"); err != nil {
			return err
		}
		defer f.Close()
		data, err := io.ReadAll(f)
		if err == nil && string(data) != "hello" {
			err = fmt.Errorf("reads %q", data)
		}
		return errors.Join(err, sc.Remove("/good"))
	})
}

// within runs f, which must succeed in time.
func within(t *testing.T, what string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(patience):
		t.Errorf("%s: not within %v", what, patience)
	}
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// memory is the resident memory of the command in MiB.
func (b *bridge) memory() int { return b.status("VmRSS:") }

// peak is the most memory that the command has had resident, in MiB.
func (b *bridge) peak() int { return b.status("VmHWM:") }

// status is a line of proc_pid_status(5), in MiB.
func (b *bridge) status(line string) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	must(b.t, err)
	_, rest, _ := strings.Cut(string(status), line)
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	must(b.t, err)
	return kib / 1024
}

// descriptors is how many the command has open.
func (b *bridge) descriptors() int {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.cmd.Process.Pid))
	must(b.t, err)
	return len(fds)
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	s, err := ssh.NewSignerFromKey(priv)
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A logTail is the end of what the command says.
type logTail struct {
	mu  sync.Mutex
	buf []byte
}

func (l *logTail) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

func (l *logTail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if len(l.buf) > 1<<20 {
		l.buf = l.buf[len(l.buf)-1<<19:]
	}
	return len(p), nil
}

package faultstest

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sftpbridge/bridge/sftpfs/faulty"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

var (
	seed     = flag.Uint64("seed", 1, "where the random choices begin")
	rounds   = flag.Int("rounds", 1, "how many times as long the tests run")
	raceless = flag.Bool("raceless", false, "build the command without the race detector")
)

// command is the file of the built command.
var command string

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "4") // they wait most of the time
	os.Exit(runTests(m))
}

// runTests builds the command and runs the tests.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "faultstest")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "sftpbridge")
	args := []string{"build", "-race", "-o", command, "sftpbridge/cmd/sftpbridge"}
	if *raceless {
		args = append(args[:1], args[2:]...)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		return 1
	}
	return m.Run()
}

// slack is how long a call may take at most. It is far more than any deadline
// of the tests, because the machine may be busy, and far less than for ever.
const slack = 60 * time.Second

// A rig is the command, running with a mount and an SFTP door, over a server
// behind a proxy.
type rig struct {
	t        *testing.T
	dir      string // of the test, in memory
	upstream string // the directory that the server serves, as the kernel shows it
	mount    string
	addr     string // of the SFTP door
	hostKey  string // file
	proxy    *faulty.Proxy
	sshd     *sshdtest.Server // nil if the server is another
	account  string           // who runs the test, and logs in at both servers
	login    ssh.Signer
	args     []string
	process  *process
}

// shmDir returns a directory in memory.
func shmDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "faultstest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newRig makes a rig over OpenSSH that has not started yet. The timeout is
// that of the command.
func newRig(t *testing.T, timeout time.Duration, flags ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: shmDir(t)}
	r.upstream = filepath.Join(r.dir, "upstream")
	if err := os.Mkdir(r.upstream, 0o755); err != nil {
		t.Fatal(err)
	}
	r.sshd = sshdtest.Start(t, "LogLevel ERROR")
	key, err := os.ReadFile(r.sshd.HostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	r.prepare(r.sshd.Addr, string(key), r.sshd.KeyFile, r.sshd.User, timeout, flags...)
	return r
}

// prepare makes the files and arguments of the command, for a server at
// target with the public host key.
func (r *rig) prepare(target, hostKey, identity, user string, timeout time.Duration, flags ...string) {
	r.t.Helper()
	r.account = user
	var err error
	if r.proxy, err = faulty.NewProxy(target); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.proxy.Close)
	_, port, _ := net.SplitHostPort(r.proxy.Addr())
	known := filepath.Join(r.dir, "known_hosts")
	r.write(known, fmt.Sprintf("[127.0.0.1]:%s %s\n", port, strings.TrimSpace(hostKey)))
	r.mount = filepath.Join(r.dir, "mnt")
	if err := os.Mkdir(r.mount, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.hostKey = filepath.Join(r.dir, "state", "host_key")
	r.login = newKey(r.t)
	authorized := filepath.Join(r.dir, "authorized_keys")
	r.write(authorized, string(ssh.MarshalAuthorizedKey(r.login.PublicKey())))
	r.args = append([]string{
		"serve", "--mount", r.mount, "--listen", freeAddr(r.t), "--host-key", r.hostKey,
		"--authorized-keys", authorized, "--identity", identity, "--known-hosts", known, "--ssh-config", "none",
		"--timeout", timeout.String(), "--attr-timeout", "100ms",
	}, flags...)
	r.args = append(r.args, fmt.Sprintf("sftp://%s@%s%s", user, r.proxy.Addr(), r.upstream))
}

// local has the command serve the directory itself, without a server.
func (r *rig) local() {
	r.args = append(slices.Clone(r.args[:slices.Index(r.args, "--identity")]), r.upstream)
}

func (r *rig) write(file, text string) {
	r.t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// newKey makes a key to log in with.
func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// freeAddr returns an address of 127.0.0.1 at which nobody listens.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the command and waits until its doors are open. The test ends
// it, which it has to do cleanly.
func (r *rig) start() {
	r.t.Helper()
	for range 10 { // the deadlines are short, and the machine may be busy
		p := startProcess(r.t, r.mount, r.args)
		r.process = p
		select {
		case r.addr = <-p.ready:
			r.t.Cleanup(func() {
				p.stop()
				takeAway(r.mount)
			})
			return
		case <-p.ended:
		case <-time.After(slack):
			r.t.Error("sftpbridge was not ready within a minute")
			p.kill()
		}
	}
	r.t.Fatalf("sftpbridge does not start: %v", r.process.err)
}

// takeAway takes a mount away that is left over, and wakes who waits on it.
func takeAway(dir string) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), " "+dir+" ") {
		syscall.Unmount(dir, syscall.MNT_FORCE|syscall.MNT_DETACH)
	}
}

// A process is one run of the command.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	mount string        // its mount
	ready chan string   // the address of the SFTP door, when both are open
	ended chan struct{} // closed when the process has
	err   error         // of its end
	log   *logTail
	// killed is closed when it is about to be killed, which brings its end about,
	// and is not to be judged.
	killed chan struct{}
	once   sync.Once
}

func startProcess(t *testing.T, mount string, args []string) *process {
	t.Helper()
	p := &process{t: t, mount: mount, cmd: exec.Command(command, args...), ready: make(chan string, 1), ended: make(chan struct{}), killed: make(chan struct{}), log: newLogTail(t)}
	p.cmd.Stderr = p.log
	p.cmd.Env = append(os.Environ(), "GOTRACEBACK=all")
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if _, addr, ok := strings.Cut(lines.Text(), "serving "); ok {
				p.ready <- addr[strings.LastIndex(addr, " on ")+4:]
			}
		}
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process by SIGTERM, unless it has ended on purpose.
func (p *process) stop() {
	select {
	case <-p.killed:
		return
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		if p.err != nil {
			p.t.Errorf("sftpbridge: %v", p.err)
		}
	case <-time.After(2 * slack):
		p.t.Error("sftpbridge did not end on SIGTERM")
		p.kill()
	}
}

// kill ends the process by SIGKILL. A thread that tells the kernel of a
// changed name just then waits for the lock of the directory, whose holder
// waits for the process, so that the mount stays until it is aborted
// (fuse_reverse_inval_entry): umount -f does that.
func (p *process) kill() {
	p.condemn()
	p.cmd.Process.Kill()
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.t.Log("the kernel holds the process that was killed: umount -f")
		takeAway(p.mount)
		<-p.ended
	}
}

// condemn says that the process is about to be ended by force.
func (p *process) condemn() { p.once.Do(func() { close(p.killed) }) }

// A logTail shows what the command says if the test fails.
type logTail struct {
	mu  sync.Mutex
	buf []byte
}

func newLogTail(t *testing.T) *logTail {
	l := new(logTail)
	t.Cleanup(func() {
		text := l.text()
		for _, bad := range []string{"WARNING: DATA RACE", "panic:"} {
			if at := strings.Index(text, bad); at >= 0 {
				t.Errorf("sftpbridge says:\n%s", text[at:min(len(text), at+1<<13)])
			}
		}
		if t.Failed() {
			t.Logf("sftpbridge says at last:\n%s", text[max(0, len(text)-1<<14):])
		}
	})
	return l
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
	if len(l.buf) > 1<<22 {
		l.buf = l.buf[len(l.buf)-1<<21:]
	}
	return len(p), nil
}

// errLate is of a call that did not return in time.
var errLate = errors.New("the call hangs")

// inTime runs a call, which has to return within the slack.
func inTime(call func() error) error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(slack):
		return errLate
	}
}

// eventually tries until there is no error, for as long as a call may take.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	end := time.Now().Add(slack)
	for {
		err := inTime(try)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

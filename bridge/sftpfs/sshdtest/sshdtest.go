// Package sshdtest starts a private OpenSSH server for tests, with keys of its
// own, on a port of 127.0.0.1.
package sshdtest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Server is a running sshd that serves the sftp subsystem to the present
// user by public key.
type Server struct {
	Addr       string // 127.0.0.1:port
	Port       int
	User       string // who may log in
	KeyFile    string // a private key that is let in
	KnownHosts string // a known_hosts file with the server's key
	HostKey    string // the server's private key
	Dir        string // an empty directory to serve
	Config     string // its sshd_config

	t    testing.TB
	conf string // directory of its files
	mu   sync.Mutex
	cmd  *exec.Cmd // guarded by mu
	log  *logBuffer
}

// Start starts a server that ends with the test. The lines of config are put
// in front of its sshd_config, where they win. The test is skipped where there
// is no sshd.
func Start(t testing.TB, config ...string) *Server {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		if sshd = "/usr/sbin/sshd"; !exists(sshd) {
			t.Skip("no sshd (package openssh-server)")
		}
	}
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if u.Uid == "0" { // the directory of sshd's privilege separation
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip("no /run/sshd: ", err)
		}
	}
	conf := t.TempDir()
	s := &Server{
		User: u.Username, Dir: t.TempDir(), t: t, conf: conf, log: &logBuffer{},
		KeyFile:    filepath.Join(conf, "id_ed25519"),
		HostKey:    filepath.Join(conf, "host_ed25519"),
		KnownHosts: filepath.Join(conf, "known_hosts"),
		Config:     filepath.Join(conf, "sshd_config"),
	}
	KeyGen(t, s.KeyFile, "")
	KeyGen(t, s.HostKey, "")
	authorized := filepath.Join(conf, "authorized_keys")
	copyFile(t, s.KeyFile+".pub", authorized)
	s.Port = freePort(t)
	s.Addr = "127.0.0.1:" + strconv.Itoa(s.Port)
	s.writeKnownHosts()
	lines := append(config,
		"ListenAddress "+s.Addr,
		"HostKey "+s.HostKey,
		"AuthorizedKeysFile "+authorized,
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password",
		"MaxStartups 100",
		"PerSourcePenalties no", // since OpenSSH 9.8; told to be ignored before
		"LogLevel VERBOSE")
	if !slices.ContainsFunc(config, func(line string) bool { return strings.HasPrefix(line, "Subsystem sftp ") }) {
		lines = append(lines, "Subsystem sftp internal-sftp") // without the user's shell and its start-up files
	}
	s.writeConfig(sshd, lines)
	s.Run()
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("sshd said:\n%s", s.log.String())
		}
	})
	return s
}

// Run starts the server again after Stop, on the same port with the same keys.
func (s *Server) Run() {
	s.t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd = exec.Command(sshd, "-D", "-e", "-f", s.Config)
	s.cmd.Stderr = s.log
	s.cmd.WaitDelay = time.Second // its children hold stderr
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("sshd does not listen on %s:\n%s", s.Addr, s.log.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Stop ends the server and all connections to it.
func (s *Server) Stop() {
	pids := s.PIDs()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.cmd.Wait()
	s.cmd = nil
}

// PID returns the process that listens, 0 after Stop.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// PIDs returns the processes that serve connections: all that descend from
// the one that listens.
func (s *Server) PIDs() []int {
	root := s.PID()
	if root == 0 {
		return nil
	}
	children := make(map[int][]int)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if ppid := parent(pid); ppid != 0 {
			children[ppid] = append(children[ppid], pid)
		}
	}
	var pids []int
	for todo := children[root]; len(todo) > 0; todo = todo[1:] {
		pids = append(pids, todo[0])
		todo = append(todo, children[todo[0]]...)
	}
	return pids
}

// Signal sends sig to all processes of the server.
func (s *Server) Signal(sig syscall.Signal) {
	syscall.Kill(s.PID(), sig)
	for _, pid := range s.PIDs() {
		syscall.Kill(pid, sig)
	}
}

// KillConnections ends all connections; the server goes on listening.
func (s *Server) KillConnections() {
	for _, pid := range s.PIDs() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Log returns what the server has logged.
func (s *Server) Log() string { return s.log.String() }

// KeyGen makes an Ed25519 key pair in file and file.pub.
func KeyGen(t testing.TB, file, passphrase string) {
	t.Helper()
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-a", "1", "-C", "test", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
}

// Allow lets the public key of file.pub in, beside those that are.
func (s *Server) Allow(file string) {
	s.t.Helper()
	pub, err := os.ReadFile(file + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(s.conf, "authorized_keys"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(pub); err != nil {
		s.t.Fatal(err)
	}
}

// NewHostKey gives the server another host key, from the next Run on, that
// KnownHosts does not know.
func (s *Server) NewHostKey() {
	s.t.Helper()
	os.Remove(s.HostKey)
	os.Remove(s.HostKey + ".pub")
	KeyGen(s.t, s.HostKey, "")
}

func (s *Server) writeKnownHosts() {
	s.t.Helper()
	pub, err := os.ReadFile(s.HostKey + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	line := fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, pub)
	if err := os.WriteFile(s.KnownHosts, []byte(line), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// writeConfig writes the lines that this sshd knows.
func (s *Server) writeConfig(sshd string, lines []string) {
	s.t.Helper()
	for {
		if err := os.WriteFile(s.Config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			s.t.Fatal(err)
		}
		out, err := exec.Command(sshd, "-t", "-f", s.Config).CombinedOutput()
		if err == nil {
			return
		}
		i := unknownLine(out)
		if i < 0 || i >= len(lines) {
			s.t.Fatalf("sshd -t: %v\n%s", err, out)
		}
		lines = append(lines[:i:i], lines[i+1:]...)
	}
}

// unknownLine finds the line number in "FILE: line 9: Bad configuration option".
func unknownLine(out []byte) int {
	_, rest, ok := bytes.Cut(out, []byte(": line "))
	if !ok || !bytes.Contains(rest, []byte("Bad configuration option")) {
		return -1
	}
	num, _, _ := bytes.Cut(rest, []byte(":"))
	n, err := strconv.Atoi(string(num))
	if err != nil {
		return -1
	}
	return n - 1
}

// SFTPServer returns OpenSSH's sftp-server program, or skips the test.
func SFTPServer(t testing.TB) string {
	t.Helper()
	for _, p := range []string{"/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server"} {
		if exists(p) {
			return p
		}
	}
	t.Skip("no sftp-server (package openssh-sftp-server)")
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// parent returns the parent of pid, 0 if it is gone or a zombie.
func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(b, ')') // the command's name may hold anything
	f := bytes.Fields(b[i+1:])
	if i < 0 || len(f) < 2 || f[0][0] == 'Z' {
		return 0
	}
	ppid, _ := strconv.Atoi(string(f[1]))
	return ppid
}

// A logBuffer is a buffer that may be written to and read at once.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

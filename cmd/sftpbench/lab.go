package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const cipher = ssh.CipherAES128GCM // of all connections

// A lab is where a run takes place: a directory of its own with keys, data
// and mount points, and the server that is the upstream of all.
type lab struct {
	dir    string // all that follows is below
	data   string // what the upstream and the servers serve
	local  string // files of the clients
	out    string // in data, for what is written
	bridge string // the program to measure
	self   string // this program
	user   string
	key    string // file of the key that all servers let in
	signer ssh.Signer
	known  string // known_hosts
	size   scale
	made   map[string]bool // data sets

	upstream *process // nil until it is needed
	addr     string   // of the upstream

	mu     sync.Mutex
	mounts int // mount points made; guarded by mu
}

// newLab makes a lab below dir, or in memory.
func newLab(dir, bridge string, size scale) (*lab, error) {
	if dir == "" {
		dir = "/dev/shm"
	}
	bridge, err := filepath.Abs(bridge)
	if err == nil {
		_, err = os.Stat(bridge)
	}
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	u, err := user.Current()
	if err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "sftpbench."); err != nil {
		return nil, err
	}
	l := &lab{
		dir:    dir,
		data:   filepath.Join(dir, "data"),
		local:  filepath.Join(dir, "local"),
		out:    filepath.Join(dir, "data/out"),
		key:    filepath.Join(dir, "key"),
		known:  filepath.Join(dir, "known_hosts"),
		bridge: bridge, self: self, user: u.Username, size: size,
		made: make(map[string]bool),
	}
	if err := l.setUp(); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

func (l *lab) setUp() error {
	for _, d := range []string{l.out, l.local, l.logs(), filepath.Join(l.dir, "cache")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if _, err := newKey(l.hostKey()); err != nil {
		return err
	}
	var err error
	l.signer, err = newKey(l.key)
	return err
}

func (l *lab) logs() string    { return filepath.Join(l.dir, "logs") }
func (l *lab) hostKey() string { return filepath.Join(l.dir, "host_key") }

// close ends the upstream and removes the directory, but nothing that is still
// mounted in it.
func (l *lab) close() error {
	if l.upstream != nil {
		l.upstream.stop()
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], l.dir+"/") {
			if err := unmount(f[1]); err != nil {
				return fmt.Errorf("%s is still mounted: %w", f[1], err)
			}
		}
	}
	return os.RemoveAll(l.dir)
}

// needUpstream starts the server that is the upstream, if it does not run.
func (l *lab) needUpstream(ctx context.Context) error {
	if l.upstream != nil {
		return nil
	}
	p, addr, err := l.startSSHD(ctx, "Ciphers "+cipher)
	l.upstream, l.addr = p, addr
	return err
}

// startSSHD starts an OpenSSH server of the whole machine's files.
func (l *lab) startSSHD(ctx context.Context, lines ...string) (*process, string, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	if os.Geteuid() == 0 { // for the separation of privileges
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, "", err
		}
	}
	lines = append(lines,
		"ListenAddress "+addr,
		"HostKey "+l.hostKey(),
		"AuthorizedKeysFile "+l.key+".pub",
		"PidFile none",
		"StrictModes no",
		"UsePAM no",
		"UseDNS no",
		"PasswordAuthentication no",
		"KbdInteractiveAuthentication no",
		"PermitRootLogin prohibit-password",
		"MaxStartups 1000",
		"MaxSessions 1000",
		"Subsystem sftp internal-sftp")
	config, err := os.CreateTemp(l.dir, "sshd_config.")
	if err != nil {
		return nil, "", err
	}
	_, err = config.WriteString(strings.Join(lines, "\n") + "\n")
	if err := errors.Join(err, config.Close()); err != nil {
		return nil, "", err
	}
	p, err := startProcess(l.logs(), "/usr/sbin/sshd", "-D", "-e", "-f", config.Name())
	if err != nil {
		return nil, "", err
	}
	return p, addr, p.wait(ctx, func() bool { return answers(addr) })
}

// trust has clients know the host key of addr.
func (l *lab) trust(addr string) error {
	pub, err := os.ReadFile(l.hostKey() + ".pub")
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.known, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "[%s]:%s %s", host, port, pub)
	return errors.Join(err, f.Close())
}

// mountPoint makes a directory to mount on.
func (l *lab) mountPoint() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mounts++
	dir := filepath.Join(l.dir, fmt.Sprintf("mnt%d", l.mounts))
	return dir, os.Mkdir(dir, 0o755)
}

// dropCaches empties the caches of the kernel, if we may.
func dropCaches() error {
	unix.Sync()
	err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
	if errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}

// mounted reports whether something is mounted on dir. It does not look at
// the mount itself.
func mounted(dir string) bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(mounts), " "+dir+" ")
}

// freeAddr finds a port of 127.0.0.1 where nobody listens.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// answers reports whether an SSH server listens at addr.
func answers(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * time.Second))
	banner := make([]byte, 4)
	_, err = conn.Read(banner)
	return err == nil && string(banner) == "SSH-"
}

// newKey makes an Ed25519 key in file and file.pub.
func newKey(file string) (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "sftpbench")
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	public := ssh.MarshalAuthorizedKey(signer.PublicKey())
	return signer, errors.Join(
		os.WriteFile(file, pem.EncodeToMemory(block), 0o600),
		os.WriteFile(file+".pub", public, 0o644))
}

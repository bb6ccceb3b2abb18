package main

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// patience is for what takes long on a busy machine only.
const patience = 60 * time.Second

// A process is the command running in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string // its standard output; closed at its end
	stderr *bytes.Buffer
}

// reexec returns a command that is sftpbridge with these arguments.
func reexec(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), reexecEnv+"=1", "XDG_STATE_HOME="+t.TempDir())
	return cmd
}

// start starts the command, and kills it at the end of the test if it has not
// ended.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: reexec(t, args...), lines: make(chan string, 100), stderr: new(bytes.Buffer)}
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			p.lines <- in.Text()
		}
	}()
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			for range p.lines {
			}
			p.cmd.Wait()
		}
	})
	return p
}

// line returns the next line of output that has the prefix, without it.
func (p *process) line(prefix string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case line, ok := <-p.lines:
			if rest, is := strings.CutPrefix(line, prefix); is {
				return rest
			}
			if !ok {
				p.cmd.Wait()
				p.t.Fatalf("it ended without %q: %s", prefix, p.stderr)
			}
		case <-timeout:
			p.t.Fatalf("no line %q", prefix)
		}
	}
}

// stop ends the process by a signal, which has to be clean.
func (p *process) stop() {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	for range p.lines {
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("after SIGTERM: %v: %s", err, p.stderr)
	}
}

// needFUSE skips a test where nothing can be mounted.
func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	f.Close()
}

// mountPoint returns a directory that is not left mounted.
func mountPoint(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if mounted(t, dir) {
			exec.Command("umount", "-l", dir).Run()
		}
	})
	return dir
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(data), " "+dir+" ")
}

// A keyPair is a client's key, in files.
type keyPair struct {
	private, public string
	signer          ssh.Signer
}

func newKey(t *testing.T) keyPair {
	t.Helper()
	k := keyPair{private: filepath.Join(t.TempDir(), "key")}
	k.public = k.private + ".pub"
	err := makeKey(k.private, false)
	if err == nil {
		err = writePublic(k.private)
	}
	if err == nil {
		k.signer, err = loadKey(k.private)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// dial logs in at addr.
func dial(t *testing.T, addr, user string, auth ssh.AuthMethod) (*sftp.Client, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	client := ssh.NewClient(c, chans, reqs)
	t.Cleanup(func() { client.Close() })
	return sftp.NewClient(client)
}

func (k keyPair) dial(t *testing.T, addr, user string) *sftp.Client {
	t.Helper()
	c, err := dial(t, addr, user, ssh.PublicKeys(k.signer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func currentUser(t *testing.T) string {
	t.Helper()
	account, err := accountOf("")
	if err != nil {
		t.Fatal(err)
	}
	return account.Name
}

func readSFTP(t *testing.T, c *sftp.Client, name string) string {
	t.Helper()
	f, err := c.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := f.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func writeSFTP(t *testing.T, c *sftp.Client, name, content string) {
	t.Helper()
	f, err := c.Create(name)
	if err == nil {
		_, err = f.Write([]byte(content))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestServeAndMount(t *testing.T) {
	needFUSE(t)
	for _, backend := range []string{"mem:", t.TempDir()} {
		t.Run(filepath.Base(backend), func(t *testing.T) {
			key, dir := newKey(t), mountPoint(t)
			p := start(t, "serve", backend, "--mount", dir, "--listen=127.0.0.1:0", "--authorized-keys", key.public,
				"--host-key", filepath.Join(t.TempDir(), "host"))
			p.line("mounted " + backend + " on " + dir)
			c := key.dial(t, p.line("serving "+backend+" on "), currentUser(t))

			write(t, filepath.Join(dir, "a"), "from the mount")
			if got := readSFTP(t, c, "/a"); got != "from the mount" {
				t.Errorf("SFTP reads %q", got)
			}
			writeSFTP(t, c, "/a", "from SFTP")
			if got := read(t, filepath.Join(dir, "a")); got != "from SFTP" {
				t.Errorf("the mount reads %q", got)
			}
			if err := c.Rename("/a", "/b"); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a was renamed: %v", err)
			}
			if err := os.Remove(filepath.Join(dir, "b")); err != nil {
				t.Error(err)
			}
			if _, err := c.Stat("/b"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("b was removed: %v", err)
			}
			p.stop()
			if mounted(t, dir) {
				t.Error("it is still mounted")
			}
		})
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSIGTERMFinishesWrites(t *testing.T) {
	needFUSE(t)
	local, dir := t.TempDir(), mountPoint(t)
	p := start(t, "mount", local, dir)
	p.line("mounted ")
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("written before the end"); err != nil {
		t.Fatal(err)
	}
	p.stop() // while f is open
	if got := read(t, filepath.Join(local, "f")); got != "written before the end" {
		t.Errorf("the directory has %q", got)
	}
	if mounted(t, dir) {
		t.Error("it is still mounted")
	}
}

func TestUnmountEndsMount(t *testing.T) {
	needFUSE(t)
	dir := mountPoint(t)
	p := start(t, "mount", "mem:", dir)
	p.line("mounted ")
	umount := "umount"
	if os.Geteuid() != 0 {
		umount = "fusermount3 -u"
	}
	if out, err := exec.Command("sh", "-c", umount+` "$0"`, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range p.lines {
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("after umount: %v: %s", err, p.stderr)
	}
}

// TestDaemon mounts as mount(8) has a helper do it.
func TestDaemon(t *testing.T) {
	needFUSE(t)
	local, dir := t.TempDir(), mountPoint(t)
	write(t, filepath.Join(local, "f"), "there")
	cmd := reexec(t, local, dir, "-o", "rw,ro,noatime,_netdev")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := read(t, filepath.Join(dir, "f")); got != "there" {
		t.Errorf("read %q", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "g"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing to a read-only mount: %v, want EROFS", err)
	}
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestDaemonFails(t *testing.T) {
	cmd := reexec(t, "mount", "--daemon", "/does/not/exist", t.TempDir())
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != exitFailure || !strings.Contains(string(out), "/does/not/exist") {
		t.Errorf("got %v and %q", err, out)
	}
}

func TestRunWithUsers(t *testing.T) {
	key := newKey(t)
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, `
users:
  - {name: alice, uid: 1000, gid: 1000, authorized_keys: ["`+key.public+`"]}
  - {name: bob, uid: 1001, gid: 1001, password_hash: '`+hashPassword("secret")+`'}
  - name: admin
    uid: 0
    gid: 0
    authorized_keys: ["`+key.public+`"]
    rules: [{path: /public/kept, deny: [delete, rename]}]
trees:
  - backend: "mem:"
    sftp: [{listen: "127.0.0.1:0", host_keys: ["`+filepath.Join(t.TempDir(), "host")+`"]}]
`)
	p := start(t, "run", "--config", file)
	addr := p.line("serving mem: on ")
	admin := key.dial(t, addr, "admin")
	for _, dir := range []string{"/public", "/private"} {
		if err := admin.Mkdir(dir); err != nil {
			t.Fatal(err)
		}
	}
	writeSFTP(t, admin, "/public/kept", "kept")
	if err := errors.Join(admin.Chmod("/private", 0o700), admin.Chmod("/public", 0o777)); err != nil {
		t.Fatal(err)
	}
	if err := admin.Remove("/public/kept"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a rule denies it, but: %v", err)
	}
	alice := key.dial(t, addr, "alice")
	if _, err := alice.ReadDir("/private"); !errors.Is(err, os.ErrPermission) {
		t.Errorf("alice lists /private: %v", err)
	}
	writeSFTP(t, alice, "/public/alice", "hers")
	bob, err := dial(t, addr, "bob", ssh.Password("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got := readSFTP(t, bob, "/public/alice"); got != "hers" {
		t.Errorf("bob reads %q", got)
	}
	if _, err := bob.OpenFile("/public/alice", os.O_WRONLY); !errors.Is(err, os.ErrPermission) {
		t.Errorf("bob writes: %v", err)
	}
	for _, who := range []string{"bob", "alice", "nobody"} {
		if _, err := dial(t, addr, who, ssh.Password("wrong")); err == nil {
			t.Errorf("%s logs in with a wrong password", who)
		}
	}
	p.stop()
}

func TestSFTPServer(t *testing.T) {
	local := t.TempDir()
	write(t, filepath.Join(local, "f"), "content")
	cmd := reexec(t, "sftp-server", "-R", local)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	c, err := sftp.NewClientPipe(out, in)
	if err != nil {
		t.Fatal(err)
	}
	if got := readSFTP(t, c, "f"); got != "content" {
		t.Errorf("read %q", got)
	}
	if err := c.Remove("f"); err == nil {
		t.Error("-R lets a file be removed")
	}
	c.Close()
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("at the end: %v: %s", err, &stderr)
	}
}

func TestNotifiesSystemd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	key := newKey(t)
	p := start(t, "serve", "mem:", "--listen=127.0.0.1:0", "--authorized-keys", key.public,
		"--host-key", filepath.Join(t.TempDir(), "host"))
	p.line("serving ")
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 256)
		conn.SetReadDeadline(time.Now().Add(patience))
		n, err := conn.Read(b)
		if err != nil || string(b[:n]) != want {
			t.Errorf("systemd hears %q, %v, want %q", b[:n], err, want)
		}
	}
	hear("READY=1")
	p.stop()
	hear("STOPPING=1")
}

func TestDemo(t *testing.T) {
	needFUSE(t)
	dir := mountPoint(t)
	p := start(t, "demo", dir)
	p.line("mounted sftp://demo@")
	p.line("serving sftp://demo@")
	login := strings.Fields(p.line("  sftp "))
	p.line("What you change")
	if got := read(t, filepath.Join(dir, "latest")); !strings.HasPrefix(got, "do re mi") {
		t.Errorf("the sample file says %q", got)
	}
	signer, err := loadKey(login[3])
	if err != nil {
		t.Fatal(err)
	}
	c := keyPair{signer: signer}.dial(t, "127.0.0.1:"+login[1], "demo")
	writeSFTP(t, c, "docs/new", "hello")
	if got := read(t, filepath.Join(dir, "docs", "new")); got != "hello" {
		t.Errorf("the mount reads %q", got)
	}
	p.stop()
	if _, err := os.Stat(filepath.Dir(login[3])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files of the demo are left: %v", err)
	}
}

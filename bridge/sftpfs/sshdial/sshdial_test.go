package sshdial

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// try connects to target and closes the connection again.
func try(t *testing.T, target string, opt Options) error {
	t.Helper()
	dial, err := New(target, opt)
	if err != nil {
		return err
	}
	return tryDial(t, dial)
}

func tryDial(t *testing.T, dial sftpfs.Dialer) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tr, err := dial(ctx)
	if err != nil {
		return err
	}
	if err := tr.Ping(ctx); err != nil {
		t.Errorf("Ping: %v", err)
	}
	return tr.Close()
}

// options let a test in at s, whatever the machine's own configuration says.
func options(s *sshdtest.Server) Options {
	return Options{ConfigFile: "none", IdentityFiles: []string{s.KeyFile}, KnownHosts: s.KnownHosts}
}

func alone(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("HOME", t.TempDir())
}

func TestConnect(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	if err := os.WriteFile(filepath.Join(s.Dir, "f"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	dial, err := New(s.User+"@"+s.Addr, options(s))
	if err != nil {
		t.Fatal(err)
	}
	f, err := sftpfs.New(context.Background(), dial, sftpfs.Options{Root: s.Dir})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if a, err := f.Lstat(context.Background(), "f"); err != nil || a.Size != 7 {
		t.Errorf("Lstat = %+v, %v", a, err)
	}
}

func TestUnknownHost(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	opt := options(s)
	opt.KnownHosts = filepath.Join(t.TempDir(), "new", "known_hosts")
	target := s.User + "@" + s.Addr

	err := try(t, target, opt)
	var refused *HostKeyError
	if !errors.As(err, &refused) || len(refused.Known) != 0 {
		t.Fatalf("unknown host: %v", err)
	}
	for _, want := range []string{"not known", fingerprint(t, s.HostKey), opt.KnownHosts, "--accept-new-host-keys"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than a line: %q", err)
	}

	opt.AcceptNewHostKeys = true
	if err := try(t, target, opt); err != nil {
		t.Fatalf("accepting: %v", err)
	}
	line, err := os.ReadFile(opt.KnownHosts)
	if err != nil || !strings.HasPrefix(string(line), fmt.Sprintf("[127.0.0.1]:%d ssh-ed25519 ", s.Port)) {
		t.Errorf("known_hosts is %q, %v", line, err)
	}
	opt.AcceptNewHostKeys = false
	if err := try(t, target, opt); err != nil {
		t.Errorf("accepted before: %v", err)
	}
}

func TestChangedHostKey(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	old := fingerprint(t, s.HostKey)
	s.Stop()
	s.NewHostKey()
	s.Run()
	opt := options(s)
	for _, accept := range []bool{false, true} {
		opt.AcceptNewHostKeys = accept
		err := try(t, s.User+"@"+s.Addr, opt)
		var refused *HostKeyError
		if !errors.As(err, &refused) {
			t.Fatalf("changed key: %v", err)
		}
		for _, want := range []string{"CHANGED", fingerprint(t, s.HostKey), s.KnownHosts + ":1", old} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
}

// TestOtherHostKeyType is a host of which a key is known of a type that it has
// not: that must not pass for a host that is not known.
func TestOtherHostKeyType(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("[127.0.0.1]:%d %s", s.Port, ssh.MarshalAuthorizedKey(key))
	if err := os.WriteFile(s.KnownHosts, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	opt := options(s)
	opt.AcceptNewHostKeys = true
	err = try(t, s.User+"@"+s.Addr, opt)
	var refused *HostKeyError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), s.KnownHosts+":1") {
		t.Errorf("key of another type: %v", err)
	}
}

func TestConfig(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	file := filepath.Join(t.TempDir(), "config")
	config := fmt.Sprintf(`
Host inner
	HostName 127.0.0.1
	ProxyJump gate

Host twice
	HostName 127.0.0.1
	ProxyJump gate,%[1]s@127.0.0.1:%[2]d

Host proxied
	ProxyCommand ssh -F none -i %[3]s -o UserKnownHostsFile=%[4]s -p %%p -W 127.0.0.1:%%p %%r@127.0.0.1
	IdentityFile %[3]s
	HostName 127.0.0.1

Host circle
	ProxyJump circle

Host quoted
	HostName 127.0.0.1
	IdentityFile "%[3]s"

Host gate inner twice 127.0.0.1
	HostName 127.0.0.1
	IdentityFile %[3]s

Host *
	Port %[2]d
	User %[1]s
	UserKnownHostsFile %[4]s
	GlobalKnownHostsFile /dev/null
	IdentitiesOnly yes
	StrictHostKeyChecking yes
	ConnectTimeout 60
`, s.User, s.Port, s.KeyFile, s.KnownHosts)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	opt := Options{ConfigFile: file}
	for _, target := range []string{"gate", "quoted", "inner", "twice", "proxied"} {
		if err := try(t, target, opt); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	for target, want := range map[string]string{
		"circle":            "circle",
		"nosuchuser@gate":   "does not let nosuchuser in; tried the key " + s.KeyFile,
		"gate:1":            "cannot connect to gate (127.0.0.1) port 1",
		"nosuchuser@inner":  "inner",
		"unconfigured.host": "unconfigured.host",
	} {
		if err := try(t, target, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", target, err, want)
		}
	}
	if err := try(t, "gate", Options{ConfigFile: filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Error("a configuration that is not there was taken")
	}
}

// A prompter answers questions, and counts them.
type prompter struct {
	mu      sync.Mutex
	answers []string
	asked   []string
}

func (p *prompter) prompt(ctx context.Context, question string, echo bool) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, question)
	if len(p.answers) == 0 {
		return "", errors.New("no answer")
	}
	a := p.answers[0]
	p.answers = p.answers[1:]
	return a, nil
}

func TestPassphrase(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	locked := filepath.Join(t.TempDir(), "locked")
	sshdtest.KeyGen(t, locked, "open sesame")
	s.Allow(locked)
	opt := options(s)
	opt.IdentityFiles = []string{locked}
	target := s.User + "@" + s.Addr

	if err := try(t, target, opt); err == nil || !strings.Contains(err.Error(), locked) {
		t.Errorf("without a prompt: %v", err)
	}
	p := &prompter{answers: []string{"wrong", "open sesame"}}
	opt.Prompt = p.prompt
	dial, err := New(target, opt)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time from memory
		if err := tryDial(t, dial); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.asked) != 2 || !strings.Contains(p.asked[0], locked) {
		t.Errorf("asked %q", p.asked)
	}
}

func TestAgent(t *testing.T) {
	alone(t)
	s := sshdtest.Start(t)
	pem, err := os.ReadFile(s.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(pem)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { agent.ServeAgent(ring, c); c.Close() })
		}
	})
	defer wg.Wait()
	defer l.Close()
	t.Setenv("SSH_AUTH_SOCK", sock)
	opt := options(s)
	opt.IdentityFiles = nil
	if err := try(t, s.User+"@"+s.Addr, opt); err != nil {
		t.Error(err)
	}
}

// passwordServer is an SSH server that lets in whoever knows the password.
func passwordServer(t *testing.T, password string, interactive bool) (addr, knownHosts string) {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	errNo := errors.New("no")
	config := &ssh.ServerConfig{}
	if interactive {
		config.KeyboardInteractiveCallback = func(c ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			a, err := ask("", "", []string{"Pass\x1bword: "}, []bool{false})
			if err != nil || a[0] != password {
				return nil, errNo
			}
			return nil, nil
		}
	} else {
		config.PasswordCallback = func(c ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
			if string(p) != password {
				return nil, errNo
			}
			return nil, nil
		}
	}
	config.AddHostKey(key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				conn, chans, reqs, err := ssh.NewServerConn(c, config)
				if err != nil {
					return
				}
				wg.Go(func() { ssh.DiscardRequests(reqs) })
				for ch := range chans {
					ch.Reject(ssh.Prohibited, "no")
				}
				conn.Wait()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	addr = l.Addr().String()
	host, port, _ := net.SplitHostPort(addr)
	knownHosts = filepath.Join(t.TempDir(), "known_hosts")
	line := fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(key.PublicKey()))
	if err := os.WriteFile(knownHosts, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	return addr, knownHosts
}

func TestPassword(t *testing.T) {
	for _, interactive := range []bool{false, true} {
		t.Run(fmt.Sprintf("interactive=%t", interactive), func(t *testing.T) {
			alone(t)
			addr, knownHosts := passwordServer(t, "secret", interactive)
			p := &prompter{answers: []string{"wrong", "secret"}}
			opt := Options{ConfigFile: "none", KnownHosts: knownHosts, Prompt: p.prompt}
			dial, err := New("user@"+addr, opt)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := tryDial(t, dial); err != nil {
					t.Fatal(err)
				}
			}
			if len(p.asked) != 2 || !strings.Contains(strings.ToLower(p.asked[0]), "password: ") || strings.Contains(p.asked[0], "\x1b") {
				t.Errorf("asked %q", p.asked)
			}
			opt.Prompt = nil
			err = try(t, "user@"+addr, opt)
			if err == nil || !strings.Contains(err.Error(), "does not let user in; tried nothing") {
				t.Errorf("nobody to ask: %v", err)
			}
		})
	}
}

// TestSilentHost is a host that takes connections and says nothing.
func TestSilentHost(t *testing.T) {
	alone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { io.Copy(io.Discard, c); c.Close() })
		}
	})
	defer wg.Wait()
	defer l.Close()
	err = try(t, l.Addr().String(), Options{ConfigFile: "none", Timeout: 200 * time.Millisecond})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("silent host: %v", err)
	}
}

func TestParseTarget(t *testing.T) {
	for in, want := range map[string]Target{
		"host":             {"", "host", ""},
		"u@host":           {"u", "host", ""},
		"u@x@host:22":      {"u@x", "host", "22"},
		"host:2222":        {"", "host", "2222"},
		"::1":              {"", "::1", ""},
		"u@[::1]:22":       {"u", "::1", "22"},
		"[fe80::1%eth0]":   {"", "fe80::1%eth0", ""},
		"host:":            {},
		"host:0":           {},
		"host:70000":       {},
		"":                 {},
		"u@":               {},
		"-oProxyCommand=x": {},
		"[::1":             {},
		"[::1]x":           {},
		"a b":              {},
	} {
		got, err := ParseTarget(in)
		if want == (Target{}) {
			if err == nil {
				t.Errorf("ParseTarget(%q) = %+v", in, got)
			}
			continue
		}
		if err != nil || got != want {
			t.Errorf("ParseTarget(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func fingerprint(t *testing.T, file string) string {
	t.Helper()
	line, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.FingerprintSHA256(key)
}

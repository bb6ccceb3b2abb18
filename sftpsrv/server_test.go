package sftpsrv

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// A testServer is a Server on a port of this machine.
type testServer struct {
	t       testing.TB
	addr    *net.TCPAddr
	home    string
	key     ssh.Signer    // of the user "u", whose password is "secret"
	allowed ssh.PublicKey // what the server takes; that of key
	stop    context.CancelFunc

	mu     sync.Mutex
	log    bytes.Buffer
	logins []SessionInfo
	closes int
}

func newKey(t testing.TB) ssh.Signer {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	s, err := ssh.NewSignerFromKey(priv)
	must(t, err)
	return s
}

// Write takes the log.
func (ts *testServer) Write(p []byte) (int, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.log.Write(p)
}

func (ts *testServer) logged() string {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.log.String()
}

var errNo = errors.New("no")

// startServer serves the files of a new directory. change may change the Config.
func startServer(t testing.TB, change func(*Config)) *testServer {
	t.Helper()
	ts := &testServer{t: t, home: t.TempDir(), key: newKey(t)}
	ts.allowed = ts.key.PublicKey()
	cfg := Config{
		HostKeys: []ssh.Signer{newKey(t)},
		PublicKey: func(_ context.Context, user string, key ssh.PublicKey, _ net.Addr) (Login, error) {
			if user == "u" && bytes.Equal(key.Marshal(), ts.allowed.Marshal()) {
				return Login{Avatar: "U"}, nil
			}
			return Login{}, errNo
		},
		Password: func(_ context.Context, user string, password []byte, _ net.Addr) (Login, error) {
			if user == "u" && string(password) == "secret" {
				return Login{Avatar: "U"}, nil
			}
			return Login{}, errNo
		},
		NewSession: func(_ context.Context, info SessionInfo) (Session, error) {
			ts.mu.Lock()
			defer ts.mu.Unlock()
			ts.logins = append(ts.logins, info)
			return Session{Server: &dirServer{home: ts.home}, Close: func() {
				ts.mu.Lock()
				defer ts.mu.Unlock()
				ts.closes++
			}}, nil
		},
		LoginPenalty: -1,
		Logger:       slog.New(slog.NewTextHandler(ts, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	must(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ts.addr = ln.Addr().(*net.TCPAddr)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ctx, ln) }()
	var once sync.Once
	ts.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	t.Cleanup(ts.stop)
	return ts
}

// clientConfig is for a login with the user's key.
func (ts *testServer) clientConfig() *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:            "u",
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(ts.key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		Timeout:         patience,
	}
}

func (ts *testServer) dial() *ssh.Client {
	ts.t.Helper()
	c, err := ssh.Dial("tcp", ts.addr.String(), ts.clientConfig())
	if err != nil {
		ts.t.Fatalf("login: %v\n%s", err, ts.logged())
	}
	ts.t.Cleanup(func() { c.Close() })
	return c
}

// eventually waits until what has come true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func TestLoginAndSession(t *testing.T) {
	ts := startServer(t, nil)
	must(t, os.WriteFile(ts.home+"/f", []byte("hello"), 0o644))
	c := ts.dial()
	if v := string(c.ServerVersion()); v != DefaultVersion {
		t.Errorf("the server calls itself %q", v)
	}
	for range 3 { // sessions one after the other on one connection
		sc, err := sftp.NewClient(c)
		must(t, err)
		f, err := sc.Open("f")
		must(t, err)
		data, err := io.ReadAll(f)
		if err != nil || string(data) != "hello" {
			t.Errorf("read %q, %v", data, err)
		}
		f.Close()
		must(t, sc.Close())
	}
	c.Close()
	eventually(t, "three sessions closed", func() bool {
		ts.mu.Lock()
		defer ts.mu.Unlock()
		return ts.closes == 3
	})
	eventually(t, "logout in the log", func() bool { return strings.Contains(ts.logged(), "msg=logout") })
	ts.mu.Lock()
	defer ts.mu.Unlock()
	in := ts.logins[0]
	if in.Avatar != "U" || in.User != "u" || in.Method != "publickey" || in.Key != ssh.FingerprintSHA256(ts.key.PublicKey()) {
		t.Errorf("NewSession was told %+v", in)
	}
	if n := strings.Count(ts.log.String(), "\n"); n != 2 {
		t.Errorf("%d lines in the log, want one of login and one of logout:\n%s", n, ts.log.String())
	}
}

// TestExitStatus: scp and restic take a session without one for a failure.
func TestExitStatus(t *testing.T) {
	ts := startServer(t, nil)
	ch, reqs, err := ts.dial().OpenChannel("session", nil)
	must(t, err)
	ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"}))
	if err != nil || !ok {
		t.Fatalf("subsystem: %v, %v", ok, err)
	}
	must(t, ch.CloseWrite())
	if _, err := io.Copy(io.Discard, ch); err != nil { // up to the server's EOF
		t.Error(err)
	}
	got := "none"
	for r := range reqs { // up to its close
		if r.Type == "exit-status" {
			got = fmt.Sprint(r.Payload)
		}
	}
	if got != "[0 0 0 0]" {
		t.Errorf("exit-status: %s, want 0", got)
	}
}

func TestNothingButSFTP(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.dial()
	s, err := c.NewSession()
	must(t, err)
	defer s.Close()
	refused := map[string]error{
		"env":       s.Setenv("A", "b"),
		"pty":       s.RequestPty("xterm", 24, 80, nil),
		"subsystem": s.RequestSubsystem("netconf"),
		"exec":      s.Start("/usr/lib/openssh/sftp-server"),
	}
	shell, err := c.NewSession()
	must(t, err)
	defer shell.Close()
	refused["shell"] = shell.Shell()
	_, refused["direct-tcpip"] = c.Dial("tcp", ts.addr.String())
	_, refused["tcpip-forward"] = c.Listen("tcp", "127.0.0.1:0")
	for what, err := range refused {
		if err == nil {
			t.Errorf("%s is not refused", what)
		}
	}
	if sc, err := sftp.NewClient(c); err != nil {
		t.Errorf("after that, sftp: %v", err)
	} else {
		sc.Close()
	}
}

func TestMaxSessions(t *testing.T) {
	ts := startServer(t, func(c *Config) { c.MaxSessions = 2 })
	c := ts.dial()
	a, err := sftp.NewClient(c)
	must(t, err)
	b, err := sftp.NewClient(c)
	must(t, err)
	defer b.Close()
	if _, err := sftp.NewClient(c); err == nil {
		t.Error("a third session is not refused")
	}
	a.Close()
	eventually(t, "room for another session", func() bool {
		sc, err := sftp.NewClient(c)
		if err == nil {
			sc.Close()
		}
		return err == nil
	})
}

func TestPasswords(t *testing.T) {
	ts := startServer(t, nil)
	for _, tt := range []struct {
		user, password string
		ok             bool
	}{{"u", "secret", true}, {"u", "wrong", false}, {"v", "secret", false}, {"u", "", false}} {
		cfg := ts.clientConfig()
		cfg.User, cfg.Auth = tt.user, []ssh.AuthMethod{ssh.Password(tt.password)}
		c, err := ssh.Dial("tcp", ts.addr.String(), cfg)
		if (err == nil) != tt.ok {
			t.Errorf("%s with %q: %v", tt.user, tt.password, err)
		}
		if err == nil {
			c.Close()
		}
	}
	if log := ts.logged(); strings.Contains(log, "secret") || strings.Contains(log, "wrong") {
		t.Errorf("a password is in the log:\n%s", log)
	}
}

// TestOffersOfForeignKeys: a client may offer keys that it does not own; the
// login is that of the key that it proves (CVE-2024-45337).
func TestOffersOfForeignKeys(t *testing.T) {
	mine, other := newKey(t), newKey(t)
	names := map[string]string{
		string(mine.PublicKey().Marshal()):  "mine",
		string(other.PublicKey().Marshal()): "other",
	}
	ts := startServer(t, func(c *Config) {
		c.PublicKey = func(_ context.Context, _ string, key ssh.PublicKey, _ net.Addr) (Login, error) {
			if name := names[string(key.Marshal())]; name != "" {
				return Login{Avatar: name}, nil
			}
			return Login{}, errNo
		}
	})
	cfg := ts.clientConfig()
	cfg.Auth = []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
		return []ssh.Signer{cannotSign{other}, mine}, nil
	})}
	c, err := ssh.Dial("tcp", ts.addr.String(), cfg)
	if err != nil { // the client may give up after the signature that failed
		cfg.Auth = []ssh.AuthMethod{ssh.PublicKeys(mine)}
		c, err = ssh.Dial("tcp", ts.addr.String(), cfg)
	}
	must(t, err)
	defer c.Close()
	sc, err := sftp.NewClient(c)
	must(t, err)
	sc.Close()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if got := ts.logins[0].Avatar; got != "mine" {
		t.Errorf("the avatar is %q", got)
	}
}

// cannotSign is a key whose signatures are those of nobody.
type cannotSign struct{ ssh.Signer }

func (c cannotSign) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	sig, err := c.Signer.Sign(r, data)
	if err == nil {
		sig.Blob[0] ^= 1
	}
	return sig, err
}

func TestServerStops(t *testing.T) {
	ts := startServer(t, nil)
	c := ts.dial()
	sc, err := sftp.NewClient(c)
	must(t, err)
	f, err := sc.Create("f")
	must(t, err)
	_, err = f.Write([]byte("data"))
	must(t, err)
	ts.stop()
	waitConn(t, c)
	if got, _ := os.ReadFile(ts.home + "/f"); string(got) != "data" {
		t.Errorf("the file holds %q", got)
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closes != 1 {
		t.Errorf("%d sessions closed, want 1", ts.closes)
	}
}

// writeKey puts the user's key where OpenSSH can read it.
func writeKey(t *testing.T, path string) ssh.Signer {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(priv, "test")
	must(t, err)
	must(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	s, err := ssh.NewSignerFromKey(priv)
	must(t, err)
	return s
}

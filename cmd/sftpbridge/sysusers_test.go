package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestParsePasswd(t *testing.T) {
	p, err := parsePasswd("alice:x:4001:4002:Alice:/home/alice/:/bin/sh")
	if want := (passwdEntry{"alice", "x", 4001, 4002, "/home/alice", "/bin/sh"}); err != nil || p != want {
		t.Errorf("%+v, %v; want %+v", p, err, want)
	}
	for _, line := range []string{"", "alice:x:4001", "a:x:-1:0::/:", "a:x:0:4294967296::/:", "a:x:1:1::home:", "a:x:1:1:::/bin/sh"} {
		if p, err := parsePasswd(line); err == nil {
			t.Errorf("%q is %+v", line, p)
		}
	}
}

// TestLockedAccounts: as in sshd without PAM.
func TestLockedAccounts(t *testing.T) {
	now := time.Unix(20_000*86400, 0)
	for _, c := range []struct {
		password, shadow string
		ok               bool
	}{
		{"x", "a:$6$salt$hash:19000:0:99999:7:::", true},
		{"x", "a:*:19000:0:99999:7:::", true},
		{"x", "a:!:19000:0:99999:7:::", false},
		{"x", "a:!!:19000:0:99999:7:::", false},
		{"x", "a:!$6$salt$hash:19000:0:99999:7:::", false},
		{"x", "a:*:19000:0:99999:7::19999:", false},
		{"x", "a:*:19000:0:99999:7::20000:", true},
		{"x", "", true},
		{"!", "", false},
	} {
		if err := loginAllowed(passwdEntry{password: c.password}, c.shadow, now); (err == nil) != c.ok {
			t.Errorf("%q %q: %v", c.password, c.shadow, err)
		}
	}
}

func TestShells(t *testing.T) {
	dir := t.TempDir()
	shell := func(name string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for file, ok := range map[string]bool{
		"":                      true,
		"/bin/sh":               true,
		shell("ash", 0o755):     true,
		shell("data", 0o644):    false,
		shell("nologin", 0o755): false,
		shell("false", 0o755):   false,
		dir:                     false,
		dir + "/absent":         false,
	} {
		if err := checkShell(file); (err == nil) != ok {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestStrictModes: a file of keys counts only if nobody else can have written
// it.
func TestStrictModes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const uid, other = 4001, 4002
	for _, c := range []struct {
		name  string
		spoil func(home string) error
		ok    bool
	}{
		{"as it should be", func(string) error { return nil }, true},
		{"root's file", func(home string) error { return os.Chown(home+"/.ssh/authorized_keys", 0, 0) }, true},
		{"root's directory", func(home string) error { return os.Chown(home+"/.ssh", 0, 0) }, true},
		{"another's file", func(home string) error { return os.Chown(home+"/.ssh/authorized_keys", other, other) }, false},
		{"another's .ssh", func(home string) error { return os.Chown(home+"/.ssh", other, other) }, false},
		{"another's home", func(home string) error { return os.Chown(home, other, other) }, false},
		{"the group may write the file", func(home string) error { return os.Chmod(home+"/.ssh/authorized_keys", 0o620) }, false},
		{"all may write the file", func(home string) error { return os.Chmod(home+"/.ssh/authorized_keys", 0o602) }, false},
		{"the group may write .ssh", func(home string) error { return os.Chmod(home+"/.ssh", 0o770) }, false},
		{"the group may write home", func(home string) error { return os.Chmod(home, 0o775) }, false},
		{"all may write home", func(home string) error { return os.Chmod(home, 0o757) }, false},
		{"home is for the group to read", func(home string) error { return os.Chmod(home, 0o750) }, true},
		{"above home all may write", func(home string) error { return os.Chmod(filepath.Dir(home), 0o777) }, true},
		{"no file", func(home string) error { return os.Remove(home + "/.ssh/authorized_keys") }, false},
		{"a directory", func(home string) error {
			return fmt.Errorf("%w%w", os.Remove(home+"/.ssh/authorized_keys"), os.Mkdir(home+"/.ssh/authorized_keys", 0o700))
		}, false},
		{"a link to another's file", func(home string) error {
			target := filepath.Join(filepath.Dir(home), "theirs")
			if err := os.WriteFile(target, []byte("x"), 0o600); err != nil {
				return err
			}
			os.Chown(target, other, other)
			os.Remove(home + "/.ssh/authorized_keys")
			return os.Symlink(target, home+"/.ssh/authorized_keys")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			home := newHome(t, uid, "keys")
			c.spoil(home)
			data, err := readKeys(filepath.Join(home, keyFiles[0]), passwdEntry{uid: uid, home: home})
			if (err == nil) != c.ok || c.ok && string(data) != "keys" {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

// newHome makes a home directory with a file of keys.
func newHome(t *testing.T, uid int, keys string) string {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	if err := os.MkdirAll(home+"/.ssh", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home+"/.ssh/authorized_keys", []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{home, home + "/.ssh", home + "/.ssh/authorized_keys"} {
		if err := os.Chown(file, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

func TestHomeInTree(t *testing.T) {
	for _, c := range []struct{ dir, home, want string }{
		{"/", "/home/alice", "/home/alice"},
		{"/home", "/home/alice", "/alice"},
		{"/home/alice", "/home/alice/", "/"},
		{"/home/ali", "/home/alice", "/"},
		{"/srv", "/home/alice", "/"},
	} {
		if got := (backendSpec{Kind: kindLocal, Path: c.dir}).homeInTree(c.home); got != c.want {
			t.Errorf("%s in %s is %q, want %q", c.home, c.dir, got, c.want)
		}
	}
	if got := (backendSpec{Kind: kindMem}).homeInTree("/home/alice"); got != "/" {
		t.Errorf("in memory: %q", got)
	}
}

// fakeAccounts has getent tell of accounts that are not there.
func fakeAccounts(t *testing.T, accounts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$2 $3\" in\n"
	for question, answer := range accounts {
		script += fmt.Sprintf("%q) echo %q;;\n", question, answer)
	}
	script += "*) exit 2;;\nesac\n"
	if err := os.WriteFile(filepath.Join(dir, "getent"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// TestSystemLogins has accounts log in with keys.
func TestSystemLogins(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	home := newHome(t, 4001, line+"\n")
	elsewhere := newHome(t, 4002, `from="192.0.2.0/24" `+line+"\n")
	entry := func(name string, uid int, home, shell string) string {
		return fmt.Sprintf("%s:x:%d:%d::%s:%s", name, uid, uid, home, shell)
	}
	fakeAccounts(t, map[string]string{
		"passwd alice":     entry("alice", 4001, home, "/bin/sh"),
		"initgroups alice": "alice     4100 4200",
		"passwd bob":       entry("bob", 4002, elsewhere, "/bin/sh"),
		"passwd locked":    entry("locked", 4001, home, "/bin/sh"),
		"shadow locked":    "locked:!:19000:0:99999:7:::",
		"passwd daemon":    entry("daemon", 4001, home, "/usr/sbin/nologin"),
		"passwd mallory":   entry("mallory", 4003, home, "/bin/sh"), // another's home
		"passwd 4001":      entry("alice", 4001, home, "/bin/sh"),
		"passwd -s":        entry("-s", 4001, home, "/bin/sh"),
	})
	s := &systemLogins{noLogin: filepath.Join(t.TempDir(), "nologin")}
	from := &net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 1}
	for name, ok := range map[string]bool{
		"alice": true, "bob": false, "locked": false, "daemon": false, "mallory": false,
		"4001": false, "-s": false, "nobody-here": false, "": false, "alice:x": false, "../alice": false,
	} {
		if err := s.check(t.Context(), name, key, from); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := s.check(t.Context(), "bob", key, &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 1}); err != nil {
		t.Errorf("bob from where he may come: %v", err)
	}
	if err := os.WriteFile(s.noLogin, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.check(t.Context(), "alice", key, from); err == nil {
		t.Error("a login while there is /etc/nologin")
	}
	realm := homeRealm{&userList{system: true, accounts: newAccounts()}, backendSpec{Kind: kindLocal, Path: filepath.Dir(home)}}
	a, err := realm.AvatarByName("alice")
	if err != nil || a.Cred.UID != 4001 || fmt.Sprint(a.Cred.Groups) != "[4100 4200]" || a.Home != "/home" {
		t.Errorf("alice is %+v, %v", a, err)
	}
	if a, err := realm.AvatarByName("nobody-here"); err == nil {
		t.Errorf("nobody is %+v", a)
	}
}

package main

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A testAccount is an account of this machine that is there for one test.
type testAccount struct {
	name, home string
	uid, gid   int
	key        keyPair
}

// admin changes the accounts of this machine. Others may just do so, too.
func admin(t *testing.T, name string, args ...string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.Command(name, args...).CombinedOutput()
		switch {
		case err == nil:
			return
		case !strings.Contains(string(out), "try again") || time.Now().After(end):
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
		}
	}
}

// needAccounts skips a test where no accounts can be made.
func needAccounts(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to make accounts")
	}
	for _, program := range []string{"useradd", "userdel", "groupadd", "groupdel", "sftp"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
}

// randomName is the name of an account or group that nobody has.
func randomName(t *testing.T) string {
	t.Helper()
	b := make([]byte, 6)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return "sfbtest" + hex.EncodeToString(b)
}

// newGroup makes a group and returns its name.
func newGroup(t *testing.T) (name string, gid int) {
	t.Helper()
	name = randomName(t)
	admin(t, "groupadd", name)
	t.Cleanup(func() { admin(t, "groupdel", name) })
	g, err := user.LookupGroup(name)
	if err == nil {
		gid, err = strconv.Atoi(g.Gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name, gid
}

// newAccount makes an account with a key, and its home in dir.
func newAccount(t *testing.T, dir string, flags ...string) testAccount {
	t.Helper()
	a := testAccount{name: randomName(t), key: newKey(t)}
	a.home = filepath.Join(dir, a.name)
	admin(t, "useradd", append(flags, "--no-create-home", "--user-group", "--home-dir", a.home, "--shell", "/bin/sh", a.name)...)
	t.Cleanup(func() { admin(t, "userdel", a.name) })
	u, err := user.Lookup(a.name)
	if err != nil {
		t.Fatal(err)
	}
	a.uid, _ = strconv.Atoi(u.Uid)
	a.gid, _ = strconv.Atoi(u.Gid)
	public, err := os.ReadFile(a.key.public)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(a.home, ".ssh", "authorized_keys")
	a.make(t, filepath.Dir(keys), "", 0o700)
	a.make(t, keys, string(public), 0o600)
	return a
}

// make makes a file of the account, or a directory if it has no content.
func (a testAccount) make(t *testing.T, file, content string, mode os.FileMode) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil && content == "" {
		err = os.MkdirAll(file, mode)
	} else if err == nil {
		err = os.WriteFile(file, []byte(content), mode)
	}
	for f := file; err == nil && strings.HasPrefix(f, a.home); f = filepath.Dir(f) {
		err = os.Chown(f, a.uid, a.gid)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sftp runs commands in OpenSSH's client as the account, and returns what it
// says and whether all of them succeeded.
func (a testAccount) sftp(t *testing.T, addr, commands string) (string, bool) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sftp", "-F", "none", "-b", "-", "-P", port, "-i", a.key.private,
		"-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "PreferredAuthentications=publickey",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
		a.name+"@"+host)
	cmd.Stdin = strings.NewReader(commands)
	cmd.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(cmd.Dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// TestAccounts has accounts of this machine log in with OpenSSH's client at
// the whole command, and use a directory with their own rights, whoever enforces them.
func TestAccounts(t *testing.T) {
	needAccounts(t)
	dir, err := os.MkdirTemp("", "sftpbridge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	team, teamID := newGroup(t)
	alice := newAccount(t, dir, "--password", "*", "--groups", team)
	bob := newAccount(t, dir, "--password", "*")
	locked := newAccount(t, dir) // has "!" for a password
	open := newAccount(t, dir, "--password", "*")
	if err := os.Chmod(filepath.Join(open.home, ".ssh"), 0o777); err != nil {
		t.Fatal(err)
	}
	bob.make(t, filepath.Join(bob.home, "secret"), "secret", 0o600)
	bob.make(t, filepath.Join(bob.home, "public"), "public", 0o644)
	shared := filepath.Join(dir, "shared")
	if err := os.Mkdir(shared, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(shared, 0, teamID); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, os.ModeSetgid|0o770); err != nil {
		t.Fatal(err)
	}
	for _, enforce := range []string{"tree", "kernel"} {
		t.Run(enforce, func(t *testing.T) {
			p := start(t, "serve", "--users", "system", "--enforce", enforce, "--listen", "127.0.0.1:0",
				"--host-key", filepath.Join(t.TempDir(), "host_key"), dir)
			addr := p.line("serving ")
			addr = addr[strings.LastIndex(addr, " on ")+4:]
			for _, c := range []struct {
				who      testAccount
				commands string
				ok       bool
				says     string
			}{
				{alice, "pwd\n", true, "/" + alice.name + "\n"},
				{alice, "put file\nchmod 640 file\nmkdir d\nput file d/file\n", true, ""},
				{alice, "put file ../shared/file\n", true, ""},
				{alice, "get ../" + bob.name + "/public\n", true, ""},
				{alice, "get ../" + bob.name + "/secret\n", false, "Permission denied"},
				{alice, "put file ../" + bob.name + "/file\n", false, "Permission denied"},
				{alice, "rm ../" + bob.name + "/public\n", false, "Permission denied"},
				{alice, "chmod 666 ../" + bob.name + "/public\n", false, "denied"},
				{alice, "put file ../file\n", false, "Permission denied"},
				{alice, "chown " + strconv.Itoa(bob.uid) + " file\n", false, "denied"},
				{alice, "chgrp " + strconv.Itoa(teamID) + " file\n", true, ""},
				{bob, "get ../shared/file\n", false, "not found"},
				{bob, "get secret\nget ../" + alice.name + "/d/file\n", true, ""},
				{locked, "pwd\n", false, "Permission denied (publickey)"},
				{open, "pwd\n", false, "Permission denied (publickey)"},
			} {
				said, ok := c.who.sftp(t, addr, c.commands)
				if ok != c.ok || !strings.Contains(said, c.says) {
					t.Errorf("%q: success %v, want %v; it says\n%s", c.commands, ok, c.ok, said)
				}
			}
			for file, want := range map[string]struct {
				gid  int
				mode os.FileMode
			}{
				alice.home + "/file":   {teamID, 0o640},
				alice.home + "/d":      {alice.gid, os.ModeDir | 0o755},
				alice.home + "/d/file": {alice.gid, 0o644},
				shared + "/file":       {teamID, 0o644},
			} {
				fi, err := os.Lstat(file)
				if err != nil {
					t.Error(err)
					continue
				}
				st := fi.Sys().(*syscall.Stat_t)
				if int(st.Uid) != alice.uid || int(st.Gid) != want.gid || fi.Mode() != want.mode {
					t.Errorf("%s is of %d:%d with mode %v, want %d:%d with %v", file, st.Uid, st.Gid, fi.Mode(), alice.uid, want.gid, want.mode)
				}
			}
			for _, file := range []string{alice.home + "/file", alice.home + "/d", shared + "/file"} {
				if err := os.RemoveAll(file); err != nil {
					t.Error(err)
				}
			}
			p.stop()
		})
	}
}

package sftpsrv

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A client is a test's server and what its programs need to reach it.
type client struct {
	*testServer
	dir    string // of the client's own files
	config string // of ssh, with the host "srv"
}

func newClient(t *testing.T, parallel bool) *client {
	t.Helper()
	c := &client{dir: t.TempDir()}
	key := writeKey(t, c.dir+"/key")
	c.testServer = startServer(t, func(cfg *Config) {
		newSession := cfg.NewSession
		cfg.NewSession = func(ctx context.Context, info SessionInfo) (Session, error) {
			s, err := newSession(ctx, info)
			s.Options.Parallel = parallel
			return s, err
		}
	})
	c.allowed = key.PublicKey()
	c.config = c.dir + "/config"
	must(t, os.WriteFile(c.config, fmt.Appendf(nil, `Host srv
HostName 127.0.0.1
Port %d
User u
IdentityFile %s/key
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
`, c.addr.Port, c.dir), 0o600))
	return c
}

// run runs a program in the client's directory, and returns what it prints.
func (c *client) run(stdin, name string, args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.dir
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "LC_ALL=C", "TZ=UTC")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, out, c.logged())
	}
	return string(out)
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// random makes a file of n bytes that are the same each time.
func random(t *testing.T, path string, n int) {
	t.Helper()
	data := make([]byte, n)
	rand.New(rand.NewSource(1)).Read(data)
	must(t, os.WriteFile(path, data, 0o644))
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	must(t, err)
	y, err := os.ReadFile(b)
	must(t, err)
	if !bytes.Equal(x, y) {
		t.Errorf("%s (%d bytes) and %s (%d bytes) differ", a, len(x), b, len(y))
	}
}

func eachClient(t *testing.T, program string, f func(t *testing.T, c *client)) {
	need(t, program)
	for name, parallel := range map[string]bool{"serial": false, "parallel": true} {
		t.Run(name, func(t *testing.T) { f(t, newClient(t, parallel)) })
	}
}

func TestOpenSSHClient(t *testing.T) {
	eachClient(t, "sftp", func(t *testing.T, c *client) {
		random(t, c.dir+"/big", 5<<20+17)
		out := c.run(`pwd
put big
get big back
mkdir d
put big d/copy
rename d/copy d/moved
ln -s moved d/sym
ln d/moved d/hard
chmod 600 d/hard
ls -l d
ls -ln d
df
cp d/moved d/third
rm d/hard
put -f big flushed
reget big back
!mkdir out
get -r d out
rm flushed
`, "sftp", "-F", c.config, "-b", "-", "srv")
		sameFiles(t, c.dir+"/big", c.dir+"/back")
		sameFiles(t, c.dir+"/big", c.home+"/d/third")
		sameFiles(t, c.dir+"/big", c.dir+"/out/d/moved")
		if target, err := os.Readlink(c.home + "/d/sym"); err != nil || target != "moved" {
			t.Errorf("the link holds %q, %v", target, err)
		}
		if !strings.Contains(out, "-rw-------    ? root     root      5242897 ") {
			t.Errorf("the mode or the size is wrong in\n%s", out)
		}
	})
}

func TestSCP(t *testing.T) {
	eachClient(t, "scp", func(t *testing.T, c *client) {
		must(t, os.MkdirAll(c.dir+"/tree/sub", 0o755))
		random(t, c.dir+"/tree/a", 300000)
		random(t, c.dir+"/tree/sub/b", 1)
		c.run("", "scp", "-s", "-p", "-r", "-F", c.config, "tree", "srv:")
		c.run("", "scp", "-s", "-r", "-F", c.config, "srv:tree", "back")
		sameFiles(t, c.dir+"/tree/a", c.dir+"/back/a")
		sameFiles(t, c.dir+"/tree/sub/b", c.home+"/tree/sub/b")
	})
}

func TestParamiko(t *testing.T) {
	need(t, "python3")
	if exec.Command("python3", "-c", "import paramiko").Run() != nil {
		t.Skip("paramiko is not installed")
	}
	eachClient(t, "python3", func(t *testing.T, c *client) {
		random(t, c.dir+"/big", 3<<20)
		script := `
import paramiko, sys, stat
t = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
t.connect(username="u", pkey=paramiko.Ed25519Key.from_private_key_file("key"))
s = paramiko.SFTPClient.from_transport(t)
s.put("big", "up")                      # compares sizes
s.get("up", "down")                     # with prefetch
s.mkdir("d", 0o750)
assert stat.S_IMODE(s.stat("d").st_mode) == 0o750
s.symlink("target", "d/link")
assert s.readlink("d/link") == "target", s.readlink("d/link")
s.posix_rename("up", "d/up")
try:
    s.stat("up")
    assert False
except FileNotFoundError:
    pass
with s.open("d/app", "a") as f:
    f.write("one")
with s.open("d/app", "a") as f:
    f.write("two")
with s.open("d/app", "r+") as f:
    f.truncate(4)
    assert f.stat().st_size == 4
    assert f.read() == b"onet"
s.utime("d/app", (5, 6))
assert s.stat("d/app").st_mtime == 6
assert sorted(s.listdir("d")) == ["app", "link", "up"]
assert s.normalize(".") == sys.argv[2], s.normalize(".")
t.close()
`
		c.run(script, "python3", "-", fmt.Sprint(c.addr.Port), c.home)
		sameFiles(t, c.dir+"/big", c.dir+"/down")
	})
}

func TestLFTP(t *testing.T) {
	eachClient(t, "lftp", func(t *testing.T, c *client) {
		must(t, os.MkdirAll(c.dir+"/tree/sub", 0o755))
		random(t, c.dir+"/tree/a", 2<<20)
		random(t, c.dir+"/tree/sub/b", 100)
		c.run(fmt.Sprintf(`set sftp:connect-program "ssh -F %s -a -x"
open sftp://u:@srv
mirror -R tree up
mirror up down
mv up/a up/c
ls -l up
`, c.config), "lftp", "--norc", "-f", "/dev/stdin")
		sameFiles(t, c.dir+"/tree/a", c.dir+"/down/a")
		sameFiles(t, c.dir+"/tree/sub/b", c.home+"/up/sub/b")
		sameFiles(t, c.dir+"/tree/a", c.home+"/up/c")
	})
}

func TestRclone(t *testing.T) {
	eachClient(t, "rclone", func(t *testing.T, c *client) {
		must(t, os.MkdirAll(c.dir+"/tree/sub", 0o755))
		for i := range 20 {
			random(t, fmt.Sprintf("%s/tree/sub/%d", c.dir, i), i*10000)
		}
		remote := fmt.Sprintf(":sftp,host=127.0.0.1,port=%d,user=u,key_file=%s/key:", c.addr.Port, c.dir)
		c.run("", "rclone", "--config", "/dev/null", "sync", "tree", remote+"up")
		c.run("", "rclone", "--config", "/dev/null", "check", "--download", "tree", remote+"up")
		c.run("", "rclone", "--config", "/dev/null", "move", remote+"up/sub", remote+"moved")
		sameFiles(t, c.dir+"/tree/sub/19", c.home+"/moved/19")
	})
}

func TestSSHFS(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no /dev/fuse")
	}
	eachClient(t, "sshfs", func(t *testing.T, c *client) {
		m := filepath.Join(c.dir, "m")
		must(t, os.Mkdir(m, 0o755))
		c.run("", "sshfs", "-F", c.config, "srv:", m)
		defer exec.Command("umount", "-l", m).Run()
		c.run(`set -eu
cd m
dd if=/dev/urandom of=big bs=100k count=30 2>/dev/null
cp big copy
cmp big copy
mkdir -p a/b/c
for i in $(seq 120); do echo $i > a/b/c/$i; done
test "$(ls a/b/c | wc -l)" = 120
test "$(cat a/b/c/*[0-9] | sort -n | tail -1)" = 120
mv copy a/copy
mv big a/copy # replaces
ln -s copy a/link
cmp a/link a/copy
ln a/copy a/hard
chmod 640 a/copy
test "$(stat -c %a a/copy)" = 640
truncate -s 1000 a/copy
test "$(stat -c %s a/copy)" = 1000
echo more >> a/copy
test "$(tail -c 5 a/copy)" = more
df . > /dev/null
rm -r a/b
rmdir x 2>/dev/null && exit 1
ls -la a
`, "sh")
	})
}

// TestOpenSSHLogins has OpenSSH log in with all of its kinds of keys.
func TestOpenSSHLogins(t *testing.T) {
	need(t, "ssh-keygen")
	c := newClient(t, false)
	for kind, bits := range map[string]string{"ed25519": "256", "ecdsa": "256", "rsa": "2048"} {
		key := c.dir + "/" + kind
		c.run("", "ssh-keygen", "-q", "-N", "", "-t", kind, "-b", bits, "-f", key)
		pub, err := os.ReadFile(key + ".pub")
		must(t, err)
		c.allowed, _, _, _, err = ssh.ParseAuthorizedKey(pub)
		must(t, err)
		c.run("pwd\n", "sftp", "-F", c.config, "-o", "IdentityFile=none", "-i", key, "-b", "-", "srv")
	}
}

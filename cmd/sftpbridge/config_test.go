package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sftpbridge/bridge"
)

const minimal = "trees:\n  - backend: \"mem:\"\n    mount:\n      - dir: /mnt\n"

func TestExampleConfig(t *testing.T) {
	p, err := loadConfig("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.trees) != 2 || len(p.users.listed) != 2 {
		t.Fatalf("%d trees and %d users, want 2 and 2", len(p.trees), len(p.users.listed))
	}
	alice := p.users.find("alice")
	if alice.avatar.Umask != 0o027 || alice.avatar.Cred.UID != 1000 || alice.avatar.Cred.Groups[0] != 100 {
		t.Errorf("alice is %+v", alice.avatar)
	}
	if !verifyPassword(alice.passwordHash, []byte("example")) {
		t.Error("the hash in the example is not that of the password it names")
	}
	up := p.trees[1]
	if up.upstream.timeout != 30*time.Second || up.options.CacheSize != 160<<20 || up.options.AttrTimeout != time.Second {
		t.Errorf("upstream is %+v", up)
	}
	if len(up.servers[0].users.listed) != 1 {
		t.Errorf("the second server has %d users, want 1", len(up.servers[0].users.listed))
	}
	if got := p.users.find("auditor").avatar.Rules; len(got) != 2 || got[1].Ops != bridge.OpAll || got[1].Allow {
		t.Errorf("the auditor's rules are %+v", got)
	}
}

func TestConfigErrors(t *testing.T) {
	user := "users:\n  - name: u\n    uid: 1\n    gid: 1\n"
	tests := []struct {
		name, in string
		want     string // place and the beginning of the message
	}{
		{"syntax", "trees: [", "c.yaml:1:8: "},
		{"unknown key", minimal + "    mont: 1\n", `c.yaml:5:5: unknown field "mont"`},
		{"unknown key at the top", "tree: []\n", `c.yaml:1:1: unknown field "tree"`},
		{"type", "trees:\n  - backend: [1]\n", "c.yaml:2:14: "},
		{"type of a number", user + "    groups: [x]\n" + minimal, "c.yaml:5:14: "},
		{"twice", minimal + "trees: []\n", "c.yaml:5:1: "},
		{"empty", "", "c.yaml:1:1: trees: no trees"},
		{"backend", "trees:\n  - backend: s3://x\n    mount: [{dir: /m}]\n", "c.yaml:2:14: trees[0].backend: backend \"s3://x\": unknown scheme"},
		{"no door", "trees:\n  - name: a\n    backend: \"mem:\"\n", "c.yaml:2:5: trees[0]: no door"},
		{"duration", minimal + "    attr_timeout: 5\n", "c.yaml:5:19: trees[0].attr_timeout: bad duration"},
		{"negative", minimal + "    attr_timeout: -5s\n", "c.yaml:5:19: trees[0].attr_timeout: negative"},
		{"size", minimal + "    cache_size: 5X\n", "c.yaml:5:17: trees[0].cache_size: bad size"},
		{"log level", "log:\n  level: loud\n" + minimal, "c.yaml:2:10: log.level: unknown log level"},
		{"log format", "log: {format: xml}\n" + minimal, "c.yaml:1:15: log.format: "},
		{"listen", "trees:\n  - backend: \"mem:\"\n    sftp:\n      - listen: nowhere\n", "c.yaml:4:17: trees[0].sftp[0].listen: bad address"},
		{"nobody", "trees:\n  - backend: \"mem:\"\n    sftp:\n      - listen: :22\n", "c.yaml:4:9: trees[0].sftp[0]: nobody can log in"},
		{"unknown user", "trees:\n  - backend: \"mem:\"\n    sftp:\n      - listen: :22\n        users: [x]\n", "c.yaml:5:16: trees[0].sftp[0].users: no user \"x\""},
		{"mount twice", minimal + "      - dir: /mnt\n", "c.yaml:5:14: trees[0].mount[1].dir: /mnt is mounted on twice"},
		{"mount for whom", user + minimal + "        user: u\n        allow_other: true\n", "c.yaml:9:15: trees[0].mount[0].user: "},
		{"user twice", user + "  - name: u\n" + minimal, "c.yaml:5:11: users[1].name: a second user"},
		{"no uid", "users:\n  - name: nobody-of-that-name\n" + minimal, "c.yaml:2:5: users[0]: no uid"},
		{"umask", user + "    umask: \"89\"\n" + minimal, "c.yaml:5:12: users[0].umask: bad umask"},
		{"root", user + "    root: ../x\n" + minimal, "c.yaml:5:11: users[0].root: "},
		{"keys", user + "    authorized_keys: [/does/not/exist]\n" + minimal, "c.yaml:5:23: users[0].authorized_keys[0]: "},
		{"password", user + "    password_hash: secret\n" + minimal, "c.yaml:5:20: users[0].password_hash: not a password hash"},
		{"rule of nothing", user + "    rules: [{path: /x}]\n" + minimal, "c.yaml:5:13: users[0].rules[0]: "},
		{"rule of both", user + "    rules:\n      - path: /x\n        allow: [read]\n        deny: [read]\n" + minimal, "c.yaml:6:9: users[0].rules[0]: "},
		{"rule's operation", user + "    rules: [{path: /x, deny: [fly]}]\n" + minimal, "c.yaml:5:30: users[0].rules[0].deny: unknown operation"},
		{"rule's path", user + "    rules: [{path: x, deny: [read]}]\n" + minimal, "c.yaml:5:20: users[0].rules[0].path: "},
		{"two documents", minimal + "---\n" + minimal, "c.yaml:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseConfig("c.yaml", []byte(test.in))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("got %v, want %s…", err, test.want)
			}
		})
	}
}

func TestConfigTellsOfAllProblems(t *testing.T) {
	in := "log: {level: x}\ntrees:\n  - backend: y\n    mount: [{dir: /m}]\n    attr_timeout: z\n"
	_, err := parseConfig("c.yaml", []byte(in))
	if err == nil || strings.Count(err.Error(), "c.yaml:") != 3 {
		t.Errorf("got %v, want three problems", err)
	}
}

func TestConfigUmask(t *testing.T) {
	for _, text := range []string{"027", `"027"`, "0o027", "'27'", "27 # so"} {
		in := "users:\n  - {name: u, uid: 1, gid: 1, umask: " + text + "\n  }\n" + minimal
		p, err := parseConfig("c.yaml", []byte(in))
		if err != nil {
			t.Errorf("umask %s: %v", text, err)
			continue
		}
		if got := p.users.find("u").avatar.Umask; got != 0o027 {
			t.Errorf("umask %s is %04o, want 0027", text, got)
		}
	}
}

func TestCheckCommand(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.yaml")
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	for file, content := range map[string]string{good: minimal, bad: "trees: 5\n"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := command("check", "--config", good); code != exitOK {
		t.Errorf("exit %d of a good file: %s", code, stderr)
	}
	if code, _, stderr := command("check", "--config", bad); code != exitFailure || !strings.Contains(stderr, bad+":1:8: ") {
		t.Errorf("exit %d of a bad file: %s", code, stderr)
	}
	if code, _, _ := command("check"); code != exitUsage {
		t.Errorf("exit %d without a file, want %d", code, exitUsage)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(minimal))
	example, err := os.ReadFile("example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("users:\n- name: a\n  rules:\n  - path: /**\n    deny: [all]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parseConfig("c.yaml", data)
		if err == nil && len(p.trees) == 0 {
			t.Error("no trees and no error")
		}
		if err != nil && !strings.HasPrefix(err.Error(), "c.yaml:") {
			t.Errorf("an error without a place: %v", err)
		}
	})
}

package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
)

// reexecEnv has the test binary be the command.
const reexecEnv = "SFTPBRIDGE_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(reexecEnv) != "" {
		main()
	}
	os.Exit(m.Run())
}

// command runs the command in this process.
func command(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(context.Background(), append([]string{"sftpbridge"}, args...), strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

func TestExitCodes(t *testing.T) {
	tests := []struct {
		args   string
		code   int
		stderr string
	}{
		{"", exitUsage, "no command"},
		{"fly", exitUsage, `unknown command "fly"`},
		{"version", exitOK, ""},
		{"version now", exitUsage, "unexpected argument"},
		{"--help", exitOK, ""},
		{"serve", exitUsage, "no BACKEND"},
		{"serve a:b c:d", exitUsage, "unexpected argument"},
		{"serve nonsense", exitUsage, "BACKEND is"},
		{"serve --fly mem:", exitUsage, "unknown flag"},
		{"serve --allow-other mem: --authorized-keys /dev/null", exitUsage, "--mount"},
		{"serve mem: --authorized-keys /does/not/exist", exitFailure, "/does/not/exist"},
		{"serve --user no-such-account mem:", exitFailure, "no-such-account"},
		{"mount mem:", exitUsage, "no DIR"},
		{"mount mem: /does/not/exist", exitFailure, "/does/not/exist"},
		{"mount -o fly mem: /tmp", exitUsage, `unknown option "fly"`},
		{"mount -o port=x mem: /tmp", exitUsage, `option "port=x"`},
		{"mount -o identity mem: /tmp", exitUsage, "unknown option"},
		{"mount --attr-timeout soon mem: /tmp", exitUsage, "bad duration"},
		{"run", exitUsage, "no --config"},
		{"run --config /does/not/exist", exitFailure, "/does/not/exist"},
		{"sftp-server", exitUsage, "no BACKEND"},
		{"sftp-server /does/not/exist", exitFailure, "/does/not/exist"},
		{"hash-password", exitFailure, "no password"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			code, _, stderr := command(strings.Fields(test.args)...)
			if code != test.code || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit %d and %q, want %d and %q", code, stderr, test.code, test.stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	if _, out, _ := command("version"); !strings.HasPrefix(out, "sftpbridge ") {
		t.Errorf("version says %q", out)
	}
}

func TestCompletion(t *testing.T) {
	if code, out, _ := command("completion", "bash"); code != exitOK || !strings.Contains(out, "sftpbridge") {
		t.Errorf("exit %d, %d bytes", code, len(out))
	}
}

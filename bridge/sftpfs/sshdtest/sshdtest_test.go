package sshdtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestServer(t *testing.T) {
	s := Start(t)
	if err := os.WriteFile(filepath.Join(s.Dir, "hello"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time after a restart
		cmd := exec.Command("sftp", "-q", "-b", "-", "-F", "none", "-i", s.KeyFile, "-P", strconv.Itoa(s.Port),
			"-o", "UserKnownHostsFile="+s.KnownHosts, "-o", "StrictHostKeyChecking=yes", s.User+"@127.0.0.1")
		cmd.Stdin = strings.NewReader("ls -1 " + s.Dir + "\n")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "hello") {
			t.Fatalf("sftp: %v\n%s", err, out)
		}
		s.Stop()
		s.Run()
	}
}

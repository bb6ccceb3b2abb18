package fusefs_test

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

func TestPosixMemory(t *testing.T) {
	testPosix(t, func(*testing.T) config { return config{} })
}

func TestPosixLocal(t *testing.T) {
	testPosix(t, func(t *testing.T) config { return config{Local: t.TempDir()} })
}

func testPosix(t *testing.T, conf func(*testing.T) config) {
	s := start(t, conf(t))
	for name, f := range posixtest.All {
		if name == "FcntlFlockLocksFile" {
			// It wants two locks of fcntl(2) of one process to be in
			// conflict, which they are on no file system of Linux.
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := s.path(name)
			if out := s.do("mkdir", "/"+name); out != "" {
				t.Fatal(out)
			}
			f(t, dir)
		})
	}
}

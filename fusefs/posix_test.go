package fusefs_test

import (
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

func TestPosixMemory(t *testing.T) {
	testPosix(t, func(*testing.T) config { return config{} })
}

func TestPosixLocal(t *testing.T) {
	testPosix(t, func(t *testing.T) config { return config{Local: t.TempDir()} })
}

func TestPosixRemote(t *testing.T) {
	needUpstream(t)
	testPosix(t, func(t *testing.T) config { return config{Remote: t.TempDir()} }, "Fallocate", "FallocateKeepSize")
}

func testPosix(t *testing.T, conf func(*testing.T) config, without ...string) {
	s := start(t, conf(t))
	for name, f := range posixtest.All {
		// FcntlFlockLocksFile wants two locks of fcntl(2) of one process to
		// be in conflict, which they are on no file system of Linux.
		if name == "FcntlFlockLocksFile" || slices.Contains(without, name) {
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

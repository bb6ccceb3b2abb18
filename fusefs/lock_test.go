package fusefs_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tryLock takes a write lock of fcntl(2) on the first byte without waiting.
func tryLock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Len: 1})
}

// waitLock takes a write lock of fcntl(2) on the first byte.
func waitLock(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return syscall.FcntlFlock(f.Fd(), syscall.F_SETLKW, &syscall.Flock_t{Type: syscall.F_WRLCK, Len: 1})
}

func TestWaitForALockCanBeKilled(t *testing.T) {
	s := start(t, config{})
	path := s.path("f")
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK, Len: 1}))
	cmd := self(t, "lockwait", path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer cmd.Process.Kill()
	line := make([]byte, 8)
	_, err = out.Read(line) // it is about to wait
	must(t, err)
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(deadline):
		t.Fatal("it still waits")
	}
	must(t, f.Close())
	must(t, tryLock(path))
}

// self runs a helper (see child) as the present user.
func self(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(childEnviron(), childEnv+"=1")
	return cmd
}

func TestLocksBetweenProcesses(t *testing.T) {
	s := start(t, config{})
	path := s.path("f")
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	try := func() string {
		out, err := self(t, "lock", path).CombinedOutput()
		must(t, err)
		return strings.TrimSpace(string(out))
	}
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Len: 1}
	must(t, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock))
	if got := try(); got != syscall.EAGAIN.Error() {
		t.Errorf("while locked: %s", got)
	}
	lock.Type = syscall.F_UNLCK
	must(t, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock))
	if got := try(); got != "OK" {
		t.Errorf("after unlock: %s", got)
	}
	// Closing any descriptor of the process gives the lock back.
	lock.Type = syscall.F_WRLCK
	must(t, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock))
	g, err := os.Open(path)
	must(t, err)
	g.Close()
	if got := try(); got != "OK" {
		t.Errorf("after close of another descriptor: %s", got)
	}
	// A lock that is waited for is got.
	must(t, syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock))
	got := make(chan error, 1)
	g, err = os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer g.Close()
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	go func() { got <- syscall.Flock(int(g.Fd()), syscall.LOCK_EX) }()
	wantErrno(t, "flock while locked", flockNow(path), syscall.EAGAIN)
	must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_UN))
	select {
	case err := <-got:
		must(t, err)
	case <-time.After(deadline):
		t.Fatal("the lock was not got")
	}
}

func flockNow(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
}

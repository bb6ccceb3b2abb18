package bridge_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// A kernelCall is a system call that a child process makes as some user.
type kernelCall struct {
	Op    string
	Path  string
	Path2 string
	A, B  int64
}

// A kernelAnswer is what came of it.
type kernelAnswer struct {
	Errno syscall.Errno
	Text  string // what a link holds
	Stat  *unix.Stat_t
}

// A kernelUser says as whom a child process runs, and what its root is.
type kernelUser struct {
	Root string
	Cred bridge.Cred
}

// become makes the process one of the user.
func (u kernelUser) become() error {
	unix.Umask(0)
	if u.Root != "" {
		if err := errors.Join(unix.Chroot(u.Root), unix.Chdir("/")); err != nil {
			return err
		}
	}
	groups := make([]int, len(u.Cred.Groups))
	for i, g := range u.Cred.Groups {
		groups[i] = int(g)
	}
	return errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(u.Cred.GID)), syscall.Setuid(int(u.Cred.UID)))
}

func (kc kernelCall) do() (answer kernelAnswer, err error) {
	mode := uint32(kc.A)
	stat := func(flags int) error {
		answer.Stat = new(unix.Stat_t)
		return unix.Fstatat(unix.AT_FDCWD, kc.Path, answer.Stat, flags)
	}
	switch kc.Op {
	case "access":
		err = unix.Access(kc.Path, mode)
	case "stat":
		err = stat(0)
	case "lstat":
		err = stat(unix.AT_SYMLINK_NOFOLLOW)
	case "readlink":
		buf := make([]byte, bridge.PathMax)
		n := 0
		if n, err = unix.Readlink(kc.Path, buf); err == nil {
			answer.Text = string(buf[:n])
		}
	case "unlink":
		err = unix.Unlink(kc.Path)
	case "rmdir":
		err = unix.Rmdir(kc.Path)
	case "link":
		err = unix.Link(kc.Path, kc.Path2)
	case "symlink":
		err = unix.Symlink(kc.Path2, kc.Path)
	case "rename":
		err = unix.Renameat2(unix.AT_FDCWD, kc.Path, unix.AT_FDCWD, kc.Path2, uint(kc.A))
	case "chmod":
		err = unix.Chmod(kc.Path, mode)
	case "chown":
		err = unix.Chown(kc.Path, int(kc.A), int(kc.B))
	case "lchown":
		err = unix.Lchown(kc.Path, int(kc.A), int(kc.B))
	case "truncate":
		err = unix.Truncate(kc.Path, kc.A)
	case "utimes": // nanoseconds of atime and mtime, or UTIME_NOW and UTIME_OMIT
		err = unix.UtimesNanoAt(unix.AT_FDCWD, kc.Path, []unix.Timespec{{Nsec: kc.A}, {Nsec: kc.B}}, 0)
	case "open": // flags, mode; writes a byte if it can
		err = kc.open(int(kc.A), uint32(kc.B))
	case "mkdir":
		err = unix.Mkdir(kc.Path, mode)
	default:
		err = fmt.Errorf("no operation %q", kc.Op)
	}
	return answer, err
}

func (kc kernelCall) open(flags int, mode uint32) error {
	fd, err := unix.Open(kc.Path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, mode)
	if err != nil {
		return err
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY {
		_, err = unix.Write(fd, []byte("x"))
	}
	return errors.Join(err, unix.Close(fd))
}

// TestKernelChild is no test but the child process: it becomes the user that
// it is told, and makes the calls that it reads, as long as there are any.
func TestKernelChild(t *testing.T) {
	if os.Getenv("BRIDGE_KERNEL_CHILD") == "" {
		t.Skip("only for tests that compare with the kernel")
	}
	dec := json.NewDecoder(os.Stdin)
	enc := json.NewEncoder(os.NewFile(3, "answers"))
	var u kernelUser
	if err := errors.Join(dec.Decode(&u), u.become()); err != nil {
		t.Fatal(err)
	}
	for {
		var calls []kernelCall
		if dec.Decode(&calls) != nil {
			return
		}
		answers := make([]kernelAnswer, len(calls))
		for i, kc := range calls {
			var err error
			if answers[i], err = kc.do(); err != nil && !errors.As(err, &answers[i].Errno) {
				t.Fatal(err)
			}
			if err != nil {
				answers[i].Stat = nil
			}
		}
		if err := enc.Encode(answers); err != nil {
			t.Fatal(err)
		}
	}
}

// A kernelChild is a process that makes system calls as some user.
type kernelChild struct {
	t   *testing.T
	enc *json.Encoder
	dec *json.Decoder
}

// startKernelChild starts a process of the user u, which ends with the test.
func startKernelChild(t *testing.T, u kernelUser) *kernelChild {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	answers, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	cmd := exec.Command(exe, "-test.run=^TestKernelChild$")
	cmd.Dir = "/"
	cmd.Env = []string{"BRIDGE_KERNEL_CHILD=1", "GORACE=atexit_sleep_ms=0"}
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = &text, &text
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	w.Close()
	if err != nil {
		answers.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("child: %v\n%s", err, text.String())
		}
		answers.Close()
	})
	k := &kernelChild{t, json.NewEncoder(stdin), json.NewDecoder(answers)}
	if err := k.enc.Encode(u); err != nil {
		t.Fatal(err)
	}
	return k
}

// call makes the calls one after the other.
func (k *kernelChild) call(calls ...kernelCall) []kernelAnswer {
	k.t.Helper()
	var answers []kernelAnswer
	if err := errors.Join(k.enc.Encode(calls), k.dec.Decode(&answers)); err != nil {
		k.t.Fatal("child: ", err)
	}
	if len(answers) != len(calls) {
		k.t.Fatalf("%d answers to %d calls", len(answers), len(calls))
	}
	return answers
}

// kernelDir returns a new directory on a tmpfs, for everybody. It skips the test
// where there is none or the user is not root.
func kernelDir(t *testing.T) string {
	t.Helper()
	var st unix.Statfs_t
	if os.Getuid() != 0 || unix.Statfs("/dev/shm", &st) != nil || st.Type != unix.TMPFS_MAGIC {
		t.Skip("needs root, and a tmpfs at /dev/shm")
	}
	dir, err := os.MkdirTemp("/dev/shm", "bridge-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kernelProtected returns the protections that the kernel has, with which the
// rules are compared.
func kernelProtected(t *testing.T) bridge.Protected {
	t.Helper()
	value := func(name string) (n int) {
		text, err := os.ReadFile("/proc/sys/fs/protected_" + name)
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return bridge.Protected{Symlinks: value("symlinks") == 1, Hardlinks: value("hardlinks") == 1,
		Regular: value("regular"), FIFOs: value("fifos")}
}

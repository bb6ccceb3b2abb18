package doorstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A call is one operation on a path, as a system call or as SFTP requests.
type call struct {
	Op    string
	Path  string
	Path2 string `json:",omitempty"`
	A, B  int64
	Data  string `json:",omitempty"`
}

func (c call) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %#o %d %.20q", c.Op, c.Path, c.Path2, c.A, c.B, c.Data))
}

// under returns the call with its paths below base.
func (c call) under(base string) call {
	c.Path = base + "/" + c.Path
	if c.Path2 != "" && c.Op != "symlink" {
		c.Path2 = base + "/" + c.Path2
	}
	return c
}

// An answer is what came of a call.
type answer struct {
	Errno syscall.Errno
	Text  string
	Tree  []entry `json:",omitempty"`
}

// An entry is what a tree has at a path.
type entry struct {
	Path     string
	Mode     uint32
	UID, GID uint32
	Size     int64
	Nlink    uint64
	Text     string
}

// A user is somebody who makes calls.
type user struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32
}

// do makes the call as a system call.
func (c call) do() (a answer) {
	var err error
	switch c.Op {
	case "mkdir":
		err = unix.Mkdir(c.Path, uint32(c.A))
	case "rmdir":
		err = unix.Rmdir(c.Path)
	case "unlink":
		err = unix.Unlink(c.Path)
	case "link":
		err = unix.Link(c.Path, c.Path2)
	case "symlink":
		err = unix.Symlink(c.Path2, c.Path)
	case "rename":
		err = unix.Renameat2(unix.AT_FDCWD, c.Path, unix.AT_FDCWD, c.Path2, uint(c.A))
	case "chmod":
		err = unix.Chmod(c.Path, uint32(c.A))
	case "chown":
		err = unix.Chown(c.Path, int(c.A), int(c.B))
	case "truncate":
		err = unix.Truncate(c.Path, c.A)
	case "utimes":
		t := unix.Timespec{Sec: c.A}
		err = unix.UtimesNanoAt(unix.AT_FDCWD, c.Path, []unix.Timespec{t, t}, 0)
	case "readlink":
		a.Text, err = os.Readlink(c.Path)
	case "stat", "lstat":
		var e entry
		if e, err = stat(c.Path, c.Op == "stat"); err == nil {
			a.Text = e.statText()
		}
	case "list":
		a.Text, err = listDir(c.Path)
	case "open":
		a.Text, err = c.open()
	case "tree":
		a.Tree, err = treeOf(c.Path)
	default:
		err = fmt.Errorf("no operation %q", c.Op)
	}
	if err != nil && !errors.As(err, &a.Errno) {
		a.Errno, a.Text = syscall.EIO, err.Error()
	}
	return a
}

func (e entry) statText() string {
	size := e.Size
	if e.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		size = 0
	}
	return fmt.Sprintf("%o %d %d %d", e.Mode, e.UID, e.GID, size)
}

func stat(path string, follow bool) (entry, error) {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		flags = 0
	}
	var st unix.Stat_t
	if err := unix.Fstatat(unix.AT_FDCWD, path, &st, flags); err != nil {
		return entry{}, err
	}
	return entry{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Nlink: uint64(st.Nlink)}, nil
}

func listDir(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := dir.Readdirnames(0)
	slices.Sort(names)
	return strings.Join(names, " "), err
}

// open opens, writes Data at its beginning (or end, with O_APPEND) and reads
// what is in the file, as far as the flags let it.
func (c call) open() (string, error) {
	fd, err := unix.Open(c.Path, int(c.A)|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, uint32(c.B))
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), c.Path)
	defer f.Close()
	if int(c.A)&unix.O_ACCMODE != unix.O_RDONLY {
		if _, err := f.Write([]byte(c.Data)); err != nil {
			return "", err
		}
	}
	if int(c.A)&unix.O_ACCMODE == unix.O_WRONLY {
		return "", f.Close()
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	return string(data), errors.Join(err, f.Close())
}

// treeOf returns all that is below a directory.
func treeOf(root string) (tree []entry, err error) {
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		e, err := stat(path, false)
		if err != nil {
			return err
		}
		e.Path = strings.TrimPrefix(path, root)
		switch e.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.Text = string(data)
		case syscall.S_IFLNK:
			if e.Text, err = os.Readlink(path); err != nil {
				return err
			}
		case syscall.S_IFDIR:
			e.Size, e.Nlink = 0, 0
		}
		tree = append(tree, e)
		return nil
	})
	return tree, err
}

// A child is a process that makes system calls as some user.
type child struct {
	enc *json.Encoder
	dec *json.Decoder
}

const childEnv = "DOORSTEST_CHILD"

// TestMain runs the tests, or the calls of a child process.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(runTests(m))
	}
	if err := become(os.Getenv(childEnv)); err != nil {
		fmt.Fprintln(os.Stderr, "becoming another user:", err)
		os.Exit(1)
	}
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c call
		if dec.Decode(&c) != nil {
			return
		}
		if enc.Encode(c.do()) != nil {
			return
		}
	}
}

// become makes the process one of a user, which is written in JSON.
func become(as string) error {
	var u user
	if err := json.Unmarshal([]byte(as), &u); err != nil {
		return err
	}
	groups := make([]int, len(u.Groups))
	for i, g := range u.Groups {
		groups[i] = int(g)
	}
	unix.Umask(0)
	return errors.Join(syscall.Setgroups(groups), syscall.Setgid(int(u.GID)), syscall.Setuid(int(u.UID)))
}

// startChild starts a process of a user, which ends with the test.
func startChild(t *testing.T, u user) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	as, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), childEnv+"="+string(as))
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &child{json.NewEncoder(in), json.NewDecoder(out)}
}

func (c *child) call(t *testing.T, what call) answer {
	t.Helper()
	var a answer
	if err := errors.Join(c.enc.Encode(what), c.dec.Decode(&a)); err != nil {
		t.Fatalf("%v: the child process is gone: %v", what, err)
	}
	return a
}

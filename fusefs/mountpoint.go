package fusefs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prepareDir returns dir as an absolute path without symbolic links, having
// taken away dead mounts that lie on it.
func prepareDir(dir string, log *slog.Logger) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for range 16 { // dead mounts may be stacked
		var st unix.Stat_t
		st, err = statMount(dir)
		if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
			switch {
			case err != nil:
				return "", &os.PathError{Op: "mount point", Path: dir, Err: err}
			case st.Mode&unix.S_IFMT != unix.S_IFDIR:
				return "", &os.PathError{Op: "mount point", Path: dir, Err: syscall.ENOTDIR}
			}
			return filepath.EvalSymlinks(dir)
		}
		log.Warn("taking away a dead mount", "dir", dir)
		if err := unmount(dir, true); err != nil {
			return "", fmt.Errorf("dead mount on %s: %w", dir, err)
		}
	}
	return "", &os.PathError{Op: "mount point", Path: dir, Err: err}
}

// mountAnswer is for how long a mount that lies on a mount point may take to
// answer.
const mountAnswer = 30 * time.Second

// statMount is stat(2) of a mount point, on which a mount may lie that never
// answers: that of a process that was killed while the kernel had it wait.
// Whoever waits for it then cannot be woken but by unmounting.
func statMount(dir string) (unix.Stat_t, error) {
	type answer struct {
		st  unix.Stat_t
		err error
	}
	answers := make(chan answer, 1)
	go func() { // it has no owner if there is no answer: nothing ends the system call
		var a answer
		a.err = unix.Stat(dir, &a.st)
		answers <- a
	}()
	select {
	case a := <-answers:
		return a.st, a.err
	case <-time.After(mountAnswer):
		return unix.Stat_t{}, fmt.Errorf("the mount on it does not answer; if its server is gone, umount -f %s: %w", dir, syscall.ETIMEDOUT)
	}
}

// unmount takes the mount on dir away: root by system call, others through
// fusermount3. By force, it does so though it is in use; the calls that wait
// on it fail then if root does it.
func unmount(dir string, force bool) error {
	if os.Geteuid() == 0 {
		flags := unix.UMOUNT_NOFOLLOW
		if force {
			flags |= unix.MNT_DETACH | unix.MNT_FORCE
		}
		return unix.Unmount(dir, flags)
	}
	args := []string{"-u"}
	if force {
		args = append(args, "-z")
	}
	for _, name := range []string{"fusermount3", "fusermount"} {
		bin, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if out, err := exec.Command(bin, append(args, "--", dir)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
		}
		return nil
	}
	return errors.New("fusermount3 is not installed")
}

// mountDevice returns the device number of the topmost mount on dir in the
// form "0:42", or "". It reads a list: to stat the mount would be to ask
// ourselves.
func mountDevice(dir string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	dev := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && unescapeMount(fields[4]) == dir {
			dev = fields[2]
		}
	}
	return dev
}

// unescapeMount undoes the octal escapes of mountinfo.
func unescapeMount(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// abort ends the connection of the file system with the device number dev:
// all calls that wait on it, and all later ones, fail.
func abort(dev string) error {
	_, minor, ok := strings.Cut(dev, ":")
	if !ok {
		return syscall.ENODEV
	}
	return os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
}

// setReadAhead widens the kernel's read-ahead, which only root may.
func setReadAhead(dev string) {
	if dev != "" {
		os.WriteFile("/sys/class/bdi/"+dev+"/read_ahead_kb", []byte(strconv.Itoa(readAheadKB)), 0)
	}
}

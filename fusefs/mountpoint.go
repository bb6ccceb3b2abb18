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
// taken away dead mounts that lie on it, and those of ours that do not answer
// for as long as patience.
func prepareDir(dir string, patience time.Duration, log *slog.Logger) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for range 16 { // dead mounts may be stacked
		var mode uint32
		mode, err = mountPointMode(dir, patience, log)
		if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
			switch {
			case err != nil:
				return "", &os.PathError{Op: "mount point", Path: dir, Err: err}
			case mode&unix.S_IFMT != unix.S_IFDIR:
				return "", &os.PathError{Op: "mount point", Path: dir, Err: syscall.ENOTDIR}
			}
			return filepath.EvalSymlinks(dir)
		}
		log.Warn("taking away a dead mount", "dir", dir)
		if err := unmount(dir, true); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: it is gone
			return "", fmt.Errorf("dead mount on %s: %w", dir, err)
		}
	}
	return "", &os.PathError{Op: "mount point", Path: dir, Err: err}
}

// mountAnswer is for how long a mount that lies on a mount point may take to
// answer.
const mountAnswer = 30 * time.Second

// mountPointMode returns the mode of a mount point, on which a mount may lie
// that never answers: that of a process that was killed while the kernel had
// it wait for one of its own answers. Such a mount of ours is cut off, whereupon
// it is as dead as others.
func mountPointMode(dir string, patience time.Duration, log *slog.Logger) (uint32, error) {
	type answer struct {
		mode uint32
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // it has no owner if there is no answer: nothing ends the system call
		var st unix.Stat_t
		err := unix.Stat(dir, &st)
		answers <- answer{st.Mode, err}
	}()
	select {
	case a := <-answers:
		return a.mode, a.err
	case <-time.After(patience):
	}
	log.Warn("the mount on the mount point does not answer", "dir", dir)
	mounted := dir
	if parent, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		mounted = filepath.Join(parent, filepath.Base(dir))
	}
	dev, typ := mountOn(mounted)
	if typ != "fuse."+typeName {
		return 0, fmt.Errorf("the mount on it does not answer; if its server is gone, umount -f %s: %w", dir, syscall.ETIMEDOUT)
	}
	if err := abort(dev, mounted); err != nil {
		return 0, fmt.Errorf("the mount on it does not answer, and cannot be cut off: %w; umount -f %s: %w", err, dir, syscall.ETIMEDOUT)
	}
	a := <-answers
	return a.mode, a.err
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

// mountOn returns the device number of the topmost mount on dir in the form
// "0:42", and its type, or "". It reads a list: to stat the mount would be to
// ask ourselves.
func mountOn(dir string) (dev, typ string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ") // proc_pid_mountinfo(5)
		fields := strings.Fields(before)
		if len(fields) > 4 && unescapeMount(fields[4]) == dir {
			dev = fields[2]
			typ, _, _ = strings.Cut(after, " ")
		}
	}
	return dev, typ
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

// abort ends the connection of the file system with the device number dev that
// is mounted on dir: all calls that wait on it, and all later ones, fail. Its
// owner may do it where fusectl is mounted, root everywhere.
func abort(dev, dir string) error {
	_, minor, ok := strings.Cut(dev, ":")
	if !ok {
		return syscall.ENODEV
	}
	err := os.WriteFile("/sys/fs/fuse/connections/"+minor+"/abort", []byte("1"), 0)
	if now, _ := mountOn(dir); err != nil && now == dev && os.Geteuid() == 0 {
		// The connection ends though the mount stays if it is in use: umount(2).
		if err = unix.Unmount(dir, unix.MNT_FORCE|unix.UMOUNT_NOFOLLOW); errors.Is(err, syscall.EBUSY) {
			err = nil
		}
	}
	return err
}

// setReadAhead widens the kernel's read-ahead, which only root may.
func setReadAhead(dev string) {
	if dev != "" {
		os.WriteFile("/sys/class/bdi/"+dev+"/read_ahead_kb", []byte(strconv.Itoa(readAheadKB)), 0)
	}
}

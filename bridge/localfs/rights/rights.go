//go:build amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x

// Package rights has the kernel decide what a user may do in a local
// directory: it makes the system calls with the user's credentials instead of
// those of the process, which has to be root. ACLs, quotas, security modules
// and file systems with opinions of their own then count as they do for the
// user's own processes.
package rights

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// As calls f on a thread that has the credentials cred for access to files:
// user, group and supplementary groups (credentials(7)), and, for another user
// than root, none of the capabilities that pass permissions. It returns what f
// returns, or an error that wraps EPERM if the process may not do that.
//
// Only f itself has the credentials, not the goroutines that it starts, and it
// must not run code of others. As may not be called from f.
func As(cred bridge.Cred, f func() error) error {
	if cred.UID == math.MaxUint32 || cred.GID == math.MaxUint32 {
		return syscall.EINVAL
	}
	runtime.LockOSThread()
	own, err := ownCred()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		// A thread that could not be put right must serve nobody else: it stays
		// locked to this goroutine, which ends, and the thread with it.
		if err := become(own); err != nil {
			panic(fmt.Sprintf("rights: cannot take back the process's credentials: %v", err))
		}
		runtime.UnlockOSThread()
	}()
	if err := become(cred); err != nil {
		return err
	}
	return f()
}

// ownCred returns the credentials of this thread.
func ownCred() (bridge.Cred, error) {
	uid, gid := fsuid(), fsgid()
	if uid != 0 {
		return bridge.Cred{}, fmt.Errorf("acting for another user needs root: %w", syscall.EPERM)
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return bridge.Cred{}, err
	}
	own := bridge.Cred{UID: uid, GID: gid, Groups: make([]uint32, len(groups))}
	for i, g := range groups {
		own.Groups[i] = uint32(g)
	}
	return own, nil
}

// become gives this thread the credentials.
func become(cred bridge.Cred) error {
	if err := setGroups(cred.Groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	// setfsgid(2) and setfsuid(2) do not say whether they failed.
	_ = unix.Setfsgid(int(cred.GID))
	if fsgid() != cred.GID {
		return fmt.Errorf("setfsgid: %w", syscall.EPERM)
	}
	_ = unix.Setfsuid(int(cred.UID))
	if fsuid() != cred.UID {
		return fmt.Errorf("setfsuid: %w", syscall.EPERM)
	}
	return nil
}

// setGroups is setgroups(2) for this thread alone.
func setGroups(groups []uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// fsuid returns the user that this thread is for access to files.
func fsuid() uint32 {
	uid, _ := unix.SetfsuidRetUid(-1) // no user, so that nothing is set
	return uint32(uid)
}

func fsgid() uint32 {
	gid, _ := unix.SetfsgidRetGid(-1)
	return uint32(gid)
}

// passing are the capabilities that pass permissions (capabilities(7)), which
// setfsuid(2) takes away.
const passing = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH |
	1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID | 1<<unix.CAP_MKNOD

// Check returns an error if As does not do on this system what it promises:
// the process is not root, or was told to keep its capabilities.
func Check() error {
	const nobody = 65534
	return As(bridge.Cred{UID: nobody, GID: nobody}, func() error {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			return fmt.Errorf("capget: %w", err)
		}
		if data[0].Effective&passing != 0 {
			return errors.Join(errors.New("the process keeps its capabilities when it acts for another user"), syscall.EPERM)
		}
		return nil
	})
}

package bridge

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
)

// An Error is a failed operation on the tree. Its errno is all that a door
// tells a client; Err, if any, is for the log.
type Error struct {
	Op    string // the operation, in lower case: "lookup", "open", …
	Path  string // the path in the tree, never one of the backend
	Errno syscall.Errno
	Err   error // what led to it, or nil
}

func (e *Error) Error() string {
	s := e.Op
	if e.Path != "" {
		s += " " + e.Path
	}
	return s + ": " + e.Errno.Error()
}

// Unwrap gives the errno first, so that errors.Is(err, syscall.ENOENT) and,
// through it, errors.Is(err, fs.ErrNotExist) hold, and then the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Errno}
	}
	return []error{e.Errno, e.Err}
}

// Errno returns the errno that err stands for: that of an *Error or of any
// syscall.Errno that it wraps; EINTR for a cancelled context, ETIMEDOUT for
// one past its deadline; and EIO for whatever has no errno. It returns 0 for
// nil.
func Errno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, context.DeadlineExceeded):
		return syscall.ETIMEDOUT
	case errors.Is(err, fs.ErrNotExist):
		return syscall.ENOENT
	case errors.Is(err, fs.ErrExist):
		return syscall.EEXIST
	case errors.Is(err, fs.ErrPermission):
		return syscall.EACCES
	case errors.Is(err, fs.ErrInvalid):
		return syscall.EINVAL
	case errors.Is(err, fs.ErrClosed):
		return syscall.EBADF
	}
	return syscall.EIO
}

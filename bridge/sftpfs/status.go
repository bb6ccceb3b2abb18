package sftpfs

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// A statusError is a STATUS answer other than OK. The server's text is looked
// at but not kept: it may hold paths of the upstream.
type statusError struct {
	code  sshfx.Status
	errno syscall.Errno
	vague bool // the server gave no reason: the errno is a guess
}

func (e *statusError) Error() string {
	return fmt.Sprintf("upstream: %s (status %d)", e.errno.Error(), uint32(e.code))
}

func (e *statusError) Unwrap() error { return e.errno }

// errnoOf are the codes that say what happened, of version 3 and of those
// later ones that servers send all the same.
var errnoOf = map[sshfx.Status]syscall.Errno{
	sshfx.StatusNoSuchFile:            syscall.ENOENT,
	sshfx.StatusPermissionDenied:      syscall.EACCES,
	sshfx.StatusBadMessage:            syscall.EINVAL,
	sshfx.StatusNoConnection:          syscall.EIO,
	sshfx.StatusConnectionLost:        syscall.EIO,
	sshfx.StatusOpUnsupported:         syscall.EOPNOTSUPP,
	sshfx.StatusV4InvalidHandle:       syscall.EBADF,
	sshfx.StatusV4NoSuchPath:          syscall.ENOENT,
	sshfx.StatusV4FileAlreadyExists:   syscall.EEXIST,
	sshfx.StatusV4WriteProtect:        syscall.EROFS,
	sshfx.StatusV5NoSpaceOnFilesystem: syscall.ENOSPC,
	sshfx.StatusV5QuotaExceeded:       syscall.EDQUOT,
	sshfx.StatusV6DirNotEmpty:         syscall.ENOTEMPTY,
	sshfx.StatusV6NotADirectory:       syscall.ENOTDIR,
	sshfx.StatusV6InvalidFilename:     syscall.EINVAL,
	sshfx.StatusV6LinkLoop:            syscall.ELOOP,
	sshfx.StatusV6FileIsADirectory:    syscall.EISDIR,
}

// errnoText are the errnos whose text servers are known to send with FAILURE.
var errnoText = []struct {
	text  string
	errno syscall.Errno
}{
	{"no space left on device", syscall.ENOSPC},
	{"disk quota exceeded", syscall.EDQUOT},
	{"quota exceeded", syscall.EDQUOT},
	{"read-only file system", syscall.EROFS},
	{"file exists", syscall.EEXIST},
	{"file already exists", syscall.EEXIST},
	{"directory not empty", syscall.ENOTEMPTY},
	{"not a directory", syscall.ENOTDIR},
	{"is a directory", syscall.EISDIR},
	{"too many levels of symbolic links", syscall.ELOOP},
	{"file name too long", syscall.ENAMETOOLONG},
	{"invalid cross-device link", syscall.EXDEV},
	{"cross-device link", syscall.EXDEV},
	{"operation not permitted", syscall.EPERM},
	{"permission denied", syscall.EACCES},
	{"no such file or directory", syscall.ENOENT},
	{"text file busy", syscall.ETXTBSY},
	{"file too large", syscall.EFBIG},
	{"too many links", syscall.EMLINK},
	{"too many open files", syscall.EMFILE},
	{"device or resource busy", syscall.EBUSY},
}

// readStatus decodes the body of a STATUS packet: nil, io.EOF, or a
// *statusError. Servers are known to leave the texts out.
func readStatus(body []byte) (error, error) {
	b := sshfx.NewBuffer(body)
	code := sshfx.Status(b.ConsumeUint32())
	if b.Err != nil {
		return nil, errShort
	}
	text := ""
	if b.Len() > 0 {
		text = b.ConsumeString()
	}
	switch code {
	case sshfx.StatusOK:
		return nil, nil
	case sshfx.StatusEOF:
		return io.EOF, nil
	}
	return newStatusError(code, text), nil
}

func newStatusError(code sshfx.Status, text string) *statusError {
	if errno, ok := errnoOf[code]; ok {
		return &statusError{code: code, errno: errno, vague: code == sshfx.StatusBadMessage}
	}
	text = strings.ToLower(text)
	for _, t := range errnoText {
		if strings.HasSuffix(text, t.text) {
			return &statusError{code: code, errno: t.errno}
		}
	}
	return &statusError{code: code, errno: syscall.EIO, vague: true}
}

// isStatus reports whether the server answered that the request failed, so
// that asking further may tell why.
func isStatus(err error) bool {
	var s *statusError
	return errors.As(err, &s)
}

// isVague reports whether err is an answer that gives no reason.
func isVague(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.vague
}

// A lostError says that the session ended before the answer came, which
// leaves open, if the request was sent, whether it was carried out.
type lostError struct {
	cause error
	sent  bool
}

func (e *lostError) Error() string { return "connection to the upstream lost: " + e.cause.Error() }

func (e *lostError) Unwrap() []error { return []error{syscall.EIO, e.cause} }

// isLost reports whether the session ended under the request.
func isLost(err error) bool {
	var l *lostError
	return errors.As(err, &l)
}

// garbage is the error of a server that does not keep to the protocol.
func garbage(format string, args ...any) error {
	return fmt.Errorf("the upstream does not keep to the protocol: %w: %w", fmt.Errorf(format, args...), syscall.EIO)
}

// errTimeout is the end of a call whose answer did not come in time.
var errTimeout = fmt.Errorf("no answer from the upstream: %w", syscall.ETIMEDOUT)

// errAway is the end of a call that found no connection in time.
var errAway = fmt.Errorf("no connection to the upstream: %w", syscall.ETIMEDOUT)

// errClosed is the end of a call on an FS that was closed.
var errClosed = fmt.Errorf("the upstream was closed: %w", syscall.ENOTCONN)

package sftpsrv

import (
	"strings"
	"syscall"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// statusCode is OpenSSH's table from errno to the status codes of version 3,
// with one line more: EOPNOTSUPP.
func statusCode(errno syscall.Errno) sshfx.Status {
	switch errno {
	case 0:
		return sshfx.StatusOK
	case syscall.ENOENT, syscall.ENOTDIR, syscall.EBADF, syscall.ELOOP:
		return sshfx.StatusNoSuchFile
	case syscall.EPERM, syscall.EACCES, syscall.EFAULT:
		return sshfx.StatusPermissionDenied
	case syscall.ENAMETOOLONG, syscall.EINVAL:
		return sshfx.StatusBadMessage
	case syscall.ENOSYS, syscall.EOPNOTSUPP:
		return sshfx.StatusOpUnsupported
	}
	return sshfx.StatusFailure
}

// statusText is the message to a client: OpenSSH's for what has a code of its
// own, else that of the errno. Nothing else of an error leaves the server.
func statusText(errno syscall.Errno) string {
	switch errno {
	case 0:
		return "Success"
	case syscall.ENOENT:
		return "No such file"
	case syscall.EACCES:
		return "Permission denied"
	case syscall.ENOSYS:
		return "Operation unsupported"
	}
	s := errno.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// status adds the answer to a request that gives nothing but success or err.
func (r *reply) status(id uint32, err error) {
	errno := bridge.Errno(err)
	r.statusAs(id, statusCode(errno), statusText(errno))
}

func (r *reply) statusAs(id uint32, code sshfx.Status, text string) {
	r.begin(sshfx.PacketTypeStatus, id)
	r.uint32(uint32(code))
	r.string(text)
	r.string("") // language
	r.end()
}

func (r *reply) eof(id uint32)        { r.statusAs(id, sshfx.StatusEOF, "End of file") }
func (r *reply) badMessage(id uint32) { r.statusAs(id, sshfx.StatusBadMessage, "Bad message") }
func (r *reply) badHandle(id uint32)  { r.statusAs(id, sshfx.StatusFailure, "No such handle") }
func (r *reply) denied(id uint32) {
	r.statusAs(id, sshfx.StatusPermissionDenied, "Permission denied")
}

func (r *reply) unsupported(id uint32) {
	r.statusAs(id, sshfx.StatusOpUnsupported, "Operation unsupported")
}

package fusefs_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"

	"sftpbridge/bridge/sftpfs"
)

// sftpServer is OpenSSH's, which speaks on its standard input and output.
const sftpServer = "/usr/lib/openssh/sftp-server"

// upstream is an sftpfs.Transport that starts OpenSSH's server for each
// session, without SSH in between.
type upstream struct{}

func (upstream) Open(context.Context) (io.ReadWriteCloser, error) {
	cmd := exec.Command(sftpServer)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &sftpSession{out, in, cmd}, nil
}

func (upstream) Ping(context.Context) error { return nil }
func (upstream) Close() error               { return nil }

type sftpSession struct {
	io.Reader
	io.WriteCloser
	cmd *exec.Cmd
}

func (s *sftpSession) Close() error {
	err := s.WriteCloser.Close()
	s.cmd.Wait() // which ends at the end of its input
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func dialUpstream(context.Context) (sftpfs.Transport, error) { return upstream{}, nil }

// needUpstream skips a test where OpenSSH's server is not installed.
func needUpstream(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(sftpServer); err != nil {
		t.Skip(err)
	}
}

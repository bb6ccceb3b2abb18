package sftpfs_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sftpbridge/bridge"
	"sftpbridge/bridge/backendtest"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// suite are what version 3 of the protocol cannot do.
var suite = backendtest.Options{NoEarlyTimes: true}

// TestBackend runs the suite on OpenSSH's sftp-server over pipes.
func TestBackend(t *testing.T) {
	server := sshdtest.SFTPServer(t)
	backendtest.Run(t, func(t *testing.T) bridge.Backend {
		return open(t, sftpfs.Command(server), sftpfs.Options{Root: t.TempDir()})
	}, suite)
}

func open(t testing.TB, dial sftpfs.Dialer, opt sftpfs.Options) *sftpfs.FS {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	f, err := sftpfs.New(ctx, dial, opt)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

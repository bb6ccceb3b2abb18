package sftpfs_test

import (
	"context"
	"os"
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

// BenchmarkBackend measures with OpenSSH's sftp-server over pipes.
func BenchmarkBackend(b *testing.B) {
	server := sshdtest.SFTPServer(b)
	backendtest.Bench(b, func(b *testing.B) bridge.Backend {
		return open(b, sftpfs.Command(server), sftpfs.Options{Root: b.TempDir()})
	})
}

// TestBackendSSH runs the suite once more through sshd, with a channel for each
// test. It takes minutes, and is run if the environment has SFTPBRIDGE_TEST_LONG.
func TestBackendSSH(t *testing.T) {
	if os.Getenv("SFTPBRIDGE_TEST_LONG") == "" {
		t.Skip("SFTPBRIDGE_TEST_LONG is not set")
	}
	s := sshdtest.Start(t)
	tr, err := dialer(t, s)(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	backendtest.Run(t, func(t *testing.T) bridge.Backend {
		dial := func(ctx context.Context) (sftpfs.Transport, error) { return sharedTransport{tr}, nil }
		return open(t, dial, sftpfs.Options{Root: t.TempDir(), Connections: 1})
	}, suite)
}

// A sharedTransport stays open when it is closed.
type sharedTransport struct{ sftpfs.Transport }

func (sharedTransport) Close() error { return nil }

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

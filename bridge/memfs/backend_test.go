package memfs_test

import (
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/backendtest"
	"sftpbridge/bridge/memfs"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) bridge.Backend { return memfs.New() }, backendtest.Options{})
}

func BenchmarkBackend(b *testing.B) {
	backendtest.Bench(b, func(*testing.B) bridge.Backend { return memfs.New() })
}

package localfs

import (
	"os"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/backendtest"
)

func TestBackend(t *testing.T) {
	open := func(t *testing.T) bridge.Backend {
		fs, err := New(t.TempDir())
		must(t, err)
		return fs
	}
	backendtest.Run(t, open, backendtest.Options{NoOwner: os.Geteuid() != 0})
}

func BenchmarkBackend(b *testing.B) {
	backendtest.Bench(b, func(b *testing.B) bridge.Backend {
		fs, err := New(b.TempDir())
		must(b, err)
		return fs
	})
}

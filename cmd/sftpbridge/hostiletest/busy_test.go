package hostiletest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/pkg/sftp"

	"sftpbridge/bridge/sftpfs/sshdtest"
)

var busy = flag.Int("busy", 1, "MiB that each busy session writes and reads")

const busySessions = 64

// TestBusySessions has many sessions write and read files at the same time, as
// fast as they can, and bounds what the process needs for it.
func TestBusySessions(t *testing.T) {
	t.Run("local", func(t *testing.T) {
		beBusy(t, startBridge(t, shmDir(t), "", noPenalties), ifRaceless(256, 1536))
	})
	t.Run("upstream", func(t *testing.T) {
		if !*raceless {
			t.Skip("takes long with the race detector; -raceless")
		}
		s := sshdtest.Start(t)
		b := startBridge(t, fmt.Sprintf("sftp://%s@%s%s", s.User, s.Addr, shmDir(t)),
			fmt.Sprintf("    upstream: {identity: [%s], known_hosts: %s}\n", s.KeyFile, s.KnownHosts), noPenalties)
		beBusy(t, b, 768)
	})
}

// shmDir returns a directory in memory.
func shmDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "hostiletest")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func beBusy(t *testing.T, b *bridge, most int) {
	b.serves("nothing")
	idle := b.memory()
	var wg sync.WaitGroup
	for i := range busySessions {
		c, err := sftp.NewClient(b.mustLogin(), sftp.UseConcurrentWrites(true))
		must(t, err)
		wg.Go(func() {
			data := bytes.Repeat([]byte{byte(i)}, *busy<<20)
			if err := putAndGet(c, fmt.Sprint("/", i), data); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	t.Logf("%d busy sessions: %d MiB at most, %d before", busySessions, b.peak(), idle)
	if b.peak() > most {
		t.Errorf("%d MiB for %d busy sessions, want %d at most", b.peak(), busySessions, most)
	}
	b.serves("busy sessions")
}

// putAndGet writes a file and reads it back.
func putAndGet(c *sftp.Client, name string, data []byte) error {
	f, err := c.Create(name)
	if err != nil {
		return err
	}
	_, err = f.ReadFrom(bytes.NewReader(data))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if f, err = c.Open(name); err != nil {
		return err
	}
	var got bytes.Buffer
	_, err = io.Copy(&got, f)
	if err = errors.Join(err, f.Close()); err == nil && !bytes.Equal(got.Bytes(), data) {
		err = errors.New("what is read is not what was written")
	}
	return err
}

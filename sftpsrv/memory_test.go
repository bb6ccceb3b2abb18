package sftpsrv

import (
	"bufio"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

// memory is what the process holds, without what is garbage.
func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// TestMemoryOfIdleConnections measures connections that have not logged in,
// and sessions that do nothing. Those have their client in the same process,
// so that twice as much is allowed for.
func TestMemoryOfIdleConnections(t *testing.T) {
	const n = 60
	t.Run("before login", func(t *testing.T) {
		ts := startServer(t, func(c *Config) { c.MaxStartupsPerAddress = n })
		before := memory()
		for range n {
			c, err := net.Dial("tcp", ts.addr.String())
			must(t, err)
			defer c.Close()
			must(t, c.SetDeadline(time.Now().Add(patience)))
			_, err = c.Write([]byte("SSH-2.0-test\r\n"))
			must(t, err)
			_, err = bufio.NewReaderSize(c, 16).ReadString('\n')
			must(t, err)
		}
		each := (memory() - before) / n
		t.Logf("%d bytes each", each)
		if each > 128<<10 {
			t.Errorf("%d bytes each, want 128 KiB at most", each)
		}
	})
	t.Run("session", func(t *testing.T) {
		ts := startServer(t, func(c *Config) { c.MaxPerAddress = n })
		before := memory()
		for range n {
			c := ts.dial()
			sc, err := sftp.NewClient(c)
			must(t, err)
			_, err = sc.Stat(".")
			must(t, err)
		}
		each := (memory() - before) / n
		t.Logf("%d bytes each, with the client's", each)
		if each > 384<<10 {
			t.Errorf("%d bytes each, want 384 KiB at most", each)
		}
	})
}

// TestLargeBuffersAreGivenUp reads much, and then little after a pause.
func TestLargeBuffersAreGivenUp(t *testing.T) {
	pieces := make(chan []byte, 3)
	b := newReadBuffer(chanReader(pieces))
	p := make([]byte, 1<<20)
	read := func(piece []byte) {
		t.Helper()
		pieces <- piece
		for want := len(piece); want > 0; {
			n, err := b.Read(p)
			must(t, err)
			want -= n
		}
	}
	read(make([]byte, smallBuffer))
	read(make([]byte, 10*smallBuffer))
	if len(b.buf) != connBuffer {
		t.Errorf("%d bytes of buffer while there is much to read, want %d", len(b.buf), connBuffer)
	}
	b.last = b.last.Add(-2 * calm)
	read([]byte("keepalive"))
	if len(b.buf) != smallBuffer {
		t.Errorf("%d bytes of buffer when it is calm, want %d", len(b.buf), smallBuffer)
	}
	close(pieces)
	if _, err := b.Read(p); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// A chanReader reads as much as is asked for of one piece after the other.
type chanReader chan []byte

func (c chanReader) Read(p []byte) (int, error) {
	piece, ok := <-c
	if !ok {
		return 0, io.EOF
	}
	n := copy(p, piece)
	if n < len(piece) {
		return n, errors.New("more than the buffer takes")
	}
	return n, nil
}

// TestStartupsOfOneAddress: one address cannot keep all others from logging in.
func TestStartupsOfOneAddress(t *testing.T) {
	l := newLimits(&Config{MaxConnections: 100, MaxPerAddress: 100, MaxStartups: 6, MaxStartupsPerAddress: 3, LoginPenalty: -1})
	bad, good := source(addr("192.0.2.1")), source(addr("198.51.100.1"))
	for range 3 {
		if why := l.admit(bad, epoch); why != "" {
			t.Fatal(why)
		}
	}
	if why := l.admit(bad, epoch); !strings.Contains(why, "this address") {
		t.Errorf("a fourth connection: %q", why)
	}
	if why := l.admit(good, epoch); why != "" {
		t.Errorf("another address is refused: %s", why)
	}
	l.loggedIn(bad)
	if why := l.admit(bad, epoch); why != "" {
		t.Errorf("after a login: %s", why)
	}
	for range 4 {
		l.release(bad)
	}
	l.release(good)
	if len(l.conns) != 0 || l.total != 0 {
		t.Errorf("after all have ended, %d are counted: %v", l.total, l.conns)
	}
}

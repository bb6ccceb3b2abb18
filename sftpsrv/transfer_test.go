package sftpsrv

import (
	"bytes"
	"context"
	"io"
	"math/rand"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

// TestTransfers moves data with many requests of different sizes under way, by
// way of another client.
func TestTransfers(t *testing.T) {
	data := make([]byte, 4<<20+12345)
	rand.New(rand.NewSource(2)).Read(data)
	for _, size := range []int{1 << 10, 32 << 10, 255 << 10} {
		eachMode(t, func(t *testing.T, opt SessionOptions) {
			home := t.TempDir()
			client, server := net.Pipe()
			ended := make(chan error, 1)
			go func() {
				ended <- Serve(context.Background(), server, &dirServer{home: home}, opt)
				server.Close()
			}()
			c, err := sftp.NewClientPipe(client, client, sftp.MaxPacketUnchecked(size), sftp.UseConcurrentWrites(true))
			must(t, err)
			f, err := c.Create("f")
			must(t, err)
			_, err = f.ReadFrom(bytes.NewReader(data))
			must(t, err)
			must(t, f.Close())
			if got, err := os.ReadFile(home + "/f"); err != nil || !bytes.Equal(got, data) {
				t.Errorf("requests of %d bytes: %d bytes arrived, want %d; %v", size, len(got), len(data), err)
			}
			f, err = c.Open("f")
			must(t, err)
			var got bytes.Buffer
			_, err = f.WriteTo(&got)
			must(t, err)
			must(t, f.Close())
			if !bytes.Equal(got.Bytes(), data) {
				t.Errorf("requests of %d bytes: %d bytes came back, want %d", size, got.Len(), len(data))
			}
			must(t, c.Close())
			client.Close()
			must(t, <-ended)
		})
	}
}

// TestTenSessions has all sessions that a connection may have at work at once.
func TestTenSessions(t *testing.T) {
	ts := startServer(t, nil)
	data := make([]byte, 300000)
	rand.New(rand.NewSource(3)).Read(data)
	must(t, os.WriteFile(ts.home+"/f", data, 0o644))
	c := ts.dial()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			sc, err := sftp.NewClient(c)
			if err != nil {
				t.Error(err)
				return
			}
			defer sc.Close()
			f, err := sc.Open("f")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestDisconnectEndsWhatWaits loses the connection while a request waits for
// something that does not come.
func TestDisconnectEndsWhatWaits(t *testing.T) {
	for _, parallel := range []bool{false, true} {
		waiting, ended := make(chan struct{}), make(chan struct{})
		ts := startServer(t, func(c *Config) {
			newSession := c.NewSession
			c.NewSession = func(ctx context.Context, info SessionInfo) (Session, error) {
				s, err := newSession(ctx, info)
				s.Options.Parallel = parallel
				s.Server = &gateServer{dirServer: s.Server.(*dirServer), stat: func(ctx context.Context, _ string) error {
					close(waiting)
					<-ctx.Done()
					close(ended)
					return ctx.Err()
				}}
				return s, err
			}
		})
		c := ts.dial()
		sc, err := sftp.NewClient(c)
		must(t, err)
		asked := make(chan struct{})
		go func() {
			sc.Stat("f")
			close(asked)
		}()
		<-waiting
		c.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the request goes on waiting")
		}
		<-asked
	}
}

// TestBufConn writes and reads in pieces of all sizes.
func TestBufConn(t *testing.T) {
	a, b := net.Pipe()
	x, y := newBufConn(a), newBufConn(b)
	data := make([]byte, 2<<20)
	rng := rand.New(rand.NewSource(4))
	rng.Read(data)
	sent := make(chan error, 1)
	go func() {
		for rest := data; len(rest) > 0; {
			n := min(1+rng.Intn(100000), len(rest))
			if _, err := x.Write(rest[:n]); err != nil {
				sent <- err
				return
			}
			rest = rest[n:]
		}
		sent <- x.Close() // what was written still arrives
	}()
	got, err := io.ReadAll(y)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	must(t, <-sent)
	if _, err := x.Write([]byte("x")); err == nil {
		t.Error("a write after Close")
	}
	y.Close()
	y.Close()
}

// TestBufConnClose closes a connection that nobody reads.
func TestBufConnClose(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	x := newBufConn(a)
	_, err := x.Write(make([]byte, 10))
	must(t, err)
	closed := make(chan struct{})
	go func() {
		x.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("Close waits for ever")
	}
}

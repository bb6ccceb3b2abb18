package sftpsrv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// A gateServer lets a test decide when calls go on.
type gateServer struct {
	*dirServer
	stat  func(ctx context.Context, path string) error
	mkdir func(path string)
	read  func(ctx context.Context, off int64) error
	write func(off int64)

	opened, closed atomic.Int64
	closeErr       error
}

func (g *gateServer) GetAttrs(ctx context.Context, path string, follow bool) (bridge.Attr, error) {
	if g.stat != nil {
		if err := g.stat(ctx, path); err != nil {
			return bridge.Attr{}, err
		}
	}
	return g.dirServer.GetAttrs(ctx, path, follow)
}

func (g *gateServer) MakeDirectory(ctx context.Context, path string, attr bridge.SetAttr) error {
	if g.mkdir != nil {
		g.mkdir(path)
	}
	return g.dirServer.MakeDirectory(ctx, path, attr)
}

func (g *gateServer) OpenFile(ctx context.Context, path string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.ServerFile, error) {
	f, err := g.dirServer.OpenFile(ctx, path, flags, attr)
	if err != nil {
		return nil, err
	}
	g.opened.Add(1)
	return &gateFile{f.(*osFile), g}, nil
}

type gateFile struct {
	*osFile
	g *gateServer
}

func (f *gateFile) ReadChunk(ctx context.Context, p []byte, off int64) (int, error) {
	if f.g.read != nil {
		if err := f.g.read(ctx, off); err != nil {
			return 0, err
		}
	}
	return f.osFile.ReadChunk(ctx, p, off)
}

func (f *gateFile) WriteChunk(ctx context.Context, p []byte, off int64) error {
	if f.g.write != nil {
		f.g.write(off)
	}
	return f.osFile.WriteChunk(ctx, p, off)
}

func (f *gateFile) Close(ctx context.Context) error {
	f.g.closed.Add(1)
	f.osFile.Close(ctx)
	return f.g.closeErr
}

var parallel = SessionOptions{Parallel: true}

func TestLooksRunSideBySide(t *testing.T) {
	const n = 20
	var all sync.WaitGroup
	all.Add(n)
	g := &gateServer{dirServer: &dirServer{home: t.TempDir()}, stat: func(context.Context, string) error {
		all.Done()
		all.Wait() // until all have begun
		return nil
	}}
	r := begun(t, g, parallel)
	for id := range uint32(n) {
		r.send(packet(sshfx.PacketTypeLStat, id, "."))
	}
	for id := range uint32(n) {
		b := sshfx.NewBuffer(r.recv())
		if typ, got := sshfx.PacketType(b.ConsumeUint8()), b.ConsumeUint32(); typ != sshfx.PacketTypeAttrs || got != id {
			t.Fatalf("answer %d is of type %d to request %d", id, typ, got)
		}
	}
}

func TestReadsAreAnsweredInOrder(t *testing.T) {
	home := t.TempDir()
	must(t, os.WriteFile(home+"/f", []byte("abcdefgh"), 0o644))
	second := make(chan struct{})
	g := &gateServer{dirServer: &dirServer{home: home}, read: func(_ context.Context, off int64) error {
		if off == 0 {
			<-second
		} else {
			close(second)
		}
		return nil
	}}
	r := begun(t, g, parallel)
	h := r.open("f", sshfx.FlagRead)
	r.send(packet(sshfx.PacketTypeRead, uint32(1), h, uint64(0), uint32(4)),
		packet(sshfx.PacketTypeRead, uint32(2), h, uint64(4), uint32(4)))
	for i, want := range []string{"abcd", "efgh"} {
		b := sshfx.NewBuffer(r.recv()[1:])
		if id, data := b.ConsumeUint32(), b.ConsumeString(); int(id) != i+1 || data != want {
			t.Errorf("answer %d: request %d, %q", i, id, data)
		}
	}
}

// TestOrderIsKept sends requests ahead whose answers depend on their order.
func TestOrderIsKept(t *testing.T) {
	home := t.TempDir()
	slow := func() { time.Sleep(5 * time.Millisecond) } // gives a wrong order a chance
	g := &gateServer{dirServer: &dirServer{home: home},
		mkdir: func(string) { slow() },
		write: func(int64) { slow() },
	}
	r := begun(t, g, parallel)
	h := r.open("f", sshfx.FlagRead|sshfx.FlagWrite|sshfx.FlagCreate)
	r.send(
		packet(sshfx.PacketTypeMkdir, uint32(1), "d", uint32(0)),
		packet(sshfx.PacketTypeLStat, uint32(2), "d"),
		packet(sshfx.PacketTypeMkdir, uint32(3), "d/e", uint32(0)),
		packet(sshfx.PacketTypeRename, uint32(4), "d", "g"),
		packet(sshfx.PacketTypeOpenDir, uint32(5), "g/e"),
		packet(sshfx.PacketTypeWrite, uint32(6), h, uint64(0), "old data"),
		packet(sshfx.PacketTypeWrite, uint32(7), h, uint64(0), "new"),
		packet(sshfx.PacketTypeRead, uint32(8), h, uint64(0), uint32(20)),
		packet(sshfx.PacketTypeFStat, uint32(9), h),
		packet(sshfx.PacketTypeWrite, uint32(10), h, uint64(8), "!!"),
		packet(sshfx.PacketTypeStat, uint32(11), "f"),
		packet(sshfx.PacketTypeClose, uint32(12), h),
		packet(sshfx.PacketTypeRead, uint32(13), h, uint64(0), uint32(20)),
	)
	want := []sshfx.PacketType{101, 105, 101, 101, 102, 101, 101, 103, 105, 101, 105, 101, 101}
	for i, typ := range want {
		body := r.recv()
		b := sshfx.NewBuffer(body)
		if got := sshfx.PacketType(b.ConsumeUint8()); got != typ {
			t.Errorf("answer %d is of type %d, want %d: %q", i+1, got, typ, body)
		}
		b.ConsumeUint32()
		switch i + 1 {
		case 8:
			if got := b.ConsumeString(); got != "new data" {
				t.Errorf("READ after WRITE: %q", got)
			}
		case 9, 11:
			if b.ConsumeUint32(); i == 8 {
				if n := b.ConsumeUint64(); n != 8 {
					t.Errorf("FSTAT after WRITE: size %d, want 8", n)
				}
			} else if n := b.ConsumeUint64(); n != 10 {
				t.Errorf("STAT after WRITE: size %d, want 10", n)
			}
		case 13:
			if code := b.ConsumeUint32(); code != 4 {
				t.Errorf("READ after CLOSE: code %d, want FAILURE", code)
			}
		}
	}
}

func TestBytesInFlightAreBounded(t *testing.T) {
	home := t.TempDir()
	must(t, os.WriteFile(home+"/f", make([]byte, 100<<10), 0o644))
	var now, most atomic.Int64
	g := &gateServer{dirServer: &dirServer{home: home}, read: func(context.Context, int64) error {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return nil
	}}
	opt := parallel
	opt.MaxInFlight = 310 << 10
	r := begun(t, g, opt)
	h := r.open("f", sshfx.FlagRead)
	const n = 30
	go func() {
		for id := range uint32(n) {
			r.rw.Write(packet(sshfx.PacketTypeRead, id, h, uint64(0), uint32(100<<10)))
		}
	}()
	for range n {
		if body := r.recv(); len(body) != 100<<10+9 {
			t.Fatalf("an answer of %d bytes", len(body))
		}
	}
	if most.Load() > 3 {
		t.Errorf("%d reads of 100 KiB at once, want 3 at most", most.Load())
	}
}

func TestEndOfInputWaitsForAnswers(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		g := &gateServer{dirServer: &dirServer{home: t.TempDir()}}
		var out bytes.Buffer
		in := bytes.NewReader(bytes.Join([][]byte{
			packet(sshfx.PacketTypeInit, uint32(3)),
			packet(sshfx.PacketTypeMkdir, uint32(1), "d", uint32(0)),
			packet(sshfx.PacketTypeOpen, uint32(2), "f", uint32(sshfx.FlagWrite|sshfx.FlagCreate), uint32(0)),
		}, nil))
		if err := Serve(context.Background(), stream{in, &out}, g, opt); err != nil {
			t.Fatal(err)
		}
		for _, want := range []sshfx.PacketType{2, 101, 102} {
			body, err := readPacket(&out)
			if err != nil || sshfx.PacketType(body[0]) != want {
				t.Fatalf("%q, %v; want type %d", body, err, want)
			}
		}
		if g.opened.Load() != 1 || g.closed.Load() != 1 {
			t.Errorf("%d files opened, %d closed", g.opened.Load(), g.closed.Load())
		}
	})
}

// A stream is one that ends.
type stream struct {
	io.Reader
	io.Writer
}

func (stream) Close() error { return nil }

func TestContextEndsWhatWaits(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		home := t.TempDir()
		must(t, os.WriteFile(home+"/f", []byte("x"), 0o644))
		waiting := make(chan struct{})
		g := &gateServer{dirServer: &dirServer{home: home}, read: func(ctx context.Context, _ int64) error {
			close(waiting)
			<-ctx.Done()
			return ctx.Err()
		}}
		ctx, cancel := context.WithCancel(context.Background())
		client, server := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- Serve(ctx, server, g, opt) }()
		r := &rig{t: t, rw: client}
		r.send(packet(sshfx.PacketTypeInit, uint32(3)))
		r.recv()
		h := r.open("f", sshfx.FlagRead)
		r.send(packet(sshfx.PacketTypeRead, uint32(9), h, uint64(0), uint32(1)))
		<-waiting
		cancel()
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Serve = %v", err)
			}
		case <-time.After(patience):
			t.Fatal("the session does not end")
		}
		if g.closed.Load() != 1 {
			t.Errorf("%d files closed, want 1", g.closed.Load())
		}
		client.Close()
	})
}

func TestErrorOfCloseIsTold(t *testing.T) {
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		g := &gateServer{dirServer: &dirServer{home: t.TempDir()}, closeErr: &bridge.Error{Op: "close", Path: "/secret", Errno: syscall.ENOSPC}}
		r := begun(t, g, opt)
		h := r.open("f", sshfx.FlagWrite|sshfx.FlagCreate)
		if code, text := r.status(sshfx.PacketTypeClose, h); code != sshfx.StatusFailure || text != "No space left on device" {
			t.Errorf("CLOSE: %v %q", code, text)
		}
	})
}

func TestMustWait(t *testing.T) {
	h1, h2, w := &handle{path: "a"}, &handle{path: "b"}, &handle{path: "a", writes: true}
	app := &handle{path: "a", writes: true, appends: true}
	read := func(h *handle, off, n uint64) request {
		return request{typ: sshfx.PacketTypeRead, handle: h, off: off, length: n}
	}
	write := func(h *handle, off uint64, n int) request {
		return request{typ: sshfx.PacketTypeWrite, handle: h, off: off, length: uint64(n)}
	}
	typ := func(t sshfx.PacketType, h *handle) request { return request{typ: t, handle: h} }
	ext := func(name string) request { return request{typ: sshfx.PacketTypeExtended, name: name} }
	stat, mkdir, setstat := typ(sshfx.PacketTypeStat, nil), typ(sshfx.PacketTypeMkdir, nil), typ(sshfx.PacketTypeSetStat, nil)
	create := request{typ: sshfx.PacketTypeOpen, flags: syscall.O_CREAT}
	trunc := request{typ: sshfx.PacketTypeOpen, flags: syscall.O_TRUNC}
	open := request{typ: sshfx.PacketTypeOpen}
	tests := []struct {
		name string
		a, b request
		want bool
	}{
		{"stat, stat", stat, stat, false},
		{"open, stat", open, stat, false},
		{"create, stat", create, stat, true},
		{"stat, create", stat, create, true},
		{"mkdir, stat", mkdir, stat, true},
		{"mkdir, mkdir", mkdir, mkdir, true},
		{"mkdir, read", mkdir, read(h1, 0, 9), false},
		{"read, mkdir", read(h1, 0, 9), mkdir, false},
		{"read, read", read(h1, 0, 9), read(h1, 0, 9), false},
		{"read, truncate", read(h1, 0, 9), trunc, true},
		{"write, read apart", write(w, 0, 9), read(w, 9, 9), false},
		{"write, read overlapping", write(w, 0, 9), read(w, 8, 9), true},
		{"write, read of another handle of the file", write(w, 0, 9), read(h1, 0, 9), true},
		{"write, read of another file", write(w, 0, 9), read(h2, 0, 9), false},
		{"append, append", write(app, 0, 9), write(app, 9, 9), true},
		{"write, write apart", write(w, 0, 9), write(w, 9, 9), false},
		{"write, stat", write(w, 0, 9), stat, true},
		{"stat, write", stat, write(w, 0, 9), false},
		{"write, setstat", write(w, 0, 9), setstat, true},
		{"write, fstat", write(w, 0, 9), typ(sshfx.PacketTypeFStat, w), true},
		{"write, close", write(w, 0, 9), typ(sshfx.PacketTypeClose, w), true},
		{"write, close of another", write(w, 0, 9), typ(sshfx.PacketTypeClose, h2), false},
		{"close of a writer, stat", typ(sshfx.PacketTypeClose, w), stat, true},
		{"close of a reader, stat", typ(sshfx.PacketTypeClose, h1), stat, false},
		{"read, close", read(h1, 0, 9), typ(sshfx.PacketTypeClose, h1), true},
		{"readdir, readdir", typ(sshfx.PacketTypeReadDir, h1), typ(sshfx.PacketTypeReadDir, h1), true},
		{"readdir, readdir of another", typ(sshfx.PacketTypeReadDir, h1), typ(sshfx.PacketTypeReadDir, h2), false},
		{"copy-data, close", ext(extCopyData), typ(sshfx.PacketTypeClose, h1), true},
		{"statvfs, stat", ext(extStatVFS), stat, false},
		{"unknown, stat", ext("x@y"), stat, true},
		{"posix-rename, stat", ext(extPosixRename), stat, true},
		{"INIT, stat", typ(sshfx.PacketTypeInit, nil), stat, true},
	}
	for _, tt := range tests {
		a := &job{q: tt.a, kind: kindOf(&tt.a)}
		b := &job{q: tt.b, kind: kindOf(&tt.b)}
		if got := mustWait(a, b); got != tt.want {
			t.Errorf("%s: waits %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestReadOverALostConnection has a read fail because the backend's connection
// ended, which is told with io.EOF in it: no end of the file.
func TestReadOverALostConnection(t *testing.T) {
	home := t.TempDir()
	must(t, os.WriteFile(home+"/f", []byte("data"), 0o644))
	eachMode(t, func(t *testing.T, opt SessionOptions) {
		g := &gateServer{dirServer: &dirServer{home: home}, read: func(context.Context, int64) error {
			return fmt.Errorf("connection lost: %w: %w", syscall.EIO, io.EOF)
		}}
		r := begun(t, g, opt)
		h := r.open("f", sshfx.FlagRead)
		if code, _ := r.status(sshfx.PacketTypeRead, h, uint64(0), uint32(4)); code != sshfx.StatusFailure {
			t.Errorf("READ: %v, want FAILURE", code)
		}
	})
}

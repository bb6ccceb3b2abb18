package sftpsrv

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
	"go.uber.org/goleak"

	"sftpbridge/bridge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// A rig is a client that sends packets made by hand.
type rig struct {
	t      testing.TB
	rw     io.ReadWriteCloser
	ended  chan error // gets what Serve returned
	nextID uint32
}

// newRig begins a session over a pipe, without INIT.
func newRig(t testing.TB, srv bridge.Server, opt SessionOptions) *rig {
	t.Helper()
	client, server := net.Pipe()
	r := &rig{t: t, rw: client, ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		err := Serve(ctx, server, srv, opt)
		server.Close()
		r.ended <- err
		close(r.ended)
	}()
	t.Cleanup(func() {
		client.Close()
		cancel()
		<-r.ended
	})
	return r
}

// begun is newRig after INIT.
func begun(t testing.TB, srv bridge.Server, opt SessionOptions) *rig {
	t.Helper()
	r := newRig(t, srv, opt)
	r.send(packet(sshfx.PacketTypeInit, uint32(3)))
	if got := r.recv(); got[0] != byte(sshfx.PacketTypeVersion) {
		t.Fatalf("INIT is answered with type %d", got[0])
	}
	return r
}

// packet makes a packet of uint8, uint32, uint64, string and []byte (a string
// on the wire); raw is put in as it is.
func packet(typ sshfx.PacketType, fields ...any) []byte {
	b := []byte{0, 0, 0, 0, byte(typ)}
	for _, f := range fields {
		switch f := f.(type) {
		case uint8:
			b = append(b, f)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, f)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, f)
		case string:
			b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
			b = append(b, f...)
		case []byte:
			b = binary.BigEndian.AppendUint32(b, uint32(len(f)))
			b = append(b, f...)
		case raw:
			b = append(b, f...)
		default:
			panic("a field of another type")
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

type raw []byte

// send sends packets without waiting for anybody to take them.
func (r *rig) send(packets ...[]byte) {
	r.t.Helper()
	all := bytes.Join(packets, nil)
	r.deadline()
	if _, err := r.rw.Write(all); err != nil {
		r.t.Fatalf("sending: %v", err)
	}
}

func (r *rig) deadline() {
	if c, ok := r.rw.(net.Conn); ok {
		c.SetDeadline(time.Now().Add(patience))
	}
}

// recv returns the body of the next answer.
func (r *rig) recv() []byte {
	r.t.Helper()
	r.deadline()
	b, err := readPacket(r.rw)
	if err != nil {
		r.t.Fatalf("receiving: %v", err)
	}
	return b
}

func readPacket(rd io.Reader) ([]byte, error) {
	var n [4]byte
	if _, err := io.ReadFull(rd, n[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(n[:]))
	_, err := io.ReadFull(rd, b)
	return b, err
}

// ask sends one request and returns the type and the rest of its answer.
func (r *rig) ask(typ sshfx.PacketType, fields ...any) (sshfx.PacketType, *sshfx.Buffer) {
	r.t.Helper()
	r.nextID++
	r.send(packet(typ, append([]any{r.nextID}, fields...)...))
	b := sshfx.NewBuffer(r.recv())
	got := sshfx.PacketType(b.ConsumeUint8())
	if id := b.ConsumeUint32(); id != r.nextID {
		r.t.Fatalf("answer to request %d, want %d", id, r.nextID)
	}
	return got, b
}

// status is ask for a request that is answered by a status.
func (r *rig) status(typ sshfx.PacketType, fields ...any) (sshfx.Status, string) {
	r.t.Helper()
	got, b := r.ask(typ, fields...)
	if got != sshfx.PacketTypeStatus {
		r.t.Fatalf("type %d is answered with type %d, want STATUS", typ, got)
	}
	return sshfx.Status(b.ConsumeUint32()), b.ConsumeString()
}

// open opens a file and returns its handle.
func (r *rig) open(path string, pflags uint32) string {
	r.t.Helper()
	got, b := r.ask(sshfx.PacketTypeOpen, path, pflags, uint32(0))
	if got != sshfx.PacketTypeHandle {
		r.t.Fatalf("OPEN %s is answered with type %d: %q", path, got, b.Bytes())
	}
	return b.ConsumeString()
}

// wait returns what Serve returned.
func (r *rig) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(patience):
		r.t.Fatal("the session does not end")
		return nil
	}
}

// eachMode runs a test with requests served one by one and side by side.
func eachMode(t *testing.T, f func(t *testing.T, opt SessionOptions)) {
	for _, parallel := range []bool{false, true} {
		name := "serial"
		if parallel {
			name = "parallel"
		}
		t.Run(name, func(t *testing.T) { f(t, SessionOptions{Parallel: parallel}) })
	}
}

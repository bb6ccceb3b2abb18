package sftpsrv

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
	"golang.org/x/crypto/ssh"
)

const (
	window     = 64 // requests under way, as OpenSSH's client has them
	benchFiles = 1000
)

// benchSession begins a session over SSH, whose directory has the file f of
// 1 MiB and a directory d of empty files.
func benchSession(b *testing.B) *rig {
	b.Helper()
	ts := startServer(b, nil)
	must(b, os.WriteFile(ts.home+"/f", make([]byte, 1<<20), 0o644))
	must(b, os.Mkdir(ts.home+"/d", 0o755))
	for i := range benchFiles {
		must(b, os.WriteFile(filepath.Join(ts.home, "d", fmt.Sprintf("f%03d", i)), nil, 0o644))
	}
	ch, reqs, err := ts.dial().OpenChannel("session", nil)
	must(b, err)
	go ssh.DiscardRequests(reqs)
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"sftp"})); err != nil || !ok {
		b.Fatal("no subsystem: ", err)
	}
	r := &rig{t: b, rw: ch}
	r.send(packet(sshfx.PacketTypeInit, uint32(3)))
	r.recv()
	return r
}

// pipelined sends a request b.N times, with a window of them under way.
func pipelined(b *testing.B, r *rig, request []byte, answer int) {
	b.Helper()
	tokens := make(chan struct{}, window)
	go func() {
		for range b.N {
			tokens <- struct{}{}
			if _, err := r.rw.Write(request); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, answer)
	b.ReportAllocs() // of the client, too
	b.ResetTimer()
	for range b.N {
		if _, err := io.ReadFull(r.rw, buf); err != nil {
			b.Fatal(err)
		}
		<-tokens
	}
}

func BenchmarkRead(b *testing.B) {
	for name, size := range map[string]uint32{"32K": 32 << 10, "255K": 255 << 10} {
		b.Run(name, func(b *testing.B) {
			r := benchSession(b)
			h := r.open("f", sshfx.FlagRead)
			b.SetBytes(int64(size))
			pipelined(b, r, packet(sshfx.PacketTypeRead, uint32(1), h, uint64(0), size), int(size)+13)
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for name, size := range map[string]int{"32K": 32 << 10, "255K": 255 << 10} {
		b.Run(name, func(b *testing.B) {
			r := benchSession(b)
			h := r.open("f", sshfx.FlagWrite)
			b.SetBytes(int64(size))
			request := packet(sshfx.PacketTypeWrite, uint32(1), h, uint64(0), make([]byte, size))
			pipelined(b, r, request, len(packet(sshfx.PacketTypeStatus, uint32(1), uint32(0), "Success", "")))
		})
	}
}

func BenchmarkStat(b *testing.B) {
	r := benchSession(b)
	pipelined(b, r, packet(sshfx.PacketTypeStat, uint32(1), "f"), 4+5+4+8+4+4+4+8)
}

// BenchmarkReaddir lists a directory with the attributes of its files.
func BenchmarkReaddir(b *testing.B) {
	r := benchSession(b)
	b.ReportAllocs()
	for b.Loop() {
		_, buf := r.ask(sshfx.PacketTypeOpenDir, "d")
		h := buf.ConsumeString()
		entries := uint32(0)
		for {
			typ, buf := r.ask(sshfx.PacketTypeReadDir, h)
			if typ != sshfx.PacketTypeName {
				break
			}
			entries += buf.ConsumeUint32()
		}
		if entries != benchFiles+2 {
			b.Fatalf("%d entries", entries)
		}
		r.status(sshfx.PacketTypeClose, h)
	}
}

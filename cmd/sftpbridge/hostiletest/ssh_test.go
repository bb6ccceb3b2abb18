package hostiletest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// grace is what the bridge of these tests leaves clients to log in.
const grace = "        login_grace: 4s\n"

const noPenalties = "        penalties: false\n"

// sshPacket frames an SSH packet that is not encrypted.
func sshPacket(payload []byte) []byte {
	padding := 8 - (5+len(payload))%8
	if padding < 4 {
		padding += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	b = append(b, byte(padding))
	b = append(b, payload...)
	return append(b, make([]byte, padding)...)
}

// kexInit is a KEXINIT that the bridge can agree with.
func kexInit() []byte {
	b := append([]byte{20}, make([]byte, 16)...)
	for _, names := range []string{
		"curve25519-sha256", "ssh-ed25519,rsa-sha2-512", "aes128-ctr", "aes128-ctr",
		"hmac-sha2-256", "hmac-sha2-256", "none", "none", "", "",
	} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(names)))
		b = append(b, names...)
	}
	return append(b, 0, 0, 0, 0, 0)
}

// ecdhInit is a KEX_ECDH_INIT with a key.
func ecdhInit(key []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{30}, uint32(len(key))), key...)
}

const version = "SSH-2.0-hostile\r\n"

func garbage(n int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(n), 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// beforeLogin are what clients send that do not log in.
func beforeLogin() map[string][]byte {
	withVersion := func(parts ...[]byte) []byte {
		return append([]byte(version), bytes.Join(parts, nil)...)
	}
	kex := sshPacket(kexInit())
	return map[string][]byte{
		"garbage":                         garbage(5000),
		"HTTP":                            []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":                             {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"a version without end":           []byte("SSH-2.0-" + strings.Repeat("x", 1<<20)),
		"lines before the version":        []byte(strings.Repeat("hello\r\n", 1<<17)),
		"version 1":                       []byte("SSH-1.5-x\r\n"),
		"NULs":                            make([]byte, 1<<16),
		"garbage after the version":       withVersion(garbage(100_000)),
		"a packet of 4 GiB":               withVersion([]byte{0xff, 0xff, 0xff, 0xff, 4}),
		"a packet of 1 MiB":               withVersion([]byte{0, 0x10, 0, 0, 4}),
		"a packet of nothing":             withVersion([]byte{0, 0, 0, 0, 0}),
		"more padding than packet":        withVersion([]byte{0, 0, 0, 12, 255}, make([]byte, 11)),
		"a truncated KEXINIT":             withVersion(sshPacket(kexInit()[:40])),
		"a KEXINIT of long names":         withVersion(sshPacket(append(append([]byte{20}, make([]byte, 16)...), 0xff, 0xff, 0xff, 0xff))),
		"a KEXINIT of nothing in common":  withVersion(sshPacket(bytes.ReplaceAll(kexInit(), []byte("curve25519"), []byte("curve00000")))),
		"two KEXINITs":                    withVersion(kex, kex),
		"an all-zero key":                 withVersion(kex, sshPacket(ecdhInit(make([]byte, 32)))),
		"a short key":                     withVersion(kex, sshPacket(ecdhInit(make([]byte, 3)))),
		"an endless key":                  withVersion(kex, sshPacket([]byte{30, 0xff, 0xff, 0xff, 0xff})),
		"a login before the key exchange": withVersion(sshPacket(append([]byte{5, 0, 0, 0, 12}, "ssh-userauth"...))),
		"a channel before the login":      withVersion(kex, sshPacket(ecdhInit(garbage(32))), sshPacket([]byte{21}), garbage(1000)),
		"DISCONNECT":                      withVersion(sshPacket([]byte{1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0})),
		"IGNORE without end":              withVersion(bytes.Repeat(sshPacket(append([]byte{2, 0, 0, 16, 0}, make([]byte, 4096)...)), 500)),
		"unknown messages":                withVersion(bytes.Repeat(sshPacket([]byte{199}), 1000)),
	}
}

// TestBeforeLogin: what a client sends before it has logged in ends its own
// connection, and nothing else.
func TestBeforeLogin(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", grace+noPenalties+"        max_startups: 400\n")
	b.serves("nothing")
	fds := b.descriptors()
	var all sync.WaitGroup
	for name, send := range beforeLogin() {
		c, err := b.dialFrom("127.0.0.2")
		must(t, err)
		c.SetDeadline(time.Now().Add(patience))
		all.Go(func() { c.Write(send) }) // it may be closed before it has taken all
		all.Go(func() {
			defer c.Close()
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection stays", name)
			}
		})
	}
	all.Wait()
	b.serves("hostile handshakes")
	eventually(t, "the connections are gone", func() bool { return b.descriptors() <= fds })
	if m := b.memory(); m > 300 {
		t.Errorf("%d MiB of memory afterwards", m)
	}
}

// TestSlowClients: who connects and sends little by little, or nothing, is
// bounded by address and ended in time, and others log in meanwhile.
func TestSlowClients(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", grace+noPenalties+"        max_startups: 40\n")
	const n = 120
	closed := make(chan error, n)
	for i := range n {
		c, err := b.dialFrom("127.0.0.2")
		must(t, err)
		c.SetDeadline(time.Now().Add(patience))
		go func() {
			defer c.Close()
			stop := make(chan struct{})
			go trickle(c, i, stop)
			_, err := io.Copy(io.Discard, c)
			close(stop)
			closed <- err
		}()
	}
	b.serves("120 clients that do not log in")
	for range n {
		if err := <-closed; errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection that does not log in stays")
		}
	}
	if log := b.log.text(); !strings.Contains(log, "that have not logged in") {
		t.Error("none of them was refused at once")
	}
	b.serves("that")
}

// trickle sends something every now and then.
func trickle(c net.Conn, i int, stop chan struct{}) {
	text := []string{"", version, version + "\x00\x00\x01\x00\x04", "hello\r\n"}[i%4]
	for i := range text {
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	<-stop
}

// TestFailedLogins: an address that keeps failing is refused, others are not.
func TestFailedLogins(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", "")
	wrong := newKey(t)
	eventually(t, "127.0.0.3 is refused", func() bool {
		if c, err := b.login(wrong, "127.0.0.3"); err == nil {
			c.Close()
			t.Fatal("a login with a wrong key")
		}
		return strings.Contains(b.log.text(), "it failed too often")
	})
	if c, err := b.login(b.key, "127.0.0.3"); err == nil {
		c.Close()
		t.Error("with the right key it is let in though it failed too often")
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("refused in another way than by closing: %v", err)
	}
	b.serves("failed logins of another address")
}

package hostiletest

import (
	"flag"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

var idle = flag.Int("idle", 50, "idle sessions to measure the memory of")

// ifRaceless chooses a bound of memory, of which the race detector needs
// several times as much.
func ifRaceless(bound, race int) int {
	if *raceless {
		return bound
	}
	return race
}

// TestIdleSessions: each idle connection with a session costs the process
// little memory.
func TestIdleSessions(t *testing.T) {
	b := startBridge(t, t.TempDir(), "", noPenalties+fmt.Sprintf("        max_connections: %d\n        max_connections_per_address: %[1]d\n", *idle+10))
	b.serves("nothing")
	before := b.memory()
	for i := range *idle {
		nc, err := b.dialFrom(net.IPv4(127, 0, 1, byte(i%250)).String())
		must(t, err)
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		conn, chans, reqs, err := ssh.NewClientConn(nc, b.addr, &ssh.ClientConfig{
			User: "u", Auth: []ssh.AuthMethod{ssh.PublicKeys(b.key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		must(t, err)
		nc.SetDeadline(time.Time{})
		begun(t, ssh.NewClient(conn, chans, reqs))
	}
	each := (b.memory() - before) * 1024 / *idle
	t.Logf("%d idle sessions: %d MiB, %d KiB each", *idle, b.memory(), each)
	if most := ifRaceless(150, 1024); each > most {
		t.Errorf("%d KiB each, want %d at most", each, most)
	}
	b.serves("idle sessions")
}

package sftpfs

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// A tableServer gives handles as OpenSSH's sftp-server does.
type tableServer struct {
	open map[uint32]bool
	free []uint32
	next uint32
}

func (s *tableServer) give() uint32 {
	h := s.next
	switch n := len(s.free); {
	case n == 0:
		s.next++
	default:
		h, s.free = s.free[n-1], s.free[:n-1]
	}
	s.open[h] = true
	return h
}

func (s *tableServer) close(h uint32) {
	delete(s.open, h)
	s.free = append(s.free, h)
}

// TestForesight has random requests under way with a server, some of which
// fail: what is foreseen is right unless an OPEN before it failed, and if it is
// not right, the handle is open nowhere when the server gets to it.
func TestForesight(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		server := &tableServer{open: map[uint32]bool{}}
		var f foresight
		var ours []uint32 // open, and no CLOSE sent
		var way []*call   // what the server has not come to
		var right, wrong int
		serve := func() {
			c := way[0]
			way = way[1:]
			switch {
			case c.handling.closes:
				server.close(c.handling.handle)
				c.typ = sshfx.PacketTypeStatus
			case c.slow: // an OPEN that fails
				c.typ = sshfx.PacketTypeStatus
				if h, ok := handleNumber(c.foreseen); ok && server.open[h] {
					t.Fatalf("seed %d: the foreseen handle %d of an OPEN that failed is open", seed, h)
				}
			default:
				h := server.give()
				if want, ok := handleNumber(c.foreseen); ok && want == h {
					right++
				} else if ok {
					wrong++
					if server.open[want] {
						t.Fatalf("seed %d: a foreseen handle is open for something else", seed)
					}
				}
				ours = append(ours, h)
				c.typ = sshfx.PacketTypeHandle
				c.body = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 4), h)
			}
			c.ended = true
			f.answered(c)
		}
		fails := seed%2 == 1
		for range 2000 {
			switch n := rnd.IntN(10); {
			case n < 3 && len(ours) > 0:
				i := rnd.IntN(len(ours))
				c := &call{handling: handling{closes: true, handle: ours[i]}}
				ours = slices.Delete(ours, i, i+1)
				f.sent(c)
				way = append(way, c)
			case n < 6 && len(way) < 30:
				c := &call{handling: handling{opens: true}, slow: fails && rnd.IntN(4) == 0}
				f.sent(c)
				c.foreseen, _ = f.foresee()
				way = append(way, c)
			case len(way) > 0:
				serve()
			}
		}
		for len(way) > 0 {
			serve()
		}
		if f.off || right < 100 || !fails && wrong > 0 {
			t.Errorf("seed %d: off %v, %d right, %d wrong", seed, f.off, right, wrong)
		}
	}
}

// TestForesightGivesUp has servers that give handles in other ways, or answer
// out of order: nothing is foreseen of them.
func TestForesightGivesUp(t *testing.T) {
	handle := func(b ...byte) []byte { return append([]byte{0, 0, 0, byte(len(b))}, b...) }
	open := func(body []byte) *call {
		return &call{handling: handling{opens: true}, typ: sshfx.PacketTypeHandle, body: body, ended: true}
	}
	for _, test := range []struct {
		name    string
		answers []*call
		swapped bool
	}{
		{"names", []*call{open(handle('a', 'b'))}, false},
		{"numbers from 1", []*call{open(handle(0, 0, 0, 1))}, false},
		{"a short answer", []*call{open([]byte{0, 0})}, false},
		{"the first freed", []*call{open(handle(0, 0, 0, 0)), open(handle(0, 0, 0, 1)), {handling: handling{closes: true, handle: 0}}, {handling: handling{closes: true, handle: 1}}, open(handle(0, 0, 0, 0))}, false},
		{"out of order", []*call{open(handle(0, 0, 0, 0)), open(handle(0, 0, 0, 1))}, true},
	} {
		var f foresight
		for _, c := range test.answers {
			f.sent(c)
		}
		if test.swapped {
			slices.Reverse(test.answers)
		}
		for _, c := range test.answers {
			f.answered(c)
		}
		f.sent(&call{handling: handling{opens: true}})
		if h, c := f.foresee(); c != nil {
			t.Errorf("%s: foresees %q", test.name, h)
		}
	}
}

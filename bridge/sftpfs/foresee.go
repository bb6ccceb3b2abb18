package sftpfs

import (
	"encoding/binary"
	"slices"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// A foresight knows which handle a server like OpenSSH's will give next, so that
// what is to be done with a file can be sent together with its OPEN: the one
// that was freed last, or else the next number. It follows the server from the
// start of a session, and gives up for good when the server turns out to do
// otherwise or to answer out of order. A request that was sent with a handle
// that the file did not get does no harm: that handle is then open nowhere.
type foresight struct {
	free    []uint32 // freed, the next one at the end
	next    uint32   // was never given
	begun   bool     // it was right once
	off     bool
	pending []*call // OPEN, OPENDIR and CLOSE without an answer, as they were sent
}

// maxForeseen bounds the requests under way beyond which nothing is foreseen.
const maxForeseen = 128

// A handling is what a request does to the handles of a session.
type handling struct {
	opens  bool
	closes bool
	handle uint32 // that it closes
}

// handlingOf returns what a request does to handles.
func handlingOf(p sshfx.PacketMarshaller) handling {
	switch p := p.(type) {
	case *sshfx.OpenPacket, *sshfx.OpenDirPacket:
		return handling{opens: true}
	case *sshfx.ClosePacket:
		h, ok := handleNumber(p.Handle)
		return handling{closes: ok, handle: h}
	}
	return handling{}
}

func handleNumber(h string) (uint32, bool) {
	if len(h) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32([]byte(h)), true
}

// sent takes up a request that is put on the way.
func (f *foresight) sent(c *call) {
	if c.handling == (handling{}) || f.off {
		return
	}
	f.pending = append(f.pending, c)
}

// foresee returns the handle that the OPEN or OPENDIR sent last will get, and
// the call of that.
func (f *foresight) foresee() (string, *call) {
	n := len(f.pending)
	if f.off || !f.begun || n == 0 || n > maxForeseen || !f.pending[n-1].handling.opens {
		return "", nil
	}
	then := foresight{free: slices.Clone(f.free), next: f.next}
	var h uint32
	for _, c := range f.pending {
		h = then.take(c.handling)
	}
	return string(binary.BigEndian.AppendUint32(nil, h)), f.pending[n-1]
}

// take follows the server as it carries out a request, and returns the handle
// that it gives.
func (f *foresight) take(h handling) uint32 {
	n := len(f.free)
	switch {
	case h.closes:
		f.free = append(f.free, h.handle)
		return 0
	case n > 0:
		last := f.free[n-1]
		f.free = f.free[:n-1]
		return last
	}
	f.next++
	return f.next - 1
}

// answered takes up the answer to a request.
func (f *foresight) answered(c *call) {
	if c.after != nil && !c.after.ended {
		c.foreseen, f.off = "", true // out of order
	}
	if c.handling == (handling{}) || f.off {
		return
	}
	if len(f.pending) == 0 || f.pending[0] != c {
		f.off, f.pending = true, nil
		return
	}
	f.pending = f.pending[1:]
	if c.handling.opens && c.typ != sshfx.PacketTypeHandle {
		return // it failed
	}
	want := f.take(c.handling)
	if !c.handling.opens {
		return
	}
	f.begun = true
	if got, ok := handleNumber(string(c.body[min(4, len(c.body)):])); !ok || got != want {
		f.off, f.pending = true, nil
	}
}

// foreseen makes the request, a READ or READDIR, one that goes to the handle of
// the OPEN or OPENDIR that is put on the way together with it and before it. If
// that cannot be foreseen it is not sent, and has no answer.
func foreseen(r request) request {
	r.foresee = true
	return r
}

// setHandle gives a READ or READDIR its handle.
func setHandle(p sshfx.PacketMarshaller, h string) {
	switch p := p.(type) {
	case *sshfx.ReadPacket:
		p.Handle = h
	case *sshfx.ReadDirPacket:
		p.Handle = h
	}
}

// went reports whether the request, one of foreseen, was sent to the handle h,
// and so has the answer that is wanted.
func (c *call) went(h string) bool { return c.foreseen != "" && c.foreseen == h }

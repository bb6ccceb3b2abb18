package sftpsrv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// Sizes of the protocol, which are OpenSSH's.
const (
	maxPacket = 256 << 10        // length field of a packet; a longer one ends the session
	maxData   = maxPacket - 1024 // bytes of one READ or WRITE (limits@openssh.com)
	maxReply  = 96 << 10         // a NAME reply is closed once it is longer; sshfs refuses 128 KiB
	flushAt   = 128 << 10        // answers are written out once they come to this
)

var errPacketLength = errors.New("packet too long")

// A packetReader splits a stream into packets, in place.
type packetReader struct {
	r          io.Reader
	buf        []byte
	start, end int // the bytes that were read and not yet handed out
}

func newPacketReader(r io.Reader) *packetReader {
	return &packetReader{r: r, buf: make([]byte, smallBuffer)}
}

// next returns the body of the next packet, without its length. It is valid up
// to the next call. The error is io.EOF only between packets.
func (p *packetReader) next() ([]byte, error) {
	if err := p.fill(4); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(p.buf[p.start:])
	if n > maxPacket {
		return nil, fmt.Errorf("%w: %d bytes", errPacketLength, n)
	}
	if err := p.fill(4 + int(n)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	body := p.buf[p.start+4 : p.start+4+int(n) : p.start+4+int(n)]
	p.start += 4 + int(n)
	return body, nil
}

// whole reports whether next can return without reading.
func (p *packetReader) whole() bool {
	have := p.buf[p.start:p.end]
	return len(have) >= 4 && len(have)-4 >= int(binary.BigEndian.Uint32(have))
}

// fill reads until n bytes are there.
func (p *packetReader) fill(n int) error {
	if p.end-p.start >= n {
		return nil
	}
	if p.start == p.end {
		p.start, p.end = 0, 0
	}
	if p.start+n > len(p.buf) {
		if n > len(p.buf) {
			grown := make([]byte, maxPacket+4)
			p.end = copy(grown, p.buf[p.start:p.end])
			p.buf = grown
		} else {
			p.end = copy(p.buf, p.buf[p.start:p.end])
		}
		p.start = 0
	}
	m, err := io.ReadAtLeast(p.r, p.buf[p.end:], n-(p.end-p.start))
	p.end += m
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		if p.end == p.start {
			return io.EOF
		}
		return io.ErrUnexpectedEOF
	}
	return err
}

// A reply collects answers, one packet after the other.
type reply struct {
	b     []byte
	start int // of the packet that is being built
}

// begin starts a packet.
func (r *reply) begin(typ sshfx.PacketType, id uint32) {
	r.start = len(r.b)
	r.b = append(r.b, 0, 0, 0, 0, byte(typ))
	r.uint32(id)
}

// end puts the length into the packet that begin started.
func (r *reply) end() {
	binary.BigEndian.PutUint32(r.b[r.start:], uint32(len(r.b)-r.start-4))
}

// drop takes back the packet that begin started.
func (r *reply) drop() { r.b = r.b[:r.start] }

// size is the length of the packet under way.
func (r *reply) size() int { return len(r.b) - r.start }

func (r *reply) uint32(v uint32) { r.b = binary.BigEndian.AppendUint32(r.b, v) }
func (r *reply) uint64(v uint64) { r.b = binary.BigEndian.AppendUint64(r.b, v) }

func (r *reply) string(s string) {
	r.uint32(uint32(len(s)))
	r.b = append(r.b, s...)
}

// extend adds n bytes to be filled in, and returns them.
func (r *reply) extend(n int) []byte {
	r.b = slices.Grow(r.b, n)
	at := len(r.b)
	r.b = r.b[:at+n]
	return r.b[at:]
}

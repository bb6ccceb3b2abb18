package sftpsrv

import (
	"io"
	"time"
)

const (
	smallBuffer = 4 << 10     // of a connection or session that has little to read
	calm        = time.Second // without anything to read, after which a large buffer is given up
)

// A readBuffer reads in large pieces when there is much to read. While there
// is not, it has little memory: most connections are idle most of the time.
type readBuffer struct {
	r    io.Reader
	buf  []byte
	rest []byte // of buf: what was read and not yet taken
	full bool   // the last read filled buf
	last time.Time
}

func newReadBuffer(r io.Reader) *readBuffer {
	return &readBuffer{r: r, buf: make([]byte, smallBuffer)}
}

func (b *readBuffer) Read(p []byte) (int, error) {
	if len(b.rest) == 0 {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// fill reads once. It returns no error if it has read anything.
func (b *readBuffer) fill() error {
	if b.full && len(b.buf) < connBuffer {
		b.buf = make([]byte, connBuffer)
	}
	n, err := b.r.Read(b.buf)
	now := time.Now()
	b.full = n == len(b.buf)
	b.rest = b.buf[:n]
	if len(b.buf) > smallBuffer && n < smallBuffer && now.Sub(b.last) > calm {
		b.buf = make([]byte, smallBuffer)
		b.rest = b.buf[:copy(b.buf, b.rest)]
	}
	b.last = now
	if n > 0 {
		return nil
	}
	return err
}

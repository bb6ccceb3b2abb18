package sftpfs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// A session is one SFTP channel. Any number of goroutines may have requests on
// it; one goroutine writes them, as many at once as there are, and one reads
// the answers and hands them out by request id.
type session struct {
	ch      io.ReadWriteCloser
	timeout time.Duration
	onDead  func() // called once, when the session has ended
	server  serverInfo

	ready chan struct{} // closed when VERSION has come
	dead  chan struct{} // closed when the session has ended
	// finished is closed when the session's goroutines have returned.
	finished chan struct{}
	running  atomic.Int32
	way      *shortest // how long answers take
	gate     *gate     // opened when there is room for more data

	heard atomic.Int64 // when bytes last came from the server, in Unix nanoseconds
	asked atomic.Int64 // when a request was sent while none was under way; 0 while none is
	load  atomic.Int64 // bytes of data in flight
	slow  atomic.Int32 // requests in flight that may take long
	// readCap is the most that a READ was seen to give, 0 if that is not known.
	readCap atomic.Int64

	mu     sync.Mutex
	future foresight        // guarded by mu
	wake   sync.Cond        // out or err has changed
	out    []byte           // packets to be written; guarded by mu
	calls  map[uint32]*call // without an answer yet; guarded by mu
	lastID uint32           // guarded by mu
	err    error            // why the session ended; guarded by mu
}

// A serverInfo is what the server said of itself.
type serverInfo struct {
	ext      map[string]string
	maxRead  int // bytes of one READ
	maxWrite int // bytes of one WRITE
}

// has reports whether the server announced the extension in the given version.
func (i serverInfo) has(name, version string) bool { return i.ext[name] == version }

// posix reports whether the server is one that passes requests on to the
// system calls of their names, as OpenSSH's does: REMOVE never removes a
// directory, RENAME never replaces, a file may be open for writing twice.
func (i serverInfo) posix() bool { return i.has(extFSync, "1") && i.has(extLSetStat, "1") }

// What one READ or WRITE may have for a server without limits@openssh.com:
// what draft-02 says every server must take.
const defaultChunk = 32 << 10

// keepBuffer is how large a write buffer may be that is used again.
const keepBuffer = 2 << 20

// newSession starts SFTP on the channel ch, which it takes over, until ctx ends, for the pool p,
// of which it learns what earlier sessions know of the server. With an error
// it returns a session that has ended, and may not be finished yet.
func newSession(ctx context.Context, ch io.ReadWriteCloser, p *pool, onDead func()) (*session, error) {
	s := &session{
		ch: ch, timeout: p.opt.Timeout, onDead: onDead, way: &p.way, gate: &p.gate,
		ready: make(chan struct{}), dead: make(chan struct{}), finished: make(chan struct{}),
		calls: make(map[uint32]*call),
	}
	s.wake.L = &s.mu
	s.heard.Store(time.Now().UnixNano())
	s.out, _ = (&sshfx.InitPacket{Version: 3}).MarshalBinary()
	s.running.Store(3)
	go s.write()
	go s.read()
	go s.closeWhenDead()
	err := s.greet(ctx, p.known())
	if err != nil {
		s.fail(err)
	}
	return s, err
}

// returned is called by each goroutine of the session at its end.
func (s *session) returned() {
	if s.running.Add(-1) == 0 {
		close(s.finished)
	}
}

// greet waits for VERSION and asks for the server's limits.
func (s *session) greet(ctx context.Context, known *serverInfo) error {
	select {
	case <-s.ready:
	case <-s.dead:
		return s.cause()
	case <-ctx.Done():
		return ctx.Err()
	}
	if known != nil {
		s.server.maxRead, s.server.maxWrite = known.maxRead, known.maxWrite
		return nil
	}
	s.server.maxRead, s.server.maxWrite = defaultChunk, defaultChunk
	if !s.server.has(extLimits, "1") {
		return nil
	}
	calls, err := s.exchange(ctx, extended(extLimits, nil))
	if err != nil {
		return err
	}
	body, err := calls[0].extendedReply()
	if err != nil {
		return nil // it does not say
	}
	b := sshfx.NewBuffer(body)
	packet, read, write := b.ConsumeUint64(), b.ConsumeUint64(), b.ConsumeUint64()
	if b.Err != nil {
		return garbage("answer to limits: %w", b.Err)
	}
	const most = maxPacket - 2048 // with room for the packet's other fields
	limit := func(n uint64) int {
		if n == 0 { // no limit but the packet's
			n = packet - min(packet, 1024)
		}
		return int(min(max(n, 1024), most))
	}
	s.server.maxRead, s.server.maxWrite = limit(read), limit(write)
	return nil
}

// begin puts requests on the way, together. It fails only if the session has
// ended.
func (s *session) begin(reqs ...request) ([]*call, error) {
	calls := make([]*call, len(reqs))
	if len(reqs) == 0 {
		return nil, nil
	}
	size := 0
	for _, r := range reqs {
		if w, ok := r.packet.(*sshfx.WritePacket); ok {
			size += w.MarshalSize()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, &lostError{cause: s.err}
	}
	s.out = slices.Grow(s.out, size)
	for i, r := range reqs {
		c := &call{s: s, dst: r.dst, room: len(r.dst), weight: r.weight(), slow: r.slow, born: time.Now(), done: make(chan struct{}), handling: handlingOf(r.packet)}
		if err := s.queueLocked(c, r); err != nil {
			return nil, err
		}
		calls[i] = c
	}
	s.asked.CompareAndSwap(0, time.Now().UnixNano())
	s.wake.Signal()
	return calls, nil
}

// queueLocked appends the packet of r to what is to be written. s.mu is held.
func (s *session) queueLocked(c *call, r request) error {
	if r.foresee {
		if c.foreseen, c.after = s.future.foresee(); c.after == nil {
			c.ended = true
			close(c.done)
			return nil
		}
		setHandle(r.packet, c.foreseen)
	}
	for {
		s.lastID++
		if _, taken := s.calls[s.lastID]; !taken {
			break
		}
	}
	head, payload, err := r.packet.MarshalPacket(s.lastID, nil)
	if err != nil {
		return err
	}
	s.out = append(append(s.out, head...), payload...)
	s.calls[s.lastID] = c
	s.future.sent(c)
	s.load.Add(c.weight)
	if c.slow {
		s.slow.Add(1)
	}
	return nil
}

// exchange puts requests on the way together and waits for all answers. Its
// error is that of a session that ended, a time-out or ctx; what the answers
// say is in the calls.
func (s *session) exchange(ctx context.Context, reqs ...request) ([]*call, error) {
	calls, err := s.begin(reqs...)
	if err != nil {
		return nil, err
	}
	return calls, wait(ctx, calls...)
}

// send puts a request on the way whose answer nobody wants.
func (s *session) send(r request) {
	if calls, err := s.begin(r); err == nil {
		calls[0].drop()
	}
}

// write writes what begin has queued, until the session ends.
func (s *session) write() {
	defer s.returned()
	var buf []byte
	for {
		s.mu.Lock()
		for len(s.out) == 0 && s.err == nil {
			s.wake.Wait()
		}
		if s.err != nil {
			s.mu.Unlock()
			return
		}
		buf, s.out = s.out, buf[:0]
		s.mu.Unlock()
		if _, err := s.ch.Write(buf); err != nil {
			s.failSoon(fmt.Errorf("write: %w", err))
			return
		}
		if cap(buf) > keepBuffer {
			buf = nil
		}
	}
}

// read hands out answers until the session ends.
func (s *session) read() {
	defer s.returned()
	br := bufio.NewReaderSize(heardReader{s}, 256<<10)
	packet, err := readPacket(br)
	if err == nil {
		if s.server.ext, err = readVersion(packet); err != nil {
			err = garbage("%w", err)
		}
	}
	if err == nil {
		close(s.ready)
	}
	for err == nil {
		err = s.readAnswer(br)
	}
	s.fail(err)
}

// A heardReader reads from the channel and notes when something came.
type heardReader struct{ s *session }

func (r heardReader) Read(p []byte) (int, error) {
	n, err := r.s.ch.Read(p)
	if n > 0 {
		r.s.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// readAnswer reads one packet and ends the call that it answers.
func (s *session) readAnswer(br *bufio.Reader) error {
	head, err := br.Peek(headerBytes)
	if err != nil {
		return err
	}
	b := sshfx.NewBuffer(head)
	size, typ, id := b.ConsumeUint32(), sshfx.PacketType(b.ConsumeUint8()), b.ConsumeUint32()
	if size < headerBytes-4 || size > maxPacket {
		return garbage("a packet of %d bytes", size)
	}
	br.Discard(headerBytes)
	s.mu.Lock()
	c := s.calls[id]
	s.mu.Unlock()
	if c == nil {
		return garbage("an answer to no request")
	}
	rest := int(size) - (headerBytes - 4)
	var body []byte
	switch typ {
	case sshfx.PacketTypeData:
		err = s.readData(br, c, rest)
	case sshfx.PacketTypeStatus, sshfx.PacketTypeHandle, sshfx.PacketTypeName, sshfx.PacketTypeAttrs, sshfx.PacketTypeExtendedReply:
		body = make([]byte, rest)
		_, err = io.ReadFull(br, body)
	default:
		return garbage("an answer of type %d", typ)
	}
	if err != nil {
		return err
	}
	s.answer(id, c, typ, body)
	return nil
}

// readData reads the data of a DATA packet into the caller's buffer, as long
// as the caller waits for them.
func (s *session) readData(br *bufio.Reader, c *call, rest int) error {
	head, err := br.Peek(4)
	if err != nil {
		return err
	}
	n := int(sshfx.NewBuffer(head).ConsumeUint32())
	if rest < 4 || n != rest-4 || n > c.room {
		return garbage("%d bytes of data for a request of %d", n, c.room)
	}
	br.Discard(4)
	for got := 0; got < n; {
		if _, err := br.Peek(1); err != nil {
			return err
		}
		p, _ := br.Peek(min(br.Buffered(), n-got))
		s.mu.Lock()
		if c.dst != nil {
			copy(c.dst[got:], p)
		}
		s.mu.Unlock()
		br.Discard(len(p))
		got += len(p)
	}
	c.got = n
	return nil
}

// answer ends the call c.
func (s *session) answer(id uint32, c *call, typ sshfx.PacketType, body []byte) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return // fail has ended it
	}
	delete(s.calls, id)
	s.way.took(time.Since(c.born))
	dropped := c.dropped
	c.typ, c.body = typ, body
	s.future.answered(c)
	s.doneLocked(c)
	s.mu.Unlock()
	if dropped {
		c.discard()
	}
}

// doneLocked ends a call. s.mu is held.
func (s *session) doneLocked(c *call) {
	if load := s.load.Add(-c.weight); load < full && load+c.weight >= full {
		s.gate.open()
	}
	if c.slow {
		s.slow.Add(-1)
	}
	if len(s.calls) == 0 {
		s.asked.Store(0)
	}
	c.dst = nil
	c.ended = true
	close(c.done)
}

// fail ends the session, and all calls that wait on it, for the reason err.
func (s *session) fail(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = err
	for id, c := range s.calls {
		delete(s.calls, id)
		c.err = &lostError{cause: err, sent: true}
		s.doneLocked(c)
	}
	s.out = nil
	s.wake.Broadcast()
	close(s.dead)
	s.mu.Unlock()
	s.onDead()
}

// failSoon is fail after a moment in which the reader may find a better reason:
// the server's last words.
func (s *session) failSoon(err error) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-s.dead:
	case <-timer.C:
		s.fail(err)
	}
}

// closeWhenDead closes the channel when the session has ended: a write that
// is stuck must not keep those from returning who end the session.
func (s *session) closeWhenDead() {
	defer s.returned()
	<-s.dead
	s.ch.Close()
}

// alive reports whether the session has not ended.
func (s *session) alive() bool {
	select {
	case <-s.dead:
		return false
	default:
		return true
	}
}

// stuck reports whether the server has not answered for so long that new
// requests had better go elsewhere.
func (s *session) stuck() bool {
	asked := s.asked.Load()
	if asked == 0 {
		return false
	}
	silent := time.Since(time.Unix(0, max(asked, s.heard.Load())))
	return silent > s.timeout/6
}

// cause returns why the session ended.
func (s *session) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *session) isFinished() bool {
	select {
	case <-s.finished:
		return true
	default:
		return false
	}
}

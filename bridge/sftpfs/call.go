package sftpfs

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// A call is a request under way or answered.
type call struct {
	s      *session
	room   int // the size that dst had
	weight int64
	slow   bool
	born   time.Time
	done   chan struct{}

	handling handling
	after    *call  // what brings the handle that was foreseen
	foreseen string // that handle; guarded by s.mu until done is closed

	dst     []byte // where data go; nil when nobody waits for them; guarded by s.mu
	dropped bool   // guarded by s.mu
	ended   bool   // done is closed; guarded by s.mu

	// Set before done is closed.
	typ  sshfx.PacketType
	body []byte
	got  int   // bytes of data that came
	err  error // why there is no answer
}

// wait waits for the answers to calls. It returns the first error of a session
// that ended, a time-out or ctx; all calls are dropped then.
func wait(ctx context.Context, calls ...*call) error {
	for _, c := range calls {
		if err := c.wait(ctx); err != nil {
			drop(calls)
			return err
		}
	}
	return nil
}

func drop(calls []*call) {
	for _, c := range calls {
		c.drop()
	}
}

// wait waits for the answer. When nothing has come from the server for the
// time-out, the session is of no use any more and is ended.
func (c *call) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return c.err
	default:
	}
	start := c.born
	if t := startOf(ctx); !t.IsZero() {
		start = t
	}
	timer := time.NewTimer(c.s.patience(start))
	defer timer.Stop()
	for {
		select {
		case <-c.done:
			return c.err
		case <-ctx.Done():
			c.drop()
			return ctxError(ctx)
		case <-timer.C:
			if d := c.s.patience(start); d > 0 {
				timer.Reset(d)
				continue
			}
			c.s.fail(errTimeout)
			<-c.done
			if isLost(c.err) {
				return errTimeout
			}
			return c.err
		}
	}
}

// patience is how long a call of an operation that began at start may still
// wait: the time-out since the start or since something came, but not for
// ever. Servers do one thing at a time, so a request that takes long holds up
// the others.
func (s *session) patience(start time.Time) time.Duration {
	const atMost = 4
	limit := start.Add(atMost * s.timeout)
	if s.slow.Load() > 0 {
		return time.Until(limit)
	}
	next := start
	if heard := time.Unix(0, s.heard.Load()); heard.After(start) {
		next = heard
	}
	next = next.Add(s.timeout)
	if next.After(limit) {
		next = limit
	}
	return time.Until(next)
}

// drop says that nobody wants the answer: its data go nowhere, and a handle
// that it brings, or has brought, is closed.
func (c *call) drop() {
	s := c.s
	s.mu.Lock()
	again := c.dropped
	c.dst = nil
	c.dropped = true
	ended := c.ended
	s.mu.Unlock()
	if ended && !again {
		c.discard()
	}
}

// discard closes the handle that an unwanted answer brought.
func (c *call) discard() {
	if c.err != nil || c.typ != sshfx.PacketTypeHandle {
		return
	}
	if h, err := c.handle(); err == nil {
		c.s.send(closing(h))
	}
}

// ctxError is the errno for a context that ended.
func ctxError(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return syscall.ETIMEDOUT
	}
	return syscall.EINTR
}

// result returns the body of an answer of the type want; a STATUS instead is
// its error.
func (c *call) result(want sshfx.PacketType) ([]byte, error) {
	switch {
	case c.err != nil:
		return nil, c.err
	case c.typ == want && want != sshfx.PacketTypeStatus:
		return c.body, nil
	case c.typ != sshfx.PacketTypeStatus:
		return nil, c.garbage("an answer of type %d, not %d", c.typ, want)
	}
	status, err := readStatus(c.body)
	if err != nil {
		return nil, c.garbage("status: %w", err)
	}
	if status == nil && want != sshfx.PacketTypeStatus {
		return nil, c.garbage("status OK, not an answer of type %d", want)
	}
	return nil, status
}

// garbage ends the session of a server that does not keep to the protocol.
func (c *call) garbage(format string, args ...any) error {
	err := garbage(format, args...)
	c.s.fail(err)
	return err
}

// status returns the outcome of a request that is answered by STATUS only.
func (c *call) status() error {
	_, err := c.result(sshfx.PacketTypeStatus)
	if err == io.EOF {
		return c.garbage("status EOF")
	}
	return err
}

func (c *call) attrs() (bridge.Attr, error) {
	body, err := c.result(sshfx.PacketTypeAttrs)
	if err != nil {
		return bridge.Attr{}, notEOF(err)
	}
	a, err := readAttrs(sshfx.NewBuffer(body))
	if err != nil {
		return bridge.Attr{}, c.garbage("attributes: %w", err)
	}
	return toAttr(a), nil
}

func (c *call) handle() (string, error) {
	body, err := c.result(sshfx.PacketTypeHandle)
	if err != nil {
		return "", notEOF(err)
	}
	b := sshfx.NewBuffer(body)
	h := b.ConsumeString()
	if b.Err != nil || len(h) > maxHandle {
		return "", c.garbage("a handle of %d bytes", len(h))
	}
	return h, nil
}

// names returns the entries of a NAME answer, io.EOF at the end of a listing.
func (c *call) names() ([]entry, error) {
	body, err := c.result(sshfx.PacketTypeName)
	if err != nil {
		return nil, err
	}
	entries, err := readNames(body)
	if err != nil {
		return nil, c.garbage("names: %w", err)
	}
	return entries, nil
}

// path returns the one name of the answer to READLINK or REALPATH.
func (c *call) path() (string, error) {
	entries, err := c.names()
	if err != nil {
		return "", notEOF(err)
	}
	if len(entries) != 1 || entries[0].name == "" {
		return "", c.garbage("%d names instead of a path", len(entries))
	}
	return entries[0].name, nil
}

// data returns the number of bytes that came, io.EOF at the end of the file.
func (c *call) data() (int, error) {
	if _, err := c.result(sshfx.PacketTypeData); err != nil {
		return 0, err
	}
	return c.got, nil
}

func (c *call) extendedReply() ([]byte, error) {
	body, err := c.result(sshfx.PacketTypeExtendedReply)
	return body, notEOF(err)
}

// notEOF makes an error of an end of file where there can be none.
func notEOF(err error) error {
	if err == io.EOF {
		return newStatusError(sshfx.StatusFailure, "")
	}
	return err
}

// An opClock holds the time from which the waits of an operation count.
type opClock struct{ start atomic.Int64 } // Unix nanoseconds

type opClockKey struct{}

// started returns a context in which all calls and waits count from now on,
// if they do not count from an earlier time already.
func started(ctx context.Context) context.Context {
	if !startOf(ctx).IsZero() {
		return ctx
	}
	c := new(opClock)
	c.start.Store(time.Now().UnixNano())
	return context.WithValue(ctx, opClockKey{}, c)
}

// progress has the waits of an operation that has come further count from now.
func progress(ctx context.Context) {
	if c, ok := ctx.Value(opClockKey{}).(*opClock); ok {
		c.start.Store(time.Now().UnixNano())
	}
}

// startOf returns when the operation of ctx began, the zero time if ctx does
// not say.
func startOf(ctx context.Context) time.Time {
	c, ok := ctx.Value(opClockKey{}).(*opClock)
	if !ok {
		return time.Time{}
	}
	return time.Unix(0, c.start.Load())
}

package sftpsrv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// SessionOptions are how a session is served. The zero value is useful.
type SessionOptions struct {
	// Parallel has requests wait for a slow server side by side, as far as
	// the client cannot tell from their order. Without it each request is
	// answered before the next one is looked at, which is faster where an
	// answer takes no longer than handing the request to another goroutine.
	Parallel bool
	// MaxHandles is how many files and directories may be open at once; 0 is
	// 1024.
	MaxHandles int
	// MaxInFlight is how many bytes the requests that are being served may
	// come to, in what they brought and what they ask for; 0 is 16 MiB. It
	// matters with Parallel only.
	MaxInFlight int
	// Deny are requests that are refused, under the names that sftp-server
	// has for them: "open", "setstat", "posix-rename", …. An extension among
	// them is not announced.
	Deny []string
	// CloseTimeout is for how long the end of a session waits for what was
	// written to be stored; 0 is 30 seconds.
	CloseTimeout time.Duration
	Logger       *slog.Logger
}

// A session is one client on one stream.
type session struct {
	srv     bridge.Server
	opt     SessionOptions
	log     *slog.Logger
	handles handles
	denied  map[string]bool
	names   bridge.IDNamer // may be nil

	begun   bool               // INIT was seen; the reader's own
	batcher bridge.AttrBatcher // may be nil
	batch   bridge.AttrBatch   // of requests that came together; nil if there is none. It is serveSerial's own
}

// Serve serves one SFTP session on the stream rw until the client ends it,
// which is no error, or ctx ends. Then it waits for the requests under way and
// closes what the client left open. It closes rw only if it has to in order
// to end when ctx does.
func Serve(ctx context.Context, rw io.ReadWriteCloser, srv bridge.Server, opt SessionOptions) error {
	s := newSession(srv, opt)
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { rw.Close() })
	defer stop()

	var err error
	if opt.Parallel {
		err = s.serveParallel(ctx, cancel, rw)
	} else {
		err = s.serveSerial(ctx, rw)
	}
	if outer.Err() != nil {
		err = context.Cause(outer)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	s.closeAll(ctx)
	return err
}

func newSession(srv bridge.Server, opt SessionOptions) *session {
	if opt.MaxHandles <= 0 {
		opt.MaxHandles = 1024
	}
	if opt.MaxInFlight <= 0 {
		opt.MaxInFlight = 16 << 20
	}
	if opt.CloseTimeout <= 0 {
		opt.CloseTimeout = 30 * time.Second
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	s := &session{
		srv:     srv,
		opt:     opt,
		log:     opt.Logger,
		handles: handles{max: opt.MaxHandles, open: make(map[uint32]*handle)},
		denied:  make(map[string]bool),
	}
	s.names, _ = srv.(bridge.IDNamer)
	s.batcher, _ = srv.(bridge.AttrBatcher)
	for _, name := range opt.Deny {
		s.denied[name] = true
	}
	return s
}

// serveSerial answers one request after the other.
func (s *session) serveSerial(ctx context.Context, rw io.ReadWriter) error {
	in := newPacketReader(rw)
	var out reply
	defer s.endBatch()
	for {
		packet, err := in.next()
		if err != nil {
			return errors.Join(err, flush(rw, &out))
		}
		q, err := s.parse(packet)
		if err != nil {
			return errors.Join(err, flush(rw, &out))
		}
		more := in.whole() // has come already
		s.gather(&q, more)
		s.serve(ctx, &q, &out)
		if !more {
			s.endBatch() // what comes next came later
		}
		if len(out.b) >= flushAt || !more {
			if err := flush(rw, &out); err != nil {
				return err
			}
		}
	}
}

// flush writes out what was collected.
func flush(w io.Writer, out *reply) error {
	if len(out.b) == 0 {
		return nil
	}
	_, err := w.Write(out.b)
	out.b = out.b[:0]
	if err != nil {
		return fmt.Errorf("writing an answer: %w", err)
	}
	return nil
}

// closeAll closes what the client left open. What was written is worth
// waiting for even if the session was cancelled.
func (s *session) closeAll(ctx context.Context) {
	left := s.handles.takeAll()
	if len(left) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opt.CloseTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, h := range left {
		end := func() {
			if err := h.close(ctx); err != nil {
				s.log.Warn("closing a file that the client left open", "path", h.path, "err", err)
			}
		}
		if s.opt.Parallel {
			wg.Go(end)
		} else {
			end()
		}
	}
	wg.Wait()
}

// begin answers INIT.
func (s *session) begin(q *request, out *reply) {
	out.begin(sshfx.PacketTypeVersion, 3)
	for _, e := range append(s.extensions(), s.srv.GotVersion(q.id, q.extensions)...) {
		out.string(e.Name)
		out.string(e.Data)
	}
	out.end()
}

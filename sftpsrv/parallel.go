package sftpsrv

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"golang.org/x/sync/semaphore"
)

// maxJobs is how many requests of a session are served at once.
const maxJobs = 512

// A job is a request under way.
type job struct {
	q    request
	kind kind
	cost int64
	out  reply
	done chan struct{} // closed when out is complete
}

// finished reports whether the job is done.
func (j *job) finished() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// A pipeline serves requests side by side and answers them in their order.
type pipeline struct {
	*session
	cancel context.CancelFunc
	queue  chan *job // to the writer, in the order of the requests
	flight *semaphore.Weighted
	active []*job // what may have to be waited for; the reader's own
	bufs   sync.Pool
	wg     sync.WaitGroup // the jobs
}

// serveParallel reads requests, starts a goroutine for each, and has their
// answers written in order. After the end of the input it goes on until all
// are answered, but no longer than CloseTimeout.
func (s *session) serveParallel(ctx context.Context, cancel context.CancelFunc, rw io.ReadWriter) error {
	p := &pipeline{
		session: s,
		cancel:  cancel,
		queue:   make(chan *job, maxJobs),
		flight:  semaphore.NewWeighted(int64(s.opt.MaxInFlight)),
	}
	written := make(chan error, 1)
	go func() { written <- p.write(rw) }()
	err := p.read(ctx, rw)
	close(p.queue)
	late := time.AfterFunc(s.opt.CloseTimeout, cancel)
	defer late.Stop()
	p.wg.Wait()
	return errors.Join(err, <-written)
}

// read takes requests from the client until the stream ends.
func (p *pipeline) read(ctx context.Context, r io.Reader) error {
	in := newPacketReader(r)
	for {
		packet, err := in.next()
		if err != nil {
			return err
		}
		q, err := p.parse(packet)
		if err != nil {
			return err
		}
		j := &job{q: q, kind: kindOf(&q), cost: p.cost(&q), done: make(chan struct{})}
		if err := p.flight.Acquire(ctx, j.cost); err != nil {
			return err
		}
		if len(q.data) > 0 {
			j.q.data = append(p.buffer(), q.data...)
		}
		p.start(ctx, j)
	}
}

// cost is what a request holds of the bytes in flight.
func (p *pipeline) cost(q *request) int64 {
	n := int64(1024 + len(q.path) + len(q.path2) + len(q.data))
	switch q.typ {
	case sshfx.PacketTypeRead:
		n += int64(min(q.length, maxData))
	case sshfx.PacketTypeReadDir:
		n += maxReply
	}
	return min(n, int64(p.opt.MaxInFlight))
}

// start serves j once what came before it and matters to it is done.
func (p *pipeline) start(ctx context.Context, j *job) {
	var before []*job
	still := p.active[:0]
	for _, a := range p.active {
		if a.finished() {
			continue
		}
		still = append(still, a)
		if mustWait(a, j) {
			before = append(before, a)
		}
	}
	clear(p.active[len(still):])
	p.active = append(still, j)
	p.queue <- j
	p.wg.Go(func() {
		defer close(j.done)
		for _, b := range before {
			<-b.done
		}
		if j.q.typ == sshfx.PacketTypeRead || j.q.typ == sshfx.PacketTypeReadDir {
			j.out.b = p.buffer()
		}
		p.serve(ctx, &j.q, &j.out)
	})
}

// write sends the answers in order, joined as long as the next one is there.
// If it cannot, it ends the session and goes on taking them.
func (p *pipeline) write(w io.Writer) error {
	var out reply
	var failed error
	send := func() {
		if err := flush(w, &out); err != nil && failed == nil {
			failed = err
			p.cancel()
		}
	}
	for j := range p.queue {
		if !j.finished() {
			send()
			<-j.done
		}
		out.b = append(out.b, j.out.b...)
		p.recycle(j)
		p.flight.Release(j.cost)
		if len(out.b) >= flushAt || len(p.queue) == 0 {
			send()
		}
	}
	send()
	return failed
}

// buffer returns an empty buffer.
func (p *pipeline) buffer() []byte {
	if b, ok := p.bufs.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return nil
}

// recycle takes the buffers of a job that was answered.
func (p *pipeline) recycle(j *job) {
	for _, b := range [][]byte{j.out.b, j.q.data} {
		if cap(b) >= 4096 {
			p.bufs.Put(&b)
		}
	}
	j.out.b, j.q.data = nil, nil
}

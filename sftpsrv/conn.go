package sftpsrv

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// A conn is a connection of a user who has logged in.
type conn struct {
	*ssh.ServerConn
	srv      *Server
	raw      *bufConn
	info     SessionInfo
	log      *slog.Logger
	sessions atomic.Int64
	lastUse  atomic.Int64 // when a session was last used, in UnixNano
	wg       sync.WaitGroup
}

// serveConn serves one connection to its end.
func (s *Server) serveConn(ctx context.Context, nc net.Conn) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	raw := newBufConn(nc)
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()

	c, chans, reqs, err := s.handshake(ctx, raw)
	s.limits.loggedIn(source(raw.RemoteAddr()))
	if err != nil {
		s.refused(ctx, raw, err)
		return
	}
	c.log.Info("login", "method", c.info.Method, "key", c.info.Key, "client", c.info.ClientVersion)
	c.wg.Go(func() { ssh.DiscardRequests(reqs) })
	c.wg.Go(func() { c.watch(ctx) })
	for ch := range chans {
		c.channel(ctx, ch)
	}
	cancel()
	raw.Close()
	c.wg.Wait()
	c.log.Info("logout", "duration", time.Since(start).Round(time.Millisecond), "in", raw.in.Load(), "out", raw.out.Load())
}

// handshake has the client log in within the grace time.
func (s *Server) handshake(ctx context.Context, raw *bufConn) (*conn, <-chan ssh.NewChannel, <-chan *ssh.Request, error) {
	raw.SetDeadline(time.Now().Add(s.cfg.LoginGrace))
	sc, chans, reqs, err := ssh.NewServerConn(raw, s.authConfig(ctx))
	if err != nil {
		return nil, nil, nil, err
	}
	raw.SetDeadline(time.Time{})
	c := &conn{ServerConn: sc, srv: s, raw: raw}
	c.info = SessionInfo{
		User:          sc.User(),
		Remote:        sc.RemoteAddr(),
		Local:         sc.LocalAddr(),
		ClientVersion: string(sc.ClientVersion()),
	}
	c.info.Login, c.info.Method = loginOf(sc.Permissions)
	c.log = s.log.With("remote", addrString(c.info.Remote), "user", c.info.User, "avatar", c.info.Avatar)
	c.touch()
	return c, chans, reqs, nil
}

// refused logs a connection that did not come to a login, and blames its
// address for it.
func (s *Server) refused(ctx context.Context, raw *bufConn, err error) {
	if ctx.Err() != nil {
		return
	}
	s.limits.blame(source(raw.RemoteAddr()), faultOf(err), time.Now())
	s.log.Warn("login refused", "remote", addrString(raw.RemoteAddr()), "err", err)
}

func (c *conn) touch() { c.lastUse.Store(time.Now().UnixNano()) }

func (c *conn) idle() time.Duration {
	return time.Since(time.Unix(0, c.lastUse.Load()))
}

// watch ends the connection when it is idle for too long, or when the client
// has not answered three times.
func (c *conn) watch(ctx context.Context) {
	step := c.srv.cfg.KeepAlive
	if idle := c.srv.cfg.IdleTimeout; idle > 0 && (step < 0 || idle/4 < step) {
		step = max(idle/4, time.Millisecond)
	}
	if step < 0 {
		return
	}
	tick := time.NewTicker(step)
	defer tick.Stop()
	var asked time.Time
	misses := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if t := c.srv.cfg.IdleTimeout; t > 0 && c.idle() > t {
			c.log.Info("connection is idle")
			c.raw.Close()
			return
		}
		silence, every := c.raw.silence(), c.srv.cfg.KeepAlive
		switch {
		case every < 0 || silence < every:
			misses = 0
		case misses == 0 || time.Since(asked) >= every:
			if misses == 3 {
				c.log.Info("client does not answer")
				c.raw.Close()
				return
			}
			misses++
			asked = time.Now()
			c.wg.Go(func() { c.SendRequest("keepalive@openssh.com", true, nil) })
		}
	}
}

// channel takes or refuses a channel.
func (c *conn) channel(ctx context.Context, nc ssh.NewChannel) {
	switch {
	case nc.ChannelType() != "session":
		nc.Reject(ssh.Prohibited, "this server serves sftp only")
		return
	case c.sessions.Load() >= int64(c.srv.cfg.MaxSessions):
		nc.Reject(ssh.ResourceShortage, "too many sessions")
		return
	}
	ch, reqs, err := nc.Accept()
	if err != nil {
		return
	}
	c.sessions.Add(1)
	c.wg.Go(func() {
		defer c.sessions.Add(-1)
		c.session(ctx, ch, reqs)
	})
}

// session waits for the client to ask for the subsystem, and serves it. Shells,
// commands, terminals and environments are refused.
func (c *conn) session(ctx context.Context, ch ssh.Channel, reqs <-chan *ssh.Request) {
	defer ch.Close()
	for r := range reqs {
		sftp := r.Type == "subsystem" && subsystem(r.Payload) == "sftp"
		if !sftp {
			r.Reply(false, nil)
			continue
		}
		s, err := c.srv.cfg.NewSession(ctx, c.info)
		if err != nil {
			c.log.Error("session refused", "err", err)
			r.Reply(false, nil)
			continue
		}
		r.Reply(true, nil)
		c.wg.Go(func() { ssh.DiscardRequests(reqs) })
		c.serve(ctx, ch, s)
		return
	}
}

// serve serves the subsystem, and tells the client at the end that it ended well.
func (c *conn) serve(ctx context.Context, ch ssh.Channel, s Session) {
	if s.Close != nil {
		defer s.Close()
	}
	if s.Options.Logger == nil {
		s.Options.Logger = c.log
	}
	err := Serve(ctx, &sessionChannel{ch, c}, s.Server, s.Options)
	status := uint32(0)
	if err != nil {
		status = 1
		if ctx.Err() == nil {
			c.log.Warn("session failed", "err", err)
		}
	}
	ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
	ch.CloseWrite()
}

// A sessionChannel notes that its connection is in use.
type sessionChannel struct {
	ssh.Channel
	c *conn
}

func (s *sessionChannel) Read(p []byte) (int, error) {
	n, err := s.Channel.Read(p)
	s.c.touch()
	return n, err
}

// subsystem is the name in a subsystem request.
func subsystem(payload []byte) string {
	var m struct{ Name string }
	if ssh.Unmarshal(payload, &m) != nil {
		return ""
	}
	return m.Name
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"sftpbridge/bridge"
	"sftpbridge/sftpsrv"
)

// serve opens an SFTP door.
func (g *gateway) serve(ctx context.Context, p treePlan, sp serverPlan, tree *bridge.Tree, log *slog.Logger) error {
	keys, err := hostKeys(sp.HostKeys)
	if err != nil {
		return err
	}
	cfg := sftpsrv.Config{
		HostKeys:       keys,
		LoginGrace:     sp.loginGrace,
		IdleTimeout:    sp.idleTimeout,
		KeepAlive:      sp.keepalive,
		MaxAuthTries:   sp.MaxAuthTries,
		MaxSessions:    sp.MaxSessions,
		MaxConnections: sp.MaxConns,
		MaxPerAddress:  sp.PerAddress,
		MaxStartups:    sp.MaxStartups,
		NewSession:     newSession(tree, homeRealm{sp.users, p.backend}, log),
		Logger:         log,
	}
	if sp.Penalties != nil && !*sp.Penalties {
		cfg.LoginPenalty = -1
	}
	if err := sp.authenticate(&cfg); err != nil {
		return err
	}
	srv, err := sftpsrv.New(cfg)
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", sp.Listen)
	if err != nil {
		return err
	}
	g.watch(openSFTPDoor(ctx, srv, ln))
	g.addrs = append(g.addrs, ln.Addr())
	g.tell.opened("serving %s on %s", p.backend, ln.Addr())
	return nil
}

// newSession returns what makes the view of the tree for a user who has logged
// in.
func newSession(tree *bridge.Tree, users homeRealm, log *slog.Logger) func(context.Context, sftpsrv.SessionInfo) (sftpsrv.Session, error) {
	return func(ctx context.Context, info sftpsrv.SessionInfo) (sftpsrv.Session, error) {
		avatar, err := users.AvatarByName(info.Avatar)
		if err != nil {
			return sftpsrv.Session{}, err
		}
		view, err := tree.View(ctx, avatar, tree.NewDoor())
		if err != nil {
			return sftpsrv.Session{}, fmt.Errorf("the tree as %s sees it: %w", avatar.Name, err)
		}
		return sftpsrv.Session{
			Server:  served{view, users.accounts},
			Options: sftpsrv.SessionOptions{Parallel: tree.Traits().Slow, Logger: log.With("user", avatar.Name)},
			Close:   func() { view.Close() },
		}, nil
	}
}

// served is a view with the names of this machine's users and groups.
type served struct {
	*bridge.View
	accounts *accounts
}

var _ bridge.IDNamer = served{}

func (s served) UserName(uid uint32) string  { return s.accounts.userName(uid) }
func (s served) GroupName(gid uint32) string { return s.accounts.groupName(gid) }

// An sftpDoor is a server and its listener.
type sftpDoor struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

// openSFTPDoor serves ln until the door is closed: the end of ctx, which may
// come by a signal, is not the door's.
func openSFTPDoor(ctx context.Context, srv *sftpsrv.Server, ln net.Listener) *sftpDoor {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d := &sftpDoor{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		d.err = srv.Serve(ctx, ln)
	}()
	return d
}

func (d *sftpDoor) wait() error {
	<-d.done
	return d.err
}

func (d *sftpDoor) close() error {
	d.cancel()
	return d.wait()
}

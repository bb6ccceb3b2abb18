package main

import (
	"context"
	"log/slog"
	"net"
	"strconv"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdial"
)

// openUpstream connects to the server of an SFTP backend.
func openUpstream(ctx context.Context, p treePlan, log *slog.Logger) (bridge.Backend, error) {
	up := p.upstream
	dial, err := sshdial.New(target(p.backend, up.Port), sshdial.Options{
		ConfigFile:        up.SSHConfig,
		IdentityFiles:     up.Identity,
		KnownHosts:        up.KnownHosts,
		AcceptNewHostKeys: up.AcceptNewHostKeys,
		Prompt:            askTerminal,
		Timeout:           up.timeout,
	})
	if err != nil {
		return nil, err
	}
	opt := sftpfs.Options{Root: p.backend.Path, Timeout: up.timeout, Connections: up.Connections, Logger: log}
	there, err := up.accountIDs(ctx, dial, opt)
	if err != nil {
		return nil, err
	}
	fs, err := sftpfs.New(ctx, dial, opt)
	if err != nil {
		return nil, err
	}
	if there == nil {
		return fs, nil
	}
	here := ids{up.account.Cred.UID, up.account.Cred.GID}
	if *there == here {
		return fs, nil
	}
	log.Info("the account on the server is the user's", "user", up.account.Name,
		"uid", here.uid, "gid", here.gid, "server_uid", there.uid, "server_gid", there.gid)
	return swapped{fs, idSwap{*there, here}}, nil
}

// accountIDs returns the ids that the account on the server has there, or nil
// if ids are to stay as they are: nobody here is that account, or it is root,
// who can give files to anybody.
func (up upstreamPlan) accountIDs(ctx context.Context, dial sftpfs.Dialer, opt sftpfs.Options) (*ids, error) {
	if up.account == nil || up.ids != nil {
		return up.ids, nil
	}
	there, err := findIDs(ctx, dial, opt)
	if err != nil || there.uid == 0 {
		return nil, err
	}
	return &there, nil
}

// target is [user@]host[:port] of a backend. The port in the backend goes
// before that of the flag.
func target(s backendSpec, port int) string {
	if s.Port != 0 {
		port = s.Port
	}
	host := s.Host
	switch {
	case port != 0:
		host = net.JoinHostPort(host, strconv.Itoa(port))
	case net.ParseIP(stripZone(host)).To4() == nil && net.ParseIP(stripZone(host)) != nil:
		host = "[" + host + "]"
	}
	if s.User != "" {
		host = s.User + "@" + host
	}
	return host
}

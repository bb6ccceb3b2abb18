package sftpfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// Options are how an FS treats its upstream. The zero value is useful.
type Options struct {
	// Root is the directory of the upstream that is the root of the tree: an
	// absolute path, or one relative to the directory in which the server
	// starts (also as "~" and "~/dir"), which "" is.
	Root string
	// Timeout is for how long a call waits without a sign of life from the
	// upstream, or for a connection; 0 is 30 seconds.
	Timeout time.Duration
	// Keepalive is how long a connection may be idle before it is asked
	// whether it lives; 0 is 15 seconds.
	Keepalive time.Duration
	// Connections is how many connections there may be; 0 is 2. Further ones
	// than the first are made when there is enough to do.
	Connections int
	// Channels is how many sessions each connection may carry; 0 is 4.
	Channels int
	// Logger hears of connections that come and go.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Keepalive <= 0 {
		o.Keepalive = 15 * time.Second
	}
	if o.Connections <= 0 {
		o.Connections = 2
	}
	if o.Channels <= 0 {
		o.Channels = 4
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// An FS is the tree of files below one directory of an upstream SFTP server.
type FS struct {
	opt   Options
	pool  *pool
	info  serverInfo // of the first session
	root  string     // absolute path on the upstream, "/" or without a slash at its end
	dirs  knownDirs
	names names

	// naming is shared by what changes names, and taken by who must know
	// that no such change is under way.
	naming sync.RWMutex
}

var (
	_ bridge.Backend          = (*FS)(nil)
	_ bridge.SymlinkBackend   = (*FS)(nil)
	_ bridge.LinkBackend      = (*FS)(nil)
	_ bridge.StatFSBackend    = (*FS)(nil)
	_ bridge.MkdirAttrBackend = (*FS)(nil)
	_ bridge.ReadOpenBackend  = (*FS)(nil)
)

// New connects to the upstream and returns its tree. The errors of the dialer
// are returned as they are; the root must be a directory.
func New(ctx context.Context, dial Dialer, opt Options) (*FS, error) {
	opt = opt.withDefaults()
	p, err := newPool(ctx, dial, opt)
	if err != nil {
		return nil, err
	}
	f := &FS{opt: opt, pool: p, info: *p.known()}
	f.names.init()
	if f.root, err = f.findRoot(ctx); err != nil {
		p.close()
		return nil, err
	}
	p.prepare()
	return f, nil
}

// findRoot resolves the root once, so that it stays the same directory name
// when the server, after a reconnection, starts elsewhere.
func (f *FS) findRoot(ctx context.Context) (string, error) {
	asked := f.opt.Root
	switch {
	case asked == "~" || asked == "":
		asked = "."
	case strings.HasPrefix(asked, "~/"):
		asked = "./" + strings.TrimLeft(asked[2:], "/")
	}
	var root string
	err := f.do(ctx, func(ctx context.Context, s *session) error {
		calls, err := s.exchange(ctx, request{packet: &sshfx.RealPathPacket{Path: asked}}, request{packet: &sshfx.StatPacket{Path: asked}})
		if err != nil {
			return err
		}
		if root, err = calls[0].path(); err != nil {
			return err
		}
		a, err := calls[1].attrs()
		if err == nil && !a.IsDir() {
			err = syscall.ENOTDIR
		}
		return err
	})
	if err == nil && (root[0] != '/' || strings.IndexByte(root, 0) >= 0) {
		err = garbage("its root has no absolute path")
	}
	if err != nil {
		return "", fmt.Errorf("the directory %q on the upstream: %w", f.opt.Root, err)
	}
	if root = strings.TrimRight(root, "/"); root == "" {
		root = "/"
	}
	return root, nil
}

// Traits says that the upstream is far away.
func (f *FS) Traits() bridge.Traits {
	return bridge.Traits{Slow: true}
}

// Close ends all connections. Open files fail from then on.
func (f *FS) Close() error {
	f.pool.close()
	return nil
}

// do runs op, which may be repeated, on a session; again if the session ends
// under it and there is time left.
func (f *FS) do(ctx context.Context, op func(ctx context.Context, s *session) error) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	ctx = started(ctx)
	for {
		s, err := f.pool.session(ctx)
		if err != nil {
			return err
		}
		if err = op(ctx, s); !f.again(ctx, err) {
			return err
		}
	}
}

// again reports whether an operation that came back with err is to be tried
// on another session.
func (f *FS) again(ctx context.Context, err error) bool {
	return isLost(err) && ctx.Err() == nil && time.Since(startOf(ctx)) < f.opt.Timeout
}

// once runs op, which must not be carried out twice. If the session ends under
// it, happened looks on the next one whether it was, and it is run again if not.
// It is not cancelled half-way: ctx counts until it begins.
func (f *FS) once(ctx context.Context, op func(ctx context.Context, s *session) error, happened func(ctx context.Context, s *session) (bool, error)) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	ctx = started(ctx)
	sent := false
	for {
		s, err := f.pool.session(ctx)
		if err != nil {
			return err
		}
		ctx = context.WithoutCancel(ctx)
		done := false
		if sent {
			done, err = happened(ctx, s)
		}
		if err == nil && !done {
			err = op(ctx, s)
			var lost *lostError
			if errors.As(err, &lost) && lost.sent {
				sent = true
			}
		}
		if !f.again(ctx, err) {
			return err
		}
	}
}

// path returns the upstream's path of name. EINVAL for what is not in the form
// of io/fs.ValidPath, ENAMETOOLONG for what the upstream would not find.
func (f *FS) path(name string) (string, error) {
	if !validPath(name) {
		return "", syscall.EINVAL
	}
	if name == "." {
		return f.root, nil
	}
	for c := range strings.SplitSeq(name, "/") {
		if len(c) > bridge.NameMax {
			return "", syscall.ENAMETOOLONG
		}
	}
	p := f.root + "/" + name
	if f.root == "/" {
		p = p[1:]
	}
	if len(p) > bridge.PathMax {
		return "", syscall.ENAMETOOLONG
	}
	return p, nil
}

// validPath is io/fs.ValidPath, but for names that need not be UTF-8, and have no NUL.
func validPath(name string) bool {
	if strings.IndexByte(name, 0) >= 0 {
		return false
	}
	if name == "." {
		return true
	}
	for c := range strings.SplitSeq(name, "/") {
		if c == "" || c == "." || c == ".." {
			return false
		}
	}
	return true
}

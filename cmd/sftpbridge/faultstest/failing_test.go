package faultstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
	"sftpbridge/sftpsrv"
)

// A trap fails the n-th request that a server gets from now on.
type trap struct {
	mu     sync.Mutex
	left   int           // requests up to the one that fails; 0 for none; guarded by mu
	errno  syscall.Errno // guarded by mu
	sprung string        // the request that failed; guarded by mu
}

func (p *trap) set(n int, errno syscall.Errno) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.errno, p.sprung = n, errno, ""
}

// was returns which request failed, "" for none.
func (p *trap) was() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sprung
}

// at is called with each request.
func (p *trap) at(request string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left == 0 {
		return nil
	}
	if p.left--; p.left > 0 {
		return nil
	}
	p.sprung = request
	return p.errno
}

// A failingServer is a view in which requests fail. Closing a file does not:
// by then its writes have been acknowledged.
type failingServer struct {
	*bridge.View
	trap *trap
}

func (s failingServer) OpenFile(ctx context.Context, path string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.ServerFile, error) {
	if err := s.trap.at("open"); err != nil {
		return nil, err
	}
	f, err := s.View.OpenFile(ctx, path, flags, attr)
	if err != nil {
		return nil, err
	}
	return failingFile{f, s.trap}, nil
}

func (s failingServer) RemoveFile(ctx context.Context, path string) error {
	if err := s.trap.at("remove"); err != nil {
		return err
	}
	return s.View.RemoveFile(ctx, path)
}

func (s failingServer) RenameFile(ctx context.Context, from, to string) error {
	if err := s.trap.at("rename"); err != nil {
		return err
	}
	return s.View.RenameFile(ctx, from, to)
}

func (s failingServer) PosixRename(ctx context.Context, from, to string) error {
	if err := s.trap.at("posix-rename"); err != nil {
		return err
	}
	return s.View.PosixRename(ctx, from, to)
}

func (s failingServer) MakeDirectory(ctx context.Context, path string, attr bridge.SetAttr) error {
	if err := s.trap.at("mkdir"); err != nil {
		return err
	}
	return s.View.MakeDirectory(ctx, path, attr)
}

func (s failingServer) RemoveDirectory(ctx context.Context, path string) error {
	if err := s.trap.at("rmdir"); err != nil {
		return err
	}
	return s.View.RemoveDirectory(ctx, path)
}

func (s failingServer) OpenDirectory(ctx context.Context, path string) (bridge.ServerDir, error) {
	if err := s.trap.at("opendir"); err != nil {
		return nil, err
	}
	return s.View.OpenDirectory(ctx, path)
}

func (s failingServer) GetAttrs(ctx context.Context, path string, follow bool) (bridge.Attr, error) {
	if err := s.trap.at("stat"); err != nil {
		return bridge.Attr{}, err
	}
	return s.View.GetAttrs(ctx, path, follow)
}

func (s failingServer) SetAttrs(ctx context.Context, path string, attr bridge.SetAttr) error {
	if err := s.trap.at("setstat"); err != nil {
		return err
	}
	return s.View.SetAttrs(ctx, path, attr)
}

// A failingFile is a file of a failingServer.
type failingFile struct {
	bridge.ServerFile
	trap *trap
}

func (f failingFile) ReadChunk(ctx context.Context, p []byte, off int64) (int, error) {
	if err := f.trap.at("read"); err != nil {
		return 0, err
	}
	return f.ServerFile.ReadChunk(ctx, p, off)
}

func (f failingFile) WriteChunk(ctx context.Context, p []byte, off int64) error {
	if err := f.trap.at("write"); err != nil {
		return err
	}
	return f.ServerFile.WriteChunk(ctx, p, off)
}

func (f failingFile) GetAttrs(ctx context.Context) (bridge.Attr, error) {
	if err := f.trap.at("fstat"); err != nil {
		return bridge.Attr{}, err
	}
	return f.ServerFile.GetAttrs(ctx)
}

func (f failingFile) SetAttrs(ctx context.Context, attr bridge.SetAttr) error {
	if err := f.trap.at("fsetstat"); err != nil {
		return err
	}
	return f.ServerFile.SetAttrs(ctx, attr)
}

func (f failingFile) Sync(ctx context.Context) error {
	if err := f.trap.at("fsync"); err != nil {
		return err
	}
	return f.ServerFile.(bridge.SyncFile).Sync(ctx)
}

// newFailingRig makes a rig over a server of our own, of a local directory.
func newFailingRig(t *testing.T) (*rig, *trap) {
	t.Helper()
	r := &rig{t: t, dir: shmDir(t)}
	r.upstream = filepath.Join(r.dir, "upstream")
	if err := os.Mkdir(r.upstream, 0o755); err != nil {
		t.Fatal(err)
	}
	backend, err := localfs.New("/")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := bridge.New(t.Context(), backend, bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	p := new(trap)
	identity := filepath.Join(r.dir, "identity")
	sshdtest.KeyGen(t, identity, "")
	key := newKey(t)
	avatar := &bridge.Avatar{Name: "root", Cred: bridge.Cred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}}
	srv, err := sftpsrv.New(sftpsrv.Config{
		HostKeys: []ssh.Signer{key},
		PublicKey: func(context.Context, string, ssh.PublicKey, net.Addr) (sftpsrv.Login, error) {
			return sftpsrv.Login{Avatar: avatar.Name}, nil
		},
		NewSession: func(ctx context.Context, _ sftpsrv.SessionInfo) (sftpsrv.Session, error) {
			view, err := tree.View(ctx, avatar, tree.NewDoor())
			if err != nil {
				return sftpsrv.Session{}, err
			}
			return sftpsrv.Session{Server: failingServer{view, p}, Close: func() { view.Close() }}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()
	t.Cleanup(func() { cancel(); <-served })
	r.prepare(ln.Addr().String(), string(ssh.MarshalAuthorizedKey(key.PublicKey())), identity, "root", 20*timeout)
	return r, p
}

// A stage is a part of what a program does. What it was told is true.
type stage struct {
	name  string
	run   func(d door, dir string) error
	truth func(d mountDoor, dir string) error // after it succeeded
}

// content is what the program writes: several requests of data.
var content = bytes.Repeat([]byte("0123456789abcdef"), 10<<10)

func wantThere(d mountDoor, names ...string) error {
	for _, name := range names {
		if !there(d, name) {
			return fmt.Errorf("%s is not there", name)
		}
	}
	return nil
}

func wantGone(d mountDoor, names ...string) error {
	for _, name := range names {
		if there(d, name) {
			return fmt.Errorf("%s is there", name)
		}
	}
	return nil
}

func wantContent(d mountDoor, name string) error {
	got, err := os.ReadFile(d.path(name))
	if err == nil && !bytes.Equal(got, content) {
		err = fmt.Errorf("%s has %d bytes that are not what was written", name, len(got))
	}
	return err
}

var stages = []stage{
	{"mkdir", func(d door, dir string) error { return d.mkdir(dir) },
		func(d mountDoor, dir string) error { return wantThere(d, dir) }},
	{"write", func(d door, dir string) error {
		f, err := d.open(dir+"/f", os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		for off := 0; off < len(content) && err == nil; off += 16 << 10 {
			_, err = f.WriteAt(content[off:off+16<<10], int64(off))
		}
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, f.Close())
	}, func(d mountDoor, dir string) error { return wantContent(d, dir+"/f") }},
	{"write without fsync", func(d door, dir string) error {
		f, err := d.open(dir+"/g", os.O_WRONLY|os.O_CREATE)
		if err != nil {
			return err
		}
		for off := 0; off < len(content) && err == nil; off += 16 << 10 {
			_, err = f.WriteAt(content[off:off+16<<10], int64(off))
		}
		return errors.Join(err, f.Close())
	}, func(d mountDoor, dir string) error { return wantContent(d, dir+"/g") }},
	{"rename", func(d door, dir string) error { return d.rename(dir+"/f", dir+"/g") },
		func(d mountDoor, dir string) error {
			return errors.Join(wantContent(d, dir+"/g"), wantGone(d, dir+"/f"))
		}},
	{"read", func(d door, dir string) error {
		f, err := d.open(dir+"/g", os.O_RDONLY)
		if err != nil {
			return err
		}
		defer f.Close()
		got := make([]byte, len(content))
		n, err := f.ReadAt(got, 0)
		if n == len(content) {
			err = nil
		}
		if err == nil && !bytes.Equal(got, content) {
			err = errOther
		}
		return err
	}, nil},
	{"list", func(d door, dir string) error {
		names, err := d.list(dir)
		if err == nil && (len(names) != 1 || names[0].Name() != "g" || names[0].Size() != int64(len(content))) {
			err = fmt.Errorf("%w: %d names, %v", errOther, len(names), names)
		}
		return err
	}, nil},
	{"chmod", func(d door, dir string) error { return d.chmod(dir+"/g", 0o640) },
		func(d mountDoor, dir string) error {
			fi, err := d.stat(dir + "/g")
			if err == nil && fi.Mode() != 0o640 {
				err = fmt.Errorf("the mode is %v", fi.Mode())
			}
			return err
		}},
	{"remove", func(d door, dir string) error { return d.remove(dir + "/g") },
		func(d mountDoor, dir string) error { return wantGone(d, dir+"/g") }},
	{"rmdir", func(d door, dir string) error { return d.rmdir(dir) },
		func(d mountDoor, dir string) error { return wantGone(d, dir) }},
}

// errOther is of a success that is none.
var errOther = errors.New("what came is not what is there")

// TestFailingRequests has each request of a program's work fail in turn, with
// several errors. The program hears of it, or it is made good; what it is told
// has succeeded is true; and it can try again.
func TestFailingRequests(t *testing.T) {
	t.Parallel()
	r, p := newFailingRig(t)
	r.start()
	doors := make(map[string]door)
	for _, kind := range doorKinds {
		doors[kind.name] = kind.enter(t, r)
	}
	for name, d := range doors {
		runs, sprung := 0, make(map[string]int)
		errnos := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES}
		step := len(errnos) // each request fails with one of them
		if *rounds > 1 {
			step = 1 // or with all
		}
		for i, errno := range errnos {
			for n := 1 + i%step; ; n += step {
				p.set(n, errno)
				what := r.runStages(t, d, p, fmt.Sprintf("%s-%d-%d", name, errno, n), errno)
				if t.Failed() {
					t.Fatalf("at %s, with the %d. request failing with %v: %s", name, n, errno, what)
				}
				if what == "" {
					break
				}
				runs++
				sprung[what]++
			}
		}
		t.Logf("%s: %d runs in which a request failed: %v", name, runs, sprung)
	}
}

// runStages runs all stages in dir, and returns which request failed.
func (r *rig) runStages(t *testing.T, d door, p *trap, dir string, errno syscall.Errno) string {
	t.Helper()
	up := upstreamOf(r)
	for _, s := range stages {
		err := inTime(func() error { return s.run(d, dir) })
		if err != nil {
			what := p.was()
			if what == "" || errors.Is(err, errOther) || errors.Is(err, errLate) {
				t.Errorf("%s: %v", s.name, err)
				return what
			}
			if what == "write" && !told(err, errno) {
				t.Errorf("%s: %v, want %v", s.name, err, errno)
			}
			if strings.HasSuffix(what, "stat") && s.truth != nil && s.truth(up, dir) == nil {
				// It was done, and what failed is to look at it, or to dress it.
				eventually(t, s.name, func() error { _, err := d.stat(dir); return err })
				continue
			}
			if err = inTime(func() error { return s.run(d, dir) }); err != nil {
				t.Errorf("%s once more: %v", s.name, err)
				return what
			}
		}
		if s.truth == nil {
			continue
		}
		if err := s.truth(up, dir); err != nil {
			t.Errorf("%s succeeded, but %v", s.name, err)
		}
	}
	return p.was()
}

// told reports whether err says what errno means: SFTP has a status for only
// some, and a text for the others.
func told(err error, errno syscall.Errno) bool {
	text := strings.ToLower(err.Error())
	return errors.Is(err, errno) || strings.Contains(text, errno.Error()) || errno == syscall.EACCES && errors.Is(err, os.ErrPermission)
}

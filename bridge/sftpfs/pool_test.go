package sftpfs_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/faulty"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// A countedDialer counts what a dialer is asked for.
type countedDialer struct {
	dials, opens, pings atomic.Int32
	most                int32        // sessions of one connection, 0 for any number
	dead                atomic.Bool  // pings fail
	refuse              atomic.Int32 // so many further dials fail
}

func (c *countedDialer) over(dial sftpfs.Dialer) sftpfs.Dialer {
	return func(ctx context.Context) (sftpfs.Transport, error) {
		c.dials.Add(1)
		if c.refuse.Add(-1) >= 0 {
			return nil, errors.New("refused by the test")
		}
		tr, err := dial(ctx)
		return &countedTransport{Transport: tr, c: c}, err
	}
}

type countedTransport struct {
	sftpfs.Transport
	c     *countedDialer
	opens atomic.Int32
}

func (t *countedTransport) Open(ctx context.Context) (io.ReadWriteCloser, error) {
	t.c.opens.Add(1)
	if n := t.opens.Add(1); t.c.most > 0 && n > t.c.most {
		return nil, errors.New("no more sessions")
	}
	return t.Transport.Open(ctx)
}

func (t *countedTransport) Ping(ctx context.Context) error {
	t.c.pings.Add(1)
	if t.c.dead.Load() {
		return errors.New("no answer")
	}
	return t.Transport.Ping(ctx)
}

// TestSpread has transfers over a slow line spread over sessions, and over
// connections, of which some refuse to carry more.
func TestSpread(t *testing.T) {
	for _, c := range []struct {
		name string
		most int32 // sessions that a connection lets open
		way  time.Duration
	}{{"free", 0, 2 * time.Millisecond}, {"one session each", 1, 2 * time.Millisecond}, {"far", 0, 20 * time.Millisecond}, {"far, one session each", 1, 20 * time.Millisecond}} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			ctx := context.Background()
			var line faulty.Line
			line.Delay(c.way)
			count := &countedDialer{most: c.most}
			b := open(t, count.over(over(&line, sftpfs.Command(sshdtest.SFTPServer(t)))), sftpfs.Options{Root: dir, Connections: 2, Channels: 3})
			defer b.Close()
			rnd := rand.New(rand.NewPCG(3, 4))
			want := make([]byte, 24<<20)
			for i := 0; i < len(want); i += 512 {
				want[i] = byte(rnd.Uint32())
			}
			f, err := b.Open(ctx, "f", syscall.O_RDWR|syscall.O_CREAT, bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600})
			if err != nil {
				t.Fatal(err)
			}
			each(len(want), func(off, end int) {
				if n, err := f.WriteAt(ctx, want[off:end], int64(off)); n != end-off || err != nil {
					t.Errorf("WriteAt %d = %d, %v", off, n, err)
				}
			})
			if err := f.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if disk, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(disk, want) {
				t.Fatalf("what was written is not there: %v", err)
			}
			if f, err = b.Open(ctx, "f", syscall.O_RDONLY, bridge.SetAttr{}); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			each(len(got), func(off, end int) {
				if n, err := f.ReadAt(ctx, got[off:end], int64(off)); n != end-off || err != nil && err != io.EOF {
					t.Errorf("ReadAt %d = %d, %v", off, n, err)
				}
			})
			if !bytes.Equal(got, want) {
				t.Error("what was read is not what was written")
			}
			if err := f.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if n := count.dials.Load(); n != 2 {
				t.Errorf("%d connections, want 2", n)
			}
			if n := count.opens.Load(); n < 3 || n > 6 {
				t.Errorf("%d sessions were asked for, want 3 to 6", n)
			}
		})
	}
}

// each calls do for the parts of n bytes, sixteen at a time.
func each(n int, do func(off, end int)) {
	const part = 1 << 20
	var wg sync.WaitGroup
	turn := make(chan struct{}, 16)
	for off := 0; off < n; off += part {
		turn <- struct{}{}
		wg.Go(func() {
			do(off, min(off+part, n))
			<-turn
		})
	}
	wg.Wait()
}

// TestKeepalive has an idle connection asked whether it lives, and replaced
// when it does not.
func TestKeepalive(t *testing.T) {
	count := &countedDialer{}
	b := open(t, count.over(sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: t.TempDir(), Keepalive: 20 * time.Millisecond, Connections: 1})
	defer b.Close()
	eventually(t, func() error {
		if count.pings.Load() < 3 {
			return errors.New("no pings")
		}
		return nil
	})
	if n := count.dials.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
	count.refuse.Store(2)
	count.dead.Store(true)
	eventually(t, func() error {
		if count.dials.Load() < 4 {
			return errors.New("not connected again")
		}
		return nil
	})
	count.dead.Store(false)
	if _, err := b.Lstat(context.Background(), "."); err != nil {
		t.Error(err)
	}
}

// TestNew has upstreams that cannot be used.
func TestNew(t *testing.T) {
	server := sshdtest.SFTPServer(t)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "file"), "")
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("d", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	for _, c := range []struct {
		name string
		dial sftpfs.Dialer
		root string
		want string // in the error; "" for none
	}{
		{"start directory", sftpfs.Command(server, "-d", dir), "", ""},
		{"home", sftpfs.Command(server, "-d", dir), "~", ""},
		{"below home", sftpfs.Command(server, "-d", dir), "~/d", ""},
		{"relative", sftpfs.Command(server, "-d", dir), "d", ""},
		{"link to a directory", sftpfs.Command(server), filepath.Join(dir, "link"), ""},
		{"slash at the end", sftpfs.Command(server), dir + "/", ""},
		{"the root", sftpfs.Command(server), "/", ""},
		{"not there", sftpfs.Command(server, "-d", dir), "absent", `"absent"`},
		{"way not there", sftpfs.Command(server, "-d", dir), "absent/x", "no such file"},
		{"a file", sftpfs.Command(server, "-d", dir), "file", "not a directory"},
		{"no program", sftpfs.Command("/nonexistent/sftp-server"), "", "no such file"},
		{"no server", sftpfs.Command("true"), "", "cannot start SFTP"},
		{"talks", sftpfs.Command("sh", "-c", "echo Welcome; exec sleep 5"), "", "protocol"},
		{"complains", sftpfs.Command("sh", "-c", "echo out of order >&2"), "", "out of order"},
		{"dialer", func(context.Context) (sftpfs.Transport, error) { return nil, refused }, "", "refused"},
	} {
		b, err := sftpfs.New(context.Background(), c.dial, sftpfs.Options{Root: c.root})
		if err == nil {
			if _, err := b.Lstat(context.Background(), "."); err != nil {
				t.Errorf("%s: Lstat of the root: %v", c.name, err)
			}
			b.Close()
			if _, err := b.Lstat(context.Background(), "."); !errors.Is(err, syscall.ENOTCONN) {
				t.Errorf("%s: Lstat after Close: %v", c.name, err)
			}
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestSymlinks has links in the middle and at the end of names: none is
// followed, and nothing is made or emptied through one.
func TestSymlinks(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	put(t, filepath.Join(outside, "f"), "content")
	for name, target := range map[string]string{"d": outside, "f": filepath.Join(outside, "f"), "new": filepath.Join(outside, "new")} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(dir, "mine"), "mine")
	b := open(t, sftpfs.Command(sshdtest.SFTPServer(t)), sftpfs.Options{Root: dir})
	defer b.Close()
	ctx := context.Background()
	mode := bridge.SetAttr{Valid: bridge.SetMode, Mode: 0o600}
	openIt := func(name string, flags bridge.OpenFlags) error {
		f, err := b.Open(ctx, name, flags, mode)
		if err == nil {
			f.Close(ctx)
		}
		return err
	}
	list := func(name string) (err error) {
		for _, err = range b.ReadDir(ctx, name) {
		}
		return err
	}
	for _, c := range []struct {
		what string
		err  error
		want syscall.Errno
	}{
		{"open", openIt("f", syscall.O_RDONLY), syscall.ELOOP},
		{"truncate", openIt("f", syscall.O_WRONLY|syscall.O_TRUNC), syscall.ELOOP},
		{"create or truncate", openIt("f", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_TRUNC), syscall.ELOOP},
		{"create through a link to nothing", openIt("new", syscall.O_WRONLY|syscall.O_CREAT), syscall.ELOOP},
		{"create at a link", openIt("new", syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL), syscall.EEXIST},
		{"list", list("d"), syscall.ENOTDIR},
		{"chmod", b.SetAttr(ctx, "f", mode), syscall.EOPNOTSUPP},
		{"truncate by name", b.SetAttr(ctx, "f", bridge.SetAttr{Valid: bridge.SetSize}), syscall.EOPNOTSUPP},
		{"open below", openIt("d/f", syscall.O_RDONLY), syscall.ENOTDIR},
		{"create below", openIt("d/g", syscall.O_WRONLY|syscall.O_CREAT), syscall.ENOTDIR},
		{"mkdir below", b.Mkdir(ctx, "d/g", mode), syscall.ENOTDIR},
		{"remove below", b.Remove(ctx, "d/f"), syscall.ENOTDIR},
		{"rename from below", b.Rename(ctx, "d/f", "g", 0), syscall.ENOTDIR},
		{"rename to below", b.Rename(ctx, "mine", "d/f", 0), syscall.ENOTDIR},
		{"link below", b.Link(ctx, "mine", "d/g"), syscall.ENOTDIR},
		{"symlink below", b.Symlink(ctx, "x", "d/g", bridge.SetAttr{}), syscall.ENOTDIR},
		{"chmod below", b.SetAttr(ctx, "d/f", mode), syscall.ENOTDIR},
	} {
		wantErrno(t, c.what, c.err, c.want)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside there is %v, %v", entries, err)
	}
	if got, _ := os.ReadFile(filepath.Join(outside, "f")); string(got) != "content" {
		t.Errorf("the file outside is %q", got)
	}
	if st, _ := os.Stat(filepath.Join(outside, "f")); st.Mode().Perm() != 0o644 {
		t.Errorf("the mode outside is %v", st.Mode())
	}
}

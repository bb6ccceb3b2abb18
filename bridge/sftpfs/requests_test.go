package sftpfs_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sftpbridge/bridge"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/bridge/sftpfs/sshdtest"
)

// tallied returns dial with n counting the packets that are sent.
func tallied(n *atomic.Int64, dial sftpfs.Dialer) sftpfs.Dialer {
	return func(ctx context.Context) (sftpfs.Transport, error) {
		tr, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return &tallyTransport{tr, n}, nil
	}
}

type tallyTransport struct {
	sftpfs.Transport
	n *atomic.Int64
}

func (t *tallyTransport) Open(ctx context.Context) (io.ReadWriteCloser, error) {
	ch, err := t.Transport.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &tallyChannel{ReadWriteCloser: ch, n: t.n}, nil
}

// A tallyChannel counts the packets in what is written to it.
type tallyChannel struct {
	io.ReadWriteCloser
	n *atomic.Int64

	mu   sync.Mutex
	head []byte // of the packet that comes next; guarded by mu
	body int    // bytes of the last packet that are to come; guarded by mu
}

func (c *tallyChannel) Write(p []byte) (int, error) {
	c.count(p)
	return c.ReadWriteCloser.Write(p)
}

func (c *tallyChannel) count(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		if c.body > 0 {
			n := min(c.body, len(p))
			c.body -= n
			p = p[n:]
			continue
		}
		n := min(4-len(c.head), len(p))
		c.head = append(c.head, p[:n]...)
		p = p[n:]
		if len(c.head) == 4 {
			c.n.Add(1)
			c.body, c.head = int(binary.BigEndian.Uint32(c.head)), nil
		}
	}
}

// TestFindSendsNoMore has the tree list all directories, as find does, and
// compares what is sent with a plain listing of each.
func TestFindSendsNoMore(t *testing.T) {
	const dirs, files = 100, 100
	root := t.TempDir()
	for d := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("d%02d", d))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%02d", f)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	sent := func(list func(b *sftpfs.FS) int) int64 {
		t.Helper()
		var n atomic.Int64
		b := open(t, tallied(&n, sftpfs.Command(sshdtest.SFTPServer(t))), sftpfs.Options{Root: root, Connections: 1, Channels: 1})
		defer b.Close()
		before := n.Load()
		if got := list(b); got != dirs*(files+1) {
			t.Errorf("%d entries", got)
		}
		return n.Load() - before
	}
	plain := sent(func(b *sftpfs.FS) int { return listPlainly(t, b, ".") })
	tree := sent(func(b *sftpfs.FS) int {
		tree, err := bridge.New(context.Background(), b, bridge.Options{AttrTimeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		return listTree(t, tree, tree.Root())
	})
	if tree > plain*11/10 {
		t.Errorf("%d requests were sent, %d for a plain listing of each", tree, plain)
	}
}

// listPlainly returns how many entries are in the directory name and below.
func listPlainly(t *testing.T, b *sftpfs.FS, name string) (n int) {
	t.Helper()
	var below []string
	for e, err := range b.ReadDir(context.Background(), name) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if e.Attr.IsDir() {
			below = append(below, e.Name)
		}
	}
	for _, sub := range below {
		n += listPlainly(t, b, sub)
	}
	return n
}

// listTree is listPlainly of the directory dir of a tree.
func listTree(t *testing.T, tree *bridge.Tree, dir *bridge.Node) (n int) {
	t.Helper()
	ctx := context.Background()
	c := bridge.Caller{Avatar: &bridge.Avatar{}}
	d, err := tree.OpenDir(ctx, c, dir)
	if err != nil {
		t.Fatal(err)
	}
	var below []string
	for e, err := range d.Entries(ctx, 2) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		if e.Attr.IsDir() {
			below = append(below, e.Name)
		}
	}
	d.Close()
	for _, name := range below {
		sub, _, err := tree.Lookup(ctx, c, dir, name)
		if err != nil {
			t.Fatal(err)
		}
		n += listTree(t, tree, sub)
		tree.Forget(sub, 1)
	}
	return n
}

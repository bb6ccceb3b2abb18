package sftpfs_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"sftpbridge/bridge"
	"sftpbridge/bridge/backendtest"
	"sftpbridge/bridge/memfs"
	"sftpbridge/bridge/sftpfs"
	"sftpbridge/sftpsrv"
)

// A doorTransport serves root's view of a tree in memory, each session on a
// pipe.
type doorTransport struct {
	tree *bridge.Tree
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
}

func newDoor(t *testing.T) *doorTransport {
	t.Helper()
	tree, err := bridge.New(context.Background(), memfs.New(), bridge.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := &doorTransport{tree: tree}
	d.ctx, d.stop = context.WithCancel(context.Background())
	t.Cleanup(func() {
		d.stop()
		d.wg.Wait()
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *doorTransport) Open(ctx context.Context) (io.ReadWriteCloser, error) {
	view, err := d.tree.View(ctx, &bridge.Avatar{Name: "root"}, d.tree.NewDoor())
	if err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	d.wg.Go(func() {
		sftpsrv.Serve(d.ctx, server, view, sftpsrv.SessionOptions{})
		server.Close()
		view.Close()
	})
	return client, nil
}

func (d *doorTransport) Ping(context.Context) error { return nil }

func (d *doorTransport) Close() error { return nil }

// TestBackendDoor runs the suite on our own SFTP door.
func TestBackendDoor(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) bridge.Backend {
		d := newDoor(t)
		return open(t, func(context.Context) (sftpfs.Transport, error) { return d, nil }, sftpfs.Options{})
	}, suite)
}

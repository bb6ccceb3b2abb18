package sftpsrv_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"sort"
	"syscall"
	"time"

	"github.com/pkg/sftp"

	"sftpbridge/bridge"
	"sftpbridge/sftpsrv"
)

// Notes are a bridge.Server of its own: one directory of texts that cannot be
// changed. What it does not implement is refused.
type Notes map[string]string

func (n Notes) Avatar() *bridge.Avatar { return &bridge.Avatar{Name: "reader", ReadOnly: true} }

func (n Notes) GotVersion(uint32, []bridge.Extension) []bridge.Extension { return nil }

func (n Notes) attr(name string) bridge.Attr {
	if name == "." || name == ".." {
		return bridge.Attr{Mode: syscall.S_IFDIR | 0o555, Nlink: 2, Mtime: time.Unix(0, 0), Atime: time.Unix(0, 0)}
	}
	return bridge.Attr{Mode: syscall.S_IFREG | 0o444, Nlink: 1, Size: int64(len(n[name])), Mtime: time.Unix(0, 0), Atime: time.Unix(0, 0)}
}

// name finds what a path means; "." is the directory.
func (n Notes) name(path string) (string, error) {
	for len(path) > 0 && path[0] == '/' {
		path = path[1:]
	}
	if path == "" || path == "." {
		return ".", nil
	}
	if _, ok := n[path]; !ok {
		return "", syscall.ENOENT
	}
	return path, nil
}

func (n Notes) OpenFile(_ context.Context, path string, flags bridge.OpenFlags, _ bridge.SetAttr) (bridge.ServerFile, error) {
	name, err := n.name(path)
	switch {
	case flags.Writes() || flags.Has(syscall.O_CREAT):
		return nil, syscall.EROFS
	case err != nil:
		return nil, err
	case name == ".":
		return nil, syscall.EISDIR
	}
	return note{n, name}, nil
}

func (n Notes) OpenDirectory(_ context.Context, path string) (bridge.ServerDir, error) {
	name, err := n.name(path)
	if err == nil && name != "." {
		err = syscall.ENOTDIR
	}
	names := []string{".", ".."}
	for name := range n {
		names = append(names, name)
	}
	sort.Strings(names)
	return &list{n, names}, err
}

func (n Notes) GetAttrs(_ context.Context, path string, _ bool) (bridge.Attr, error) {
	name, err := n.name(path)
	return n.attr(name), err
}

func (n Notes) RealPath(_ context.Context, path string) (string, error) {
	name, err := n.name(path)
	if name == "." {
		name = ""
	}
	return "/" + name, err
}

func (n Notes) RemoveFile(context.Context, string) error                    { return syscall.EROFS }
func (n Notes) RenameFile(context.Context, string, string) error            { return syscall.EROFS }
func (n Notes) MakeDirectory(context.Context, string, bridge.SetAttr) error { return syscall.EROFS }
func (n Notes) RemoveDirectory(context.Context, string) error               { return syscall.EROFS }
func (n Notes) SetAttrs(context.Context, string, bridge.SetAttr) error      { return syscall.EROFS }
func (n Notes) MakeLink(context.Context, string, string) error              { return syscall.EROFS }
func (n Notes) ReadLink(context.Context, string) (string, error)            { return "", syscall.EINVAL }
func (n Notes) ExtendedRequest(context.Context, string, []byte) ([]byte, error) {
	return nil, syscall.ENOSYS
}

// A note is an open file.
type note struct {
	notes Notes
	name  string
}

func (f note) ReadChunk(_ context.Context, p []byte, off int64) (int, error) {
	text := f.notes[f.name]
	if off >= int64(len(text)) {
		return 0, io.EOF
	}
	n := copy(p, text[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f note) WriteChunk(context.Context, []byte, int64) error { return syscall.EBADF }
func (f note) GetAttrs(context.Context) (bridge.Attr, error)   { return f.notes.attr(f.name), nil }
func (f note) SetAttrs(context.Context, bridge.SetAttr) error  { return syscall.EROFS }
func (f note) Close(context.Context) error                     { return nil }

// A list is a listing under way.
type list struct {
	notes Notes
	left  []string // the names that come next
}

func (l *list) Close() error { return nil }

func (l *list) Entries(context.Context) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for len(l.left) > 0 {
			name := l.left[0]
			l.left = l.left[1:]
			if !yield(bridge.DirEntry{Name: name, Attr: l.notes.attr(name), Full: true}, nil) {
				return
			}
		}
	}
}

// ExampleServe serves a bridge.Server that is not a tree, and reads from it.
func ExampleServe() {
	notes := Notes{"todo": "water the plants\n", "done": "learn SFTP\n"}
	client, server := net.Pipe()
	ended := make(chan error)
	go func() {
		err := sftpsrv.Serve(context.Background(), server, notes, sftpsrv.SessionOptions{})
		server.Close()
		ended <- err
	}()

	c, err := sftp.NewClientPipe(client, client)
	if err != nil {
		fmt.Println(err)
		return
	}
	infos, _ := c.ReadDir("/")
	for _, fi := range infos {
		fmt.Println(fi.Mode(), fi.Size(), fi.Name())
	}
	f, _ := c.Open("/todo")
	text, _ := io.ReadAll(f)
	f.Close()
	fmt.Print(string(text))
	_, err = c.Create("/new")
	fmt.Println(err)
	c.Close()
	fmt.Println(<-ended)

	// Output:
	// -r--r--r-- 11 done
	// -r--r--r-- 17 todo
	// water the plants
	// sftp: "Read-only file system" (SSH_FX_FAILURE)
	// <nil>
}

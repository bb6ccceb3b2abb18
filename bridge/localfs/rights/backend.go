//go:build amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x

package rights

import (
	"context"
	"iter"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
)

// An FS is a local directory in which the kernel decides who may do what.
// Access to content is decided when a file is opened.
type FS struct {
	*localfs.FS // what is not here is done with the rights of the process
	credOf      func(context.Context) (bridge.Cred, bool)
}

var _ interface {
	bridge.Backend
	bridge.SymlinkBackend
	bridge.LinkBackend
	bridge.MknodBackend
	bridge.StatFSBackend
	bridge.XattrBackend
	bridge.WatchBackend
} = (*FS)(nil)

// New returns fs with each operation carried out with the credentials that
// credOf finds in its context, or, if it finds none, with those of the
// process. It is an error if the process is not root.
func New(fs *localfs.FS, credOf func(context.Context) (bridge.Cred, bool)) (*FS, error) {
	if err := Check(); err != nil {
		return nil, err
	}
	return &FS{FS: fs, credOf: credOf}, nil
}

// ActsAsCaller implements bridge.CallerBackend.
func (fs *FS) ActsAsCaller() {}

// as calls f with the credentials that are in ctx.
func (fs *FS) as(ctx context.Context, f func() error) error {
	if cred, ok := fs.credOf(ctx); ok {
		return As(cred, f)
	}
	return f()
}

// valueAs is as for what returns a value.
func valueAs[T any](ctx context.Context, fs *FS, f func() (T, error)) (v T, err error) {
	err = fs.as(ctx, func() error {
		v, err = f()
		return err
	})
	return v, err
}

// Lstat needs search permission for the directories on the way.
func (fs *FS) Lstat(ctx context.Context, name string) (bridge.Attr, error) {
	return valueAs(ctx, fs, func() (bridge.Attr, error) { return fs.FS.Lstat(ctx, name) })
}

// ReadDir reads all entries before it yields the first, since what is done
// with them is not to be done with the user's rights.
func (fs *FS) ReadDir(ctx context.Context, name string) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		var entries []bridge.DirEntry
		err := fs.as(ctx, func() error {
			for e, err := range fs.FS.ReadDir(ctx, name) {
				if err != nil {
					return err
				}
				entries = append(entries, e)
			}
			return nil
		})
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(bridge.DirEntry{}, err)
		}
	}
}

func (fs *FS) Open(ctx context.Context, name string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.File, error) {
	f, err := valueAs(ctx, fs, func() (bridge.File, error) { return fs.FS.Open(ctx, name, flags, attr) })
	if err != nil {
		return nil, err
	}
	return &File{File: f.(*localfs.File), fs: fs}, nil
}

func (fs *FS) Mkdir(ctx context.Context, name string, attr bridge.SetAttr) error {
	return fs.as(ctx, func() error { return fs.FS.Mkdir(ctx, name, attr) })
}

func (fs *FS) SetAttr(ctx context.Context, name string, attr bridge.SetAttr) error {
	return fs.as(ctx, func() error { return fs.FS.SetAttr(ctx, name, attr) })
}

func (fs *FS) Remove(ctx context.Context, name string) error {
	return fs.as(ctx, func() error { return fs.FS.Remove(ctx, name) })
}

func (fs *FS) Rmdir(ctx context.Context, name string) error {
	return fs.as(ctx, func() error { return fs.FS.Rmdir(ctx, name) })
}

func (fs *FS) Rename(ctx context.Context, from, to string, flags bridge.RenameFlags) error {
	return fs.as(ctx, func() error { return fs.FS.Rename(ctx, from, to, flags) })
}

func (fs *FS) Symlink(ctx context.Context, target, name string, attr bridge.SetAttr) error {
	return fs.as(ctx, func() error { return fs.FS.Symlink(ctx, target, name, attr) })
}

func (fs *FS) Readlink(ctx context.Context, name string) (string, error) {
	return valueAs(ctx, fs, func() (string, error) { return fs.FS.Readlink(ctx, name) })
}

func (fs *FS) Link(ctx context.Context, old, new string) error {
	return fs.as(ctx, func() error { return fs.FS.Link(ctx, old, new) })
}

func (fs *FS) Mknod(ctx context.Context, name string, mode, rdev uint32, attr bridge.SetAttr) error {
	return fs.as(ctx, func() error { return fs.FS.Mknod(ctx, name, mode, rdev, attr) })
}

func (fs *FS) StatFS(ctx context.Context, name string) (bridge.StatFS, error) {
	return valueAs(ctx, fs, func() (bridge.StatFS, error) { return fs.FS.StatFS(ctx, name) })
}

func (fs *FS) GetXattr(ctx context.Context, name, attr string) ([]byte, error) {
	return valueAs(ctx, fs, func() ([]byte, error) { return fs.FS.GetXattr(ctx, name, attr) })
}

func (fs *FS) SetXattr(ctx context.Context, name, attr string, value []byte, flags int) error {
	return fs.as(ctx, func() error { return fs.FS.SetXattr(ctx, name, attr, value, flags) })
}

func (fs *FS) ListXattr(ctx context.Context, name string) ([]string, error) {
	return valueAs(ctx, fs, func() ([]string, error) { return fs.FS.ListXattr(ctx, name) })
}

func (fs *FS) RemoveXattr(ctx context.Context, name, attr string) error {
	return fs.as(ctx, func() error { return fs.FS.RemoveXattr(ctx, name, attr) })
}

// A File is an open file of an FS.
type File struct {
	*localfs.File
	fs *FS
}

var _ interface {
	bridge.File
	bridge.FDFile
	bridge.CopyFile
	bridge.AllocateFile
	bridge.SeekFile
} = (*File)(nil)

// SetAttr needs the rights to the inode, but for the size, which a file that
// is open for writing can be given.
func (f *File) SetAttr(ctx context.Context, attr bridge.SetAttr) error {
	return f.fs.as(ctx, func() error { return f.File.SetAttr(ctx, attr) })
}

// CopyRange copies to another file of an FS.
func (f *File) CopyRange(ctx context.Context, off int64, dst bridge.File, dstOff, n int64) (int64, error) {
	if d, ok := dst.(*File); ok {
		dst = d.File
	}
	return f.File.CopyRange(ctx, off, dst, dstOff, n)
}

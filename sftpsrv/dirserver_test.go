package sftpsrv

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// A dirServer serves the files of this machine as they are, without asking
// anybody, to test the door with. Relative paths begin at home.
type dirServer struct {
	home string

	mu         sync.Mutex
	version    uint32
	extensions []bridge.Extension // of the client
	names      map[uint32]string  // of users, and of the complements of groups
}

var (
	_ bridge.Server         = (*dirServer)(nil)
	_ bridge.PosixRenamer   = (*dirServer)(nil)
	_ bridge.HardLinker     = (*dirServer)(nil)
	_ bridge.LinkAttrSetter = (*dirServer)(nil)
	_ bridge.StatFSer       = (*dirServer)(nil)
	_ bridge.PathExpander   = (*dirServer)(nil)
	_ bridge.IDNamer        = (*dirServer)(nil)
	_ bridge.SyncFile       = (*osFile)(nil)
	_ bridge.StatFSFile     = (*osFile)(nil)
	_ bridge.CopyToFile     = (*osFile)(nil)
)

func (d *dirServer) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return d.home + "/" + p
}

func (d *dirServer) Avatar() *bridge.Avatar { return &bridge.Avatar{Name: "test"} }

func (d *dirServer) GotVersion(version uint32, ext []bridge.Extension) []bridge.Extension {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.version, d.extensions = version, ext
	return []bridge.Extension{{Name: "echo@test", Data: "1"}}
}

func (d *dirServer) OpenFile(_ context.Context, path string, flags bridge.OpenFlags, attr bridge.SetAttr) (bridge.ServerFile, error) {
	fd, err := unix.Open(d.path(path), int(flags)|unix.O_CLOEXEC, attr.Mode)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		unix.Close(fd)
		return nil, syscall.EISDIR
	}
	return &osFile{os.NewFile(uintptr(fd), path), flags}, nil
}

func (d *dirServer) RemoveFile(_ context.Context, path string) error {
	return unix.Unlink(d.path(path))
}

func (d *dirServer) RenameFile(_ context.Context, from, to string) error {
	return unix.Renameat2(unix.AT_FDCWD, d.path(from), unix.AT_FDCWD, d.path(to), unix.RENAME_NOREPLACE)
}

func (d *dirServer) PosixRename(_ context.Context, from, to string) error {
	return unix.Rename(d.path(from), d.path(to))
}

func (d *dirServer) HardLink(_ context.Context, from, to string) error {
	return unix.Link(d.path(from), d.path(to))
}

func (d *dirServer) MakeDirectory(_ context.Context, path string, attr bridge.SetAttr) error {
	return unix.Mkdir(d.path(path), attr.Mode)
}

func (d *dirServer) RemoveDirectory(_ context.Context, path string) error {
	return unix.Rmdir(d.path(path))
}

func (d *dirServer) GetAttrs(_ context.Context, path string, follow bool) (bridge.Attr, error) {
	var st unix.Stat_t
	stat := unix.Lstat
	if follow {
		stat = unix.Stat
	}
	err := stat(d.path(path), &st)
	return attrOf(&st), err
}

func attrOf(st *unix.Stat_t) bridge.Attr {
	return bridge.Attr{
		Mode: st.Mode, Nlink: uint32(st.Nlink), UID: st.Uid, GID: st.Gid, Size: st.Size,
		Atime: time.Unix(st.Atim.Unix()), Mtime: time.Unix(st.Mtim.Unix()),
	}
}

func (d *dirServer) SetAttrs(_ context.Context, path string, a bridge.SetAttr) error {
	return setPath(d.path(path), a, 0)
}

func (d *dirServer) SetLinkAttrs(_ context.Context, path string, a bridge.SetAttr) error {
	return setPath(d.path(path), a, unix.AT_SYMLINK_NOFOLLOW)
}

func setPath(path string, a bridge.SetAttr, flags int) error {
	var errs []error
	if a.Has(bridge.SetSize) {
		errs = append(errs, os.Truncate(path, a.Size))
	}
	if a.Has(bridge.SetMode) {
		errs = append(errs, unix.Fchmodat(unix.AT_FDCWD, path, a.Mode, flags))
	}
	if a.Has(bridge.SetMtime) {
		errs = append(errs, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{
			unix.NsecToTimespec(a.Atime.UnixNano()), unix.NsecToTimespec(a.Mtime.UnixNano())}, flags))
	}
	if a.Has(bridge.SetUID) {
		errs = append(errs, unix.Fchownat(unix.AT_FDCWD, path, int(a.UID), int(a.GID), flags))
	}
	return errors.Join(errs...)
}

func (d *dirServer) ReadLink(_ context.Context, path string) (string, error) {
	target, err := os.Readlink(d.path(path))
	return target, err
}

func (d *dirServer) MakeLink(_ context.Context, link, target string) error {
	return os.Symlink(target, d.path(link))
}

func (d *dirServer) RealPath(_ context.Context, path string) (string, error) {
	p := filepath.Clean(d.path(path))
	if real, err := filepath.EvalSymlinks(p); err == nil {
		return real, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(p))
	return filepath.Join(dir, filepath.Base(p)), err
}

func (d *dirServer) ExpandPath(ctx context.Context, path string) (string, error) {
	if path == "~" {
		return d.home, nil
	}
	return d.RealPath(ctx, path)
}

func (d *dirServer) HomeDirectory(_ context.Context, name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", syscall.ENOENT
	}
	return u.HomeDir, nil
}

func (d *dirServer) UserName(uid uint32) string {
	return d.name(uid, func(id string) (string, error) {
		u, err := user.LookupId(id)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (d *dirServer) GroupName(gid uint32) string {
	return d.name(^gid, func(string) (string, error) {
		g, err := user.LookupGroupId(strconv.Itoa(int(gid)))
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// name remembers what lookup says of id.
func (d *dirServer) name(id uint32, lookup func(string) (string, error)) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, ok := d.names[id]
	if !ok {
		name, _ = lookup(strconv.Itoa(int(id)))
		if d.names == nil {
			d.names = make(map[uint32]string)
		}
		d.names[id] = name
	}
	return name
}

func (d *dirServer) StatFS(_ context.Context, path string) (bridge.StatFS, error) {
	var st unix.Statfs_t
	err := unix.Statfs(d.path(path), &st)
	return statFSOf(&st), err
}

func statFSOf(st *unix.Statfs_t) bridge.StatFS {
	return bridge.StatFS{
		BlockSize: uint32(st.Bsize), FragSize: uint32(st.Frsize), Blocks: st.Blocks, BlocksFree: st.Bfree,
		BlocksAvl: st.Bavail, Files: st.Files, FilesFree: st.Ffree, FilesAvl: st.Ffree, NameMax: uint32(st.Namelen),
	}
}

func (d *dirServer) ExtendedRequest(_ context.Context, name string, data []byte) ([]byte, error) {
	if name == "echo@test" {
		return slices.Clone(data), nil
	}
	return nil, syscall.ENOSYS
}

func (d *dirServer) OpenDirectory(_ context.Context, path string) (bridge.ServerDir, error) {
	f, err := os.OpenFile(d.path(path), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	slices.Sort(names)
	return &osDir{f, append([]string{".", ".."}, names...)}, nil
}

type osDir struct {
	f    *os.File
	left []string // names that come next
}

func (d *osDir) Close() error { return d.f.Close() }

func (d *osDir) Entries(context.Context) iter.Seq2[bridge.DirEntry, error] {
	return func(yield func(bridge.DirEntry, error) bool) {
		for len(d.left) > 0 {
			name := d.left[0]
			d.left = d.left[1:]
			var st unix.Stat_t
			if unix.Lstat(d.f.Name()+"/"+name, &st) != nil {
				continue
			}
			if !yield(bridge.DirEntry{Name: name, Attr: attrOf(&st), Full: true}, nil) {
				return
			}
		}
	}
}

type osFile struct {
	f     *os.File
	flags bridge.OpenFlags
}

func (f *osFile) ReadChunk(_ context.Context, p []byte, off int64) (int, error) {
	return f.f.ReadAt(p, off)
}

func (f *osFile) WriteChunk(_ context.Context, p []byte, off int64) error {
	var err error
	if f.flags.Has(syscall.O_APPEND) {
		_, err = f.f.Write(p)
	} else {
		_, err = f.f.WriteAt(p, off)
	}
	return err
}

func (f *osFile) GetAttrs(context.Context) (bridge.Attr, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.f.Fd()), &st)
	return attrOf(&st), err
}

func (f *osFile) SetAttrs(_ context.Context, a bridge.SetAttr) error {
	return setPath("/proc/self/fd/"+strconv.Itoa(int(f.f.Fd())), a, 0)
}

func (f *osFile) Sync(context.Context) error { return f.f.Sync() }

func (f *osFile) StatFS(context.Context) (bridge.StatFS, error) {
	var st unix.Statfs_t
	err := unix.Fstatfs(int(f.f.Fd()), &st)
	return statFSOf(&st), err
}

func (f *osFile) CopyTo(_ context.Context, off, n int64, dst bridge.ServerFile, dstOff int64) error {
	to := dst.(*osFile)
	a, _ := f.f.Stat()
	b, _ := to.f.Stat()
	if os.SameFile(a, b) {
		return syscall.EINVAL
	}
	if n == 0 {
		n = 1<<63 - 1 - off
	}
	_, err := io.Copy(io.NewOffsetWriter(to.f, dstOff), io.NewSectionReader(f.f, off, n))
	return err
}

func (f *osFile) Close(context.Context) error { return f.f.Close() }

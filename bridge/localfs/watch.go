package localfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

// watchMask is what is asked of inotify(7) about a directory. Files that were
// removed and are still written to are left out.
const watchMask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_ATTRIB |
	unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF |
	unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

// watchBuf is how much is read of inotify at once, in bytes.
const watchBuf = 64 << 10

// watchPause is for how long nothing is read after something was: what happens to
// one file in that time, such as all that makes a new one, is then told once.
const watchPause = 2 * time.Millisecond

// A watcher is the inotify descriptor of an FS, made when it is first needed,
// and what is watched with it. The kernel watches inodes: one inode may have
// been named in several ways, when it was renamed in between or is mounted
// twice.
type watcher struct {
	mu      sync.Mutex
	file    *os.File // nil before the first use
	fd      int      // of file
	closed  bool
	running bool               // there is a Watch
	wds     map[string]int32   // the watch of each name
	names   map[int32][]string // the names of each watch; the slices do not change
}

// Watch calls changed for each change in the directories that were named to
// WatchDir, until ctx ends. It reads what the kernel has kept since WatchDir,
// also if that was called before. Its own process's changes are told as well.
//
// A directory is told of under the names with which it was given to WatchDir,
// and goes on being watched when it is renamed: that is told as a change of
// the directory itself (Entry true, Name empty), whereupon its user should
// unwatch the old name and watch the new one. The same is told when it is
// removed, which ends the watch.
//
// There can be one Watch at a time (EBUSY). EBADF when the FS is closed.
func (fs *FS) Watch(ctx context.Context, changed func(bridge.Change)) error {
	w := &fs.watch
	file, err := w.begin()
	if err != nil {
		return err
	}
	defer w.end()
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = file.SetReadDeadline(time.Unix(1, 0)) // fails if closed: Read ends too
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	buf := make([]byte, watchBuf)
	for {
		n, err := file.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, os.ErrClosed) {
			return syscall.EBADF
		}
		if err != nil {
			return err
		}
		for _, e := range merged(eventsOf(buf[:n])) {
			w.tell(e, changed)
		}
		if n < len(buf)/2 {
			time.Sleep(watchPause)
		}
	}
}

// WatchDir begins to watch the directory name. A name that is watched already
// is then watched as the directory that it means now. ENOSPC when the limit on
// watches is reached (/proc/sys/fs/inotify/max_user_watches), EMFILE for that
// on users of inotify, EACCES without permission to read the directory.
func (fs *FS) WatchDir(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	fd, err := fs.openDir(name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return fs.watch.add(name, inode{fd: fd})
}

// UnwatchDir ends the watch of name.
func (fs *FS) UnwatchDir(name string) {
	w := &fs.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropLocked(name)
}

// begin returns the inotify descriptor for a Watch, which ends with end.
func (w *watcher) begin() (*os.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running {
		return nil, syscall.EBUSY
	}
	if err := w.openLocked(); err != nil {
		return nil, err
	}
	if err := w.file.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	w.running = true
	return w.file, nil
}

func (w *watcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = false
}

// openLocked makes the inotify descriptor if there is none. w.mu is held.
func (w *watcher) openLocked() error {
	if w.closed {
		return syscall.EBADF
	}
	if w.file != nil {
		return nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}
	w.fd = fd
	w.file = os.NewFile(uintptr(fd), "inotify")
	w.wds = make(map[string]int32)
	w.names = make(map[int32][]string)
	return nil
}

// close ends all watches.
func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.wds, w.names = nil, nil
	if w.file != nil {
		_ = w.file.Close() // nothing is lost with it
	}
}

// add watches the directory dir as name.
func (w *watcher) add(name string, dir inode) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.openLocked(); err != nil {
		return err
	}
	n, err := unix.InotifyAddWatch(w.fd, dir.path(), watchMask)
	if err != nil {
		return err
	}
	wd := int32(n)
	if old, ok := w.wds[name]; ok && old == wd {
		return nil
	}
	w.dropLocked(name)
	w.wds[name] = wd
	w.names[wd] = slices.Concat(w.names[wd], []string{name})
	return nil
}

// dropLocked ends the watch of name, if there is one. w.mu is held.
func (w *watcher) dropLocked(name string) {
	wd, ok := w.wds[name]
	if !ok {
		return
	}
	delete(w.wds, name)
	rest := slices.DeleteFunc(slices.Clone(w.names[wd]), func(s string) bool { return s == name })
	if len(rest) > 0 {
		w.names[wd] = rest
		return
	}
	delete(w.names, wd)
	_, _ = unix.InotifyRmWatch(w.fd, uint32(wd)) // EINVAL if the directory is gone
}

// dirs returns the names of the watch, and forgets them if it has ended.
func (w *watcher) dirs(wd int32, ended bool) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := w.names[wd]
	if ended {
		delete(w.names, wd)
		for _, name := range names {
			delete(w.wds, name)
		}
	}
	return names
}

// tell calls changed for the event e.
func (w *watcher) tell(e event, changed func(bridge.Change)) {
	if e.mask&unix.IN_Q_OVERFLOW != 0 {
		changed(bridge.Change{Overflow: true})
		return
	}
	ended := e.mask&unix.IN_IGNORED != 0
	dirs := w.dirs(e.wd, ended)
	if ended {
		return
	}
	const entry = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT
	for _, dir := range dirs {
		changed(bridge.Change{
			Dir:     dir,
			Name:    e.name,
			Entry:   e.mask&entry != 0,
			Content: e.mask&(unix.IN_MODIFY|unix.IN_CLOSE_WRITE) != 0,
		})
	}
}

// An event is one of inotify(7).
type event struct {
	wd   int32
	mask uint32
	name string // in the directory, or "" for the directory itself
}

// merged returns the events with those of one name in one directory as one, at the
// place of the first.
func merged(events iter.Seq[event]) []event {
	type place struct {
		wd   int32
		name string
	}
	var all []event
	seen := make(map[place]int)
	for e := range events {
		i, again := seen[place{e.wd, e.name}]
		switch {
		case e.mask&(unix.IN_Q_OVERFLOW|unix.IN_IGNORED) != 0:
			all = append(all, e)
		case again:
			all[i].mask |= e.mask
		default:
			seen[place{e.wd, e.name}] = len(all)
			all = append(all, e)
		}
	}
	return all
}

// eventsOf yields the events in what was read from an inotify descriptor.
func eventsOf(buf []byte) iter.Seq[event] {
	return func(yield func(event) bool) {
		for len(buf) >= unix.SizeofInotifyEvent {
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
			if end > len(buf) {
				return
			}
			name, _, _ := bytes.Cut(buf[unix.SizeofInotifyEvent:end], []byte{0})
			e := event{
				wd:   int32(binary.NativeEndian.Uint32(buf)),
				mask: binary.NativeEndian.Uint32(buf[4:]),
				name: string(name),
			}
			buf = buf[end:]
			if !yield(e) {
				return
			}
		}
	}
}

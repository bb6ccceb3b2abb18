package localfs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sftpbridge/bridge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A recorder keeps what a Watch has told.
type recorder struct {
	t       *testing.T
	mu      sync.Mutex
	changes []bridge.Change
}

// record runs a Watch until the test ends.
func record(t *testing.T, fs *FS) *recorder {
	t.Helper()
	r := &recorder{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- fs.Watch(ctx, r.add) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return r
}

func (r *recorder) add(c bridge.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, c)
}

// await waits until the change has been told, perhaps as one with others of that
// name, and forgets what has been told until then.
func (r *recorder) await(want bridge.Change) {
	r.t.Helper()
	r.awaitAny(want.Dir+"/"+want.Name, func(c bridge.Change) bool { return covers(c, want) })
}

// covers reports whether c tells of want.
func covers(c, want bridge.Change) bool {
	return c.Dir == want.Dir && c.Name == want.Name && c.Overflow == want.Overflow &&
		(c.Entry || !want.Entry) && (c.Content || !want.Content)
}

func (r *recorder) awaitAny(what string, match func(bridge.Change) bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if r.take(match) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Fatalf("%s was not told, but %+v", what, r.changes)
}

func (r *recorder) take(match func(bridge.Change) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range r.changes {
		if match(c) {
			r.changes = r.changes[i+1:]
			return true
		}
	}
	return false
}

func TestWatch(t *testing.T) {
	fs, dir := newFS(t)
	must(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	must(t, fs.WatchDir("."))
	must(t, fs.WatchDir("d"))
	r := record(t, fs)
	entry := func(dir, name string) bridge.Change { return bridge.Change{Dir: dir, Name: name, Entry: true} }
	content := func(dir, name string) bridge.Change { return bridge.Change{Dir: dir, Name: name, Content: true} }

	must(t, os.WriteFile(filepath.Join(dir, "d/f"), []byte("x"), 0o644))
	r.await(entry("d", "f"))
	must(t, os.Chmod(filepath.Join(dir, "d/f"), 0o600))
	r.await(bridge.Change{Dir: "d", Name: "f"})
	must(t, os.Truncate(filepath.Join(dir, "d/f"), 5))
	r.await(content("d", "f"))
	must(t, os.Rename(filepath.Join(dir, "d/f"), filepath.Join(dir, "g")))
	r.await(entry("d", "f"))
	r.await(entry(".", "g"))
	must(t, os.Remove(filepath.Join(dir, "g")))
	r.await(entry(".", "g"))
	must(t, os.Mkdir(filepath.Join(dir, "e"), 0o755))
	r.await(entry(".", "e"))
	must(t, os.Chmod(filepath.Join(dir, "d"), 0o700))
	r.awaitAny("the mode of d", func(c bridge.Change) bool { return c == bridge.Change{Dir: "d"} })

	fs.UnwatchDir("d")
	put(t, fs, "d/unseen", "")
	put(t, fs, "seen", "")
	r.awaitAny("the end", func(c bridge.Change) bool {
		if c.Name == "unseen" {
			t.Error("a directory was told of that is not watched any more")
		}
		return covers(c, content(".", "seen"))
	})
}

func TestWatchRename(t *testing.T) {
	fs, dir := newFS(t)
	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	must(t, fs.WatchDir("a"))
	r := record(t, fs)
	must(t, os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	r.await(bridge.Change{Dir: "a", Entry: true})
	put(t, fs, "b/x", "")
	r.await(bridge.Change{Dir: "a", Name: "x", Entry: true})

	must(t, fs.WatchDir("b"))
	put(t, fs, "b/y", "")
	r.await(bridge.Change{Dir: "a", Name: "y", Entry: true})
	put(t, fs, "b/z", "")
	r.await(bridge.Change{Dir: "b", Name: "z", Entry: true})
	fs.UnwatchDir("a")
	put(t, fs, "b/w", "")
	r.await(bridge.Change{Dir: "b", Name: "w", Entry: true})

	must(t, os.Mkdir(filepath.Join(dir, "a"), 0o755))
	must(t, fs.WatchDir("a"))
	must(t, os.RemoveAll(filepath.Join(dir, "b")))
	r.await(bridge.Change{Dir: "b", Entry: true})
	put(t, fs, "a/v", "")
	r.await(bridge.Change{Dir: "a", Name: "v", Entry: true})
	must(t, os.Mkdir(filepath.Join(dir, "b"), 0o755))
	must(t, fs.WatchDir("b"))
	put(t, fs, "b/again", "")
	r.await(bridge.Change{Dir: "b", Name: "again", Entry: true})
}

func TestWatchErrors(t *testing.T) {
	fs, dir := newFS(t)
	must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o644))
	wantErrno(t, "WatchDir of nothing", fs.WatchDir("x"), syscall.ENOENT)
	wantErrno(t, "WatchDir of a file", fs.WatchDir("f"), syscall.ENOTDIR)
	wantErrno(t, "WatchDir outside", fs.WatchDir(".."), syscall.EINVAL)
	fs.UnwatchDir("never watched")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if err := fs.Watch(ctx, func(bridge.Change) {}); err != nil {
			t.Errorf("Watch with an ended context: %v", err)
		}
	}
}

func TestWatchTwiceAndClose(t *testing.T) {
	fs, _ := newFS(t)
	must(t, fs.WatchDir("."))
	told := make(chan bridge.Change, 100)
	done := make(chan error)
	go func() { done <- fs.Watch(context.Background(), func(c bridge.Change) { told <- c }) }()
	put(t, fs, "x", "")
	<-told
	wantErrno(t, "second Watch", fs.Watch(t.Context(), func(bridge.Change) {}), syscall.EBUSY)
	must(t, fs.Close())
	wantErrno(t, "Watch of a closed FS", <-done, syscall.EBADF)
}

// TestWatchOverflow makes more changes than the kernel keeps before they are
// read.
func TestWatchOverflow(t *testing.T) {
	limit, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	n, err := strconv.Atoi(string(bytes.TrimSpace(limit)))
	must(t, err)
	if n > 1<<17 {
		t.Skipf("the kernel keeps %d events", n)
	}
	fs, dir := newFS(t)
	must(t, fs.WatchDir("."))
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	for range n/2 + 10 { // two events each
		must(t, unix.Mkdirat(fd, "d", 0o700))
		must(t, unix.Unlinkat(fd, "d", unix.AT_REMOVEDIR))
	}
	r := record(t, fs)
	r.await(bridge.Change{Overflow: true})
	put(t, fs, "after", "")
	r.await(bridge.Change{Dir: ".", Name: "after", Entry: true})
}

// TestMerged: what happens to one name is one event, in the order of the first.
func TestMerged(t *testing.T) {
	events := []event{
		{1, unix.IN_CREATE, "a"}, {1, unix.IN_CREATE, "b"}, {1, unix.IN_MODIFY, "a"}, {2, unix.IN_CREATE, "a"},
		{1, unix.IN_ATTRIB, ""}, {1, unix.IN_IGNORED, ""}, {-1, unix.IN_Q_OVERFLOW, ""}, {1, unix.IN_CLOSE_WRITE, "a"},
	}
	want := []event{
		{1, unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE, "a"}, {1, unix.IN_CREATE, "b"}, {2, unix.IN_CREATE, "a"},
		{1, unix.IN_ATTRIB, ""}, {1, unix.IN_IGNORED, ""}, {-1, unix.IN_Q_OVERFLOW, ""},
	}
	if got := merged(slices.Values(events)); !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

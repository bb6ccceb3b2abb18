package sftpsrv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
)

const sftpServer = "/usr/lib/openssh/sftp-server"

// A step is a request that both servers get. The handle that it opens goes by
// the name that is its opens; hnd is one that was opened.
type step struct {
	name   string
	typ    sshfx.PacketType
	fields []any
	opens  string
	more   bool // the next step is sent without waiting for the answer to this one
	moved  bool // the directory that it lists is no longer where it was opened
}

type hnd string

func req(name string, typ sshfx.PacketType, fields ...any) step {
	return step{name: name, typ: typ, fields: fields}
}

func (s step) as(handle string) step { s.opens = handle; return s }

func (s step) String() string {
	w := s.name
	for _, f := range s.fields {
		if p, ok := f.(string); ok && len(p) > 100 {
			f = fmt.Sprintf("%s… (%d bytes)", p[:10], len(p))
		}
		w += fmt.Sprintf(" %#v", f)
	}
	if s.opens != "" {
		w += " as " + s.opens
	}
	if s.more {
		w += " …"
	}
	return w
}

const (
	none  = uint32(0)
	rd    = uint32(sshfx.FlagRead)
	wr    = uint32(sshfx.FlagWrite)
	creat = uint32(sshfx.FlagCreate)
	trunc = uint32(sshfx.FlagTruncate)
	excl  = uint32(sshfx.FlagExclusive)
	app   = uint32(sshfx.FlagAppend)
	perm  = uint32(sshfx.AttrPermissions)
	size  = uint32(sshfx.AttrSize)
	times = uint32(sshfx.AttrACModTime)
	owner = uint32(sshfx.AttrUIDGID)
)

func needOpenSSH(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(sftpServer); err != nil {
		t.Skip("OpenSSH's sftp-server is not installed")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, who may set owners")
	}
}

// memoryDir makes a directory in memory that everybody may search. There two
// trees that were made in the same way are alike in their sizes, link counts
// and the order of their names, too.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sftpsrv")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	return dir
}

// root is who may do everything.
var root = bridge.Avatar{Name: "root", Umask: 0o022}

// localView is somebody's view of a local directory.
func localView(t testing.TB, dir string, who bridge.Avatar) *bridge.View {
	t.Helper()
	ctx := context.Background()
	backend, err := localfs.New(dir)
	must(t, err)
	tree, err := bridge.New(ctx, backend, bridge.Options{})
	must(t, err)
	view, err := tree.View(ctx, &who, 0)
	must(t, err)
	t.Cleanup(func() {
		view.Close()
		tree.Close()
	})
	return view
}

// A pipeRW is a program's standard input and output.
type pipeRW struct {
	io.Reader
	io.WriteCloser
}

// startOpenSSH starts sftp-server for somebody in a directory.
func startOpenSSH(t testing.TB, dir string, who bridge.Avatar) *rig {
	t.Helper()
	cmd := exec.Command(sftpServer, "-d", dir, "-u", fmt.Sprintf("%03o", who.Umask))
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: who.Cred.UID, Gid: who.Cred.GID, Groups: who.Cred.Groups,
	}}
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	watchdog := time.AfterFunc(3*patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
		watchdog.Stop()
	})
	return &rig{t: t, rw: pipeRW{out, in}}
}

// A contest is a session with each of the servers, in a directory of its own.
type contest struct {
	theirs, ours       *rig
	theirDir, ourDir   string
	theirOpen, ourOpen map[string]string // the handles, by their names in steps
	listed             map[hnd]listed
	over               bool // the files are no longer the same, on purpose
}

// A listed is a directory of which OpenSSH has a handle.
type listed struct {
	path string
	dir  os.FileInfo // nil if it was gone at once
}

// moved reports whether the directory of a handle is no longer where it was.
func (c *contest) moved(h hnd) bool {
	was, ok := c.listed[h]
	now, err := os.Stat(was.path)
	return ok && (was.dir == nil || err != nil || !os.SameFile(was.dir, now))
}

func newContest(t testing.TB, who bridge.Avatar, theirDir, ourDir string, opt SessionOptions) *contest {
	t.Helper()
	c := &contest{
		theirs:   startOpenSSH(t, theirDir, who),
		ours:     newRig(t, localView(t, ourDir, who), opt),
		theirDir: theirDir, ourDir: ourDir,
		theirOpen: map[string]string{}, ourOpen: map[string]string{},
		listed: map[hnd]listed{},
	}
	for _, r := range []*rig{c.theirs, c.ours} {
		r.send(packet(sshfx.PacketTypeInit, uint32(3)))
		r.recv()
	}
	return c
}

// differ sends steps to both, the next before the last is answered, and tells
// the first difference in answers or in what became of the files that is not
// one of the differences on purpose.
func (c *contest) differ(steps []step) string {
	c.theirs.t.Helper()
	theirFirst, theirsSent := c.theirs.sendSteps(steps, c.theirOpen)
	ourFirst, oursSent := c.ours.sendSteps(steps, c.ourOpen)
	found := ""
	for i, s := range steps {
		want := c.theirs.answer(theirFirst+uint32(i), s, c.theirOpen, c.theirDir)
		got := c.ours.answer(ourFirst+uint32(i), s, c.ourOpen, "")
		s.moved = s.typ == sshfx.PacketTypeReadDir && c.moved(s.fields[0].(hnd))
		if want == got || found != "" || c.over {
			continue
		}
		if d := differenceOf(s, want, got); d != nil {
			c.over = d.parts
		} else {
			found = fmt.Sprintf("%v: answered with\n\t%s\nwant\n\t%s", s, got, want)
		}
	}
	must(c.theirs.t, errors.Join(<-theirsSent, <-oursSent))
	c.opened(steps)
	if found == "" && !c.over {
		if want, got := treeOf(c.theirs.t, c.theirDir), treeOf(c.ours.t, c.ourDir); want != got {
			found = fmt.Sprintf("%v: what is left is\n%s\nwant\n%s", steps[len(steps)-1], got, want)
		}
	}
	return found
}

// opened sees to what steps have opened: what only one of the servers has is
// closed.
func (c *contest) opened(steps []step) {
	for _, s := range steps {
		theirs, ours := c.theirOpen[s.opens], c.ourOpen[s.opens]
		switch {
		case theirs != "" && ours == "":
			c.theirs.ask(sshfx.PacketTypeClose, theirs)
			delete(c.theirOpen, s.opens)
		case theirs == "" && ours != "":
			c.ours.ask(sshfx.PacketTypeClose, ours)
			delete(c.ourOpen, s.opens)
		case s.typ == sshfx.PacketTypeOpenDir:
			path := c.theirDir + "/" + s.fields[0].(string)
			fi, _ := os.Stat(path)
			c.listed[hnd(s.opens)] = listed{path, fi}
		}
	}
}

// sendSteps sends steps together, and returns the id of the first and a channel
// that tells when all are sent: a server may want its answers taken before. A
// handle is forgotten with its CLOSE, since the server may give its number to
// another, and when its name is for a new one.
func (r *rig) sendSteps(steps []step, handles map[string]string) (uint32, <-chan error) {
	first := r.nextID + 1
	var all []byte
	for _, s := range steps {
		fields := slices.Clone(s.fields)
		for i, f := range fields {
			if h, ok := f.(hnd); ok {
				fields[i] = handles[string(h)]
				if s.typ == sshfx.PacketTypeClose {
					delete(handles, string(h))
				}
			}
		}
		delete(handles, s.opens)
		r.nextID++
		all = append(all, packet(s.typ, append([]any{r.nextID}, fields...)...)...)
	}
	r.deadline()
	sent := make(chan error, 1)
	go func() {
		_, err := r.rw.Write(all)
		sent <- err
	}()
	return first, sent
}

// answer receives the answer to a step, and puts it in words. The path of root
// is taken out of it.
func (r *rig) answer(id uint32, s step, handles map[string]string, root string) string {
	r.t.Helper()
	b := sshfx.NewBuffer(r.recv())
	typ := sshfx.PacketType(b.ConsumeUint8())
	if got := b.ConsumeUint32(); got != id {
		r.t.Fatalf("answer to request %d, want %d", got, id)
	}
	words := answerWords(typ, b, s, root)
	delete(handles, s.opens)
	if typ == sshfx.PacketTypeHandle {
		handles[s.opens] = b.ConsumeString()
	}
	if b.Err != nil {
		return words + ", truncated"
	}
	if b.Len() > 0 {
		return fmt.Sprintf("%s and %d bytes more", words, b.Len())
	}
	return words
}

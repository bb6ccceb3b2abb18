package doorstest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

var (
	verdictSteps = flag.Int("steps", 600, "random operations of each verdict test")
	verdictSeed  = flag.Uint64("seed", 1, "where the random operations begin")
)

// A step is a call of some user at some door.
type step struct {
	call
	user int
	door int
}

const (
	atMount = iota
	atSFTP
)

func (s step) String() string {
	return fmt.Sprintf("%s at %s: %v", users[s.user].Name, [...]string{"the mount", "SFTP"}[s.door], s.call)
}

// A courtroom has all that is needed to try the same step twice: by the
// kernel, in a directory of its own, and at one of the doors.
type courtroom struct {
	kind    backendKind
	kernel  string // directory
	mount   string
	callers []*child
	clients []*client
	runs    int
}

// TestVerdict has random users do random things, each at a random door, and
// compares answer and resulting tree with what the kernel makes of the same in
// a directory of its own. Every second time that is one like /tmp.
func TestVerdict(t *testing.T) {
	verdict := func(t *testing.T, r *rig, kind backendKind) {
		room := &courtroom{kind: kind, kernel: shmDir(t), mount: r.mount}
		for _, u := range users {
			room.callers = append(room.callers, startChild(t, u))
			room.clients = append(room.clients, startClient(t, r, u))
		}
		rnd := rand.New(rand.NewPCG(*verdictSeed, 7))
		for done := 0; done < *verdictSteps; done += stepsPerRun {
			steps := make([]step, stepsPerRun)
			for i := range steps {
				steps[i] = randomStep(rnd)
			}
			if done/stepsPerRun%2 == 1 { // where the kernel may protect from others
				steps[0] = step{call: call{Op: "chmod", Path: ".", A: 0o1777}, door: rnd.IntN(2)}
			}
			if at, _ := room.try(t, steps); at >= 0 {
				room.report(t, steps[:at+1])
				return
			}
		}
	}
	onBackends(t, verdict)
	t.Run("kernel", func(t *testing.T) { verdict(t, startRig(t, enforced), enforced) })
}

// enforced is a local directory that is used with each user's own rights.
var enforced = backendKind{"kernel", func(t *testing.T, dir string) (string, string) {
	local, _ := backendKinds[1].start(t, dir)
	return local, "    enforce: kernel\n"
}, true, "local"}

// stepsPerRun is after how many steps a run begins anew with an empty
// directory.
const stepsPerRun = 100

// report tries to do without most of the steps that led to a disagreement.
func (room *courtroom) report(t *testing.T, steps []step) {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size < len(steps); {
			fewer := append(append([]step(nil), steps[:from]...), steps[from+size:]...)
			if at, _ := room.try(t, fewer); at >= 0 {
				steps = fewer[:at+1]
			} else {
				from += size
			}
		}
	}
	_, what := room.try(t, steps)
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%v\n", s)
	}
	t.Errorf("-seed %d: these steps end in disagreement:\n%s%s", *verdictSeed, b.String(), what)
}

// try makes the steps in empty directories and returns the index of the first
// that the kernel and the door disagree about, and how; or -1.
func (room *courtroom) try(t *testing.T, steps []step) (int, string) {
	t.Helper()
	room.runs++
	name := fmt.Sprintf("run%d", room.runs)
	here, there := filepath.Join(room.kernel, name), filepath.Join(room.mount, name)
	for _, dir := range []string{here, there} {
		if a := room.callers[0].call(t, call{Op: "mkdir", Path: dir, A: 0o777}); a.Errno != 0 {
			t.Fatalf("mkdir %s: %v", dir, a.Errno)
		}
	}
	defer func() {
		for _, dir := range []string{here, there} {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		}
	}()
	for i, s := range steps {
		want := room.callers[s.user].call(t, s.under(here))
		var got answer
		if s.door == atMount {
			got = room.callers[s.user].call(t, s.under(there))
		} else {
			got = room.clients[s.user].call(t, s.under(name))
		}
		if d := room.disagreement(s, want, got); d != "" {
			return i, d
		}
		wantTree := room.callers[0].call(t, call{Op: "tree", Path: here})
		gotTree := room.callers[0].call(t, call{Op: "tree", Path: there})
		if d := room.difference(wantTree, gotTree); d != "" {
			return i, d
		}
	}
	return -1, ""
}

func (room *courtroom) disagreement(s step, want, got answer) string {
	wantErrno := want.Errno
	if s.door == atSFTP {
		wantErrno = statusOf(want.Errno)
	}
	if wantErrno != got.Errno {
		if s.door == atSFTP {
			return fmt.Sprintf("kernel: %v, so status %d; got status %d (%s)", want.Errno, wantErrno, got.Errno, got.Text)
		}
		return fmt.Sprintf("kernel: %v; got %v", want.Errno, got.Errno)
	}
	if want.Errno == 0 && want.Text != got.Text {
		return fmt.Sprintf("kernel: %q; got %q", want.Text, got.Text)
	}
	return ""
}

func (room *courtroom) difference(want, got answer) string {
	if want.Errno != 0 || got.Errno != 0 {
		return fmt.Sprintf("trees: kernel %v %s; got %v %s", want.Errno, want.Text, got.Errno, got.Text)
	}
	for i := range max(len(want.Tree), len(got.Tree)) {
		if i >= len(want.Tree) {
			return fmt.Sprintf("too much: %+v", got.Tree[i])
		}
		if i >= len(got.Tree) {
			return fmt.Sprintf("missing: %+v", want.Tree[i])
		}
		w, g := want.Tree[i], got.Tree[i]
		if !room.kind.inode {
			g.Nlink = w.Nlink
		}
		if w != g {
			return fmt.Sprintf("kernel %+v\ngot    %+v", w, g)
		}
	}
	return ""
}

var (
	verdictNames = []string{"a", "b", "c", "d"}
	verdictModes = []int64{0o777, 0o755, 0o700, 0o644, 0o600, 0o666, 0o1777, 0o2777, 0o2775, 0o4755, 0o2755, 0o6711, 0o111, 0o000, 0o444, 0o222}
)

func randomStep(rnd *rand.Rand) step {
	path := func() string {
		parts := make([]string, 1+rnd.IntN(3))
		for i := range parts {
			parts[i] = pick(rnd, verdictNames)
		}
		return strings.Join(parts, "/")
	}
	s := step{user: rnd.IntN(len(users)), door: rnd.IntN(2)}
	s.Path = path()
	switch rnd.IntN(18) {
	case 0, 1, 2:
		s.Op, s.A = "mkdir", pick(rnd, verdictModes)
	case 3:
		s.Op = "rmdir"
	case 4:
		s.Op = "unlink"
	case 5:
		s.Op, s.Path2 = "link", path()
	case 6:
		s.Op, s.Path2 = "symlink", pick(rnd, []string{"a", "b", "c/d", "./a", "d", "nowhere"})
	case 7, 8:
		s.Op, s.Path2 = "rename", path()
		if s.door == atMount {
			s.A = int64(rnd.IntN(2))
		}
	case 9:
		s.Op, s.A = "chmod", pick(rnd, verdictModes)
	case 10:
		who := users[rnd.IntN(len(users))]
		s.Op, s.A, s.B = "chown", int64(who.UID), int64(pick(rnd, append([]uint32{who.GID}, who.Groups...)))
	case 11:
		s.Op, s.A = "truncate", int64(rnd.IntN(50))
	case 12:
		s.Op, s.A = "utimes", int64(1e9+rnd.IntN(1e6))
	case 13:
		s.Op = pick(rnd, []string{"stat", "lstat", "readlink", "list"})
	default:
		s.Op, s.B = "open", pick(rnd, verdictModes)&0o777
		s.A = pick(rnd, []int64{syscall.O_RDONLY, syscall.O_WRONLY, syscall.O_RDWR})
		if s.A != syscall.O_RDONLY {
			s.Data = strings.Repeat(string(rune('a'+rnd.IntN(26))), rnd.IntN(40))
			for _, flag := range []int64{syscall.O_APPEND, syscall.O_TRUNC, syscall.O_EXCL} {
				if rnd.IntN(4) == 0 {
					s.A |= flag
				}
			}
			if s.A&syscall.O_EXCL != 0 || rnd.IntN(2) == 0 {
				s.A |= syscall.O_CREAT
			}
		}
	}
	return s
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

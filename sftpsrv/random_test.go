package sftpsrv

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"sftpbridge/bridge"
)

var (
	randomSeed     = flag.Uint64("seed", 1, "where the random sessions begin")
	randomSessions = flag.Int("sessions", 8, "how many random sessions of each kind")
)

// The ids of nobody, who is an account everywhere, as sftp-server needs it, and
// of a group that is none.
const (
	someUID  = 65534
	someGID  = 65534
	otherGID = 64103
)

// stepsOfSession is how long a random session is.
const stepsOfSession = 60

// TestRandomDifferential has random sessions with OpenSSH's sftp-server and
// with us, of root and of a user who may do less. Answers and what is left of
// the files have to be the same after each step, or after each burst of steps
// that are sent together.
func TestRandomDifferential(t *testing.T) {
	needOpenSSH(t)
	for _, who := range []bridge.Avatar{
		root,
		{Name: "nobody", Cred: bridge.Cred{UID: someUID, GID: someGID, Groups: []uint32{otherGID}}, Umask: 0o027},
	} {
		t.Run(who.Name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, opt SessionOptions) {
				for i := range uint64(*randomSessions) {
					seed := *randomSeed + i
					steps := randomSession(rand.New(rand.NewPCG(seed, 4)))
					try := func(steps []step) (int, string) { return trySession(t, who, opt, steps) }
					if at, what := try(steps); at >= 0 {
						t.Fatalf("-seed %d -sessions 1: %s\n\n%s", seed, what, shortest(steps[:at+1], try))
					}
				}
			})
		})
	}
}

// A scope is a test whose cleanups are made before its end.
type scope struct {
	testing.TB
	cleanups []func()
}

func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

func (s *scope) end() {
	for len(s.cleanups) > 0 {
		last := len(s.cleanups) - 1
		f := s.cleanups[last]
		s.cleanups = s.cleanups[:last]
		f()
	}
}

// trySession makes the steps in new directories, and returns the index of the
// last step that was made when a difference was found, and the difference; or -1.
func trySession(t *testing.T, who bridge.Avatar, opt SessionOptions, steps []step) (int, string) {
	t.Helper()
	in := &scope{TB: t}
	defer in.end()
	c := newContest(in, who, prepareRandom(in), prepareRandom(in), opt)
	for from := 0; from < len(steps) && !c.over; {
		to := from + 1
		for to < len(steps) && steps[to-1].more {
			to++
		}
		if d := c.differ(steps[from:to]); d != "" {
			return to - 1, d
		}
		from = to
	}
	return -1, ""
}

// shortest leaves out what is not needed of steps that end in a difference, and
// tells the rest.
func shortest(steps []step, try func([]step) (int, string)) string {
	for size := len(steps) / 2; size > 0; size /= 2 {
		for from := 0; from+size < len(steps); {
			fewer := append(append([]step(nil), steps[:from]...), steps[from+size:]...)
			if at, _ := try(fewer); at >= 0 {
				steps = fewer[:at+1]
			} else {
				from += size
			}
		}
	}
	at, what := try(steps)
	if at < 0 {
		what = "but not always"
	}
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "\n%v", s)
	}
	return fmt.Sprintf("these steps end in a difference:%s\n\n%s", b.String(), what)
}

// prepareRandom makes the files that random sessions begin with, of several owners.
func prepareRandom(t testing.TB) string {
	dir := memoryDir(t)
	must(t, os.Chmod(dir, 0o777))
	must(t, os.MkdirAll(dir+"/a/b/c", 0o755))
	must(t, os.Mkdir(dir+"/d", 0o755))
	must(t, os.Chown(dir+"/d", someUID, someGID))
	for i, name := range []string{"/a/a", "/b", "/d/a", "/d/c"} {
		must(t, os.WriteFile(dir+name, []byte("0123456789"), 0o640))
		must(t, os.Chown(dir+name, i%2*someUID, otherGID))
	}
	must(t, os.Symlink("d", dir+"/c"))
	must(t, os.Symlink("c", dir+"/d/b"))
	for i := range 110 {
		must(t, os.WriteFile(fmt.Sprintf("%s/a/b/c/%d", dir, i), nil, 0o644))
	}
	return dir
}

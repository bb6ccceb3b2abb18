package sftpsrv

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A recorded is a request that a client is known to send, and what its answer
// has to match for the client to go on as it does with OpenSSH.
type recorded struct {
	step
	want string // a regular expression for the whole answer in words
}

// with makes a step a recorded one.
func (s step) with(want string) recorded { return recorded{s, want} }

// along has the next step sent without waiting for this one's answer.
func (r recorded) along() recorded { r.more = true; return r }

// Answers that all clients expect.
const (
	isOK      = `status 0 "Success" ""`
	isEOF     = `status 1 "End of file" ""`
	isAbsent  = `status 2 "No such file" ""`
	isFailure = `status 4 .*`
	isHandle  = `handle`
	isDir     = `attrs flags 15 size \d+ owner 0:0 mode 40755 times now now`
	isFile    = `attrs flags 15 size \d+ owner 0:0 mode 100644 times .*`
)

func isFileOf(size string) string {
	return `attrs flags 15 size ` + size + ` owner 0:0 mode 100644 times .*`
}

// isName matches the answer to REALPATH and READLINK.
func isName(name string) string {
	name = regexp.QuoteMeta(name)
	return `names "` + name + `" "` + name + `" none`
}

// isListing matches a listing with "." and ".." and a file, a directory and a
// link. FileZilla and WinSCP take the kind of a file from the first letter of
// its long name.
const isListing = `(?s)names "\." "d.*"\.\.".*"link" "lrwxrwxrwx .* mode 120777 .*"sub" "drwxr-xr-x .* mode 40755 .*"file" "-rw-r--r--    1 root     root  +10 " flags 15 size 10 .*`

// chunk is the n-th piece of 32 KiB of what is transferred.
func chunk(n int) string { return strings.Repeat(string(rune('a'+n)), 32<<10) }

func isData(n int) string { return `data "` + chunk(n) + `"` }

// TestRecordedClients plays what clients that cannot run here do at login and for
// the usual operations, as their sources have it, and looks at each answer and
// at what is left.
func TestRecordedClients(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the owners in the answers are root's")
	}
	for _, c := range slices.Concat(winSCP, fileZilla, jsch, cyberduck) {
		t.Run(c.name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, opt SessionOptions) { playRecorded(t, c, opt) })
		})
	}
}

// A recording is something that a client does, in the directory of
// prepareRecorded, and the files that are there afterwards.
type recording struct {
	name  string
	steps []recorded
	left  map[string]string // their content, where that matters; "-" is none
}

func playRecorded(t *testing.T, c recording, opt SessionOptions) {
	dir := prepareRecorded(t)
	r := begun(t, localView(t, dir, root), opt)
	handles := map[string]string{}
	for from := 0; from < len(c.steps); {
		var steps []step
		for steps = []step{c.steps[from].step}; steps[len(steps)-1].more; {
			steps = append(steps, c.steps[from+len(steps)].step)
		}
		first, sent := r.sendSteps(steps, handles)
		for i, s := range steps {
			got, want := r.answer(first+uint32(i), s, handles, ""), c.steps[from+i].want
			if got != want && !regexp.MustCompile(`^(?:`+want+`)$`).MatchString(got) {
				t.Fatalf("%v\nis answered with\n\t%.300s\nwant\n\t%.300s", s.name, got, want)
			}
		}
		must(t, <-sent)
		from += len(steps)
	}
	for name, want := range c.left {
		got, err := os.ReadFile(dir + "/" + name)
		if os.IsNotExist(err) {
			got = []byte("-")
		}
		if string(got) != want {
			t.Errorf("%s holds %d bytes, %.20q, want %d, %.20q", name, len(got), got, len(want), want)
		}
	}
}

// prepareRecorded makes a file of 10 bytes, one of three chunks, a directory and a link.
func prepareRecorded(t *testing.T) string {
	dir := memoryDir(t)
	must(t, os.WriteFile(dir+"/big", []byte(chunk(0)+chunk(1)+chunk(2)), 0o644))
	must(t, os.Mkdir(dir+"/dir", 0o755))
	must(t, os.WriteFile(dir+"/dir/file", []byte("0123456789"), 0o644))
	must(t, os.Mkdir(dir+"/dir/sub", 0o755))
	must(t, os.Symlink("sub", dir+"/dir/link"))
	return dir
}

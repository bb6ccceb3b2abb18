package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A report is what a run has found.
type report struct {
	rows []row
	opt  options
	took time.Duration
}

// A result is a cell with its samples summarized.
type result struct {
	cell
	summary
}

// results are the cells of a row that have samples.
func (r row) results() []result {
	var results []result
	for _, c := range r.cells {
		if len(c.samples) > 0 {
			results = append(results, result{c, summarize(r.workload, c.samples)})
		}
	}
	return results
}

// best is the best of the peers, if there is one.
func (r row) best(results []result) (best result, ok bool) {
	for _, s := range results {
		if s.system.limit || strings.HasPrefix(s.system.name, ours) {
			continue
		}
		if !ok || ratio(s.value, best.value, r.lessIsBetter()) > 1 {
			best, ok = s, true
		}
	}
	return best, ok
}

// cpu is the processor time with its unit.
func (r row) cpu(s summary) string {
	switch r.unit {
	case unitBytes:
		return number(s.cpu) + " s/GiB"
	case unitMemory:
		return ""
	}
	return number(s.cpu) + " µs"
}

// trips are round trips, which only an upstream has.
func (r row) trips(s summary) string {
	if !r.remote {
		return ""
	}
	return number(s.trips)
}

func mib(bytes float64) string { return number(bytes / (1 << 20)) }

// text prints all systems of all rows, with what they reached of the best
// peer.
func (rep report) text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "workload\tRTT\tsystem\tvalue\tunit\t×\tCPU\tround trips\tfetched\tpeak MiB\t")
	for _, r := range rep.rows {
		results := r.results()
		best, hasBest := r.best(results)
		for _, s := range results {
			times, fetched := "", ""
			if hasBest {
				times = fmt.Sprintf("%.2f", ratio(s.value, best.value, r.lessIsBetter()))
			}
			if r.remote && r.unit == unitBytes {
				fetched = number(s.fetched)
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", r.name, r.rtt.Milliseconds(), s.system.name,
				number(s.value), r.unit, times, r.cpu(s.summary), r.trips(s.summary), fetched, mib(s.peak))
		}
		for _, c := range r.cells {
			if c.failed != nil {
				fmt.Fprintf(t, "%s\t%d\t%s\tfailed\t\t\t\t\t\t\t\n", r.name, r.rtt.Milliseconds(), c.system.name)
			}
		}
	}
	return t.Flush()
}

var groupTitles = map[string]string{
	"mount":  "Mount of an OpenSSH server",
	"local":  "Mount of a directory",
	"server": "SFTP server of a directory",
	"chain":  "SFTP server of an OpenSSH server",
	"doors":  "Mount and SFTP server of one tree",
}

// markdown is a table for each group of workloads at each distance.
func (rep report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s Median of %d; a measurement ends after %v with what is done.\n", machine(), rep.opt.rounds, rep.opt.limit)
	fmt.Fprintf(&b, "All connections use %s, but for the rows with default ciphers.\n", cipher)
	b.WriteString("×: how many times better sftpbridge is than the best of the others. CPU, round trips\n" +
		"(one after another, for an operation or a transfer) and memory are sftpbridge's, and in\n" +
		"parentheses the best other's.\n")
	title := ""
	for _, r := range rep.rows {
		group, name, _ := strings.Cut(r.name, "/")
		next := groupTitles[group]
		if r.remote {
			next += fmt.Sprintf(", round-trip time %d ms", r.rtt.Milliseconds())
		}
		if next != title {
			title = next
			r.markdownHead(&b, title)
		}
		r.markdownLine(&b, name)
	}
	return b.Bytes()
}

func (r row) markdownHead(b *bytes.Buffer, title string) {
	var names, rules strings.Builder
	for _, c := range r.cells {
		names.WriteString(" | " + c.system.name)
		rules.WriteString("|---:")
	}
	fmt.Fprintf(b, "\n### %s\n\n| workload | unit%s | × | CPU | round trips | peak MiB |\n", title, names.String())
	fmt.Fprintf(b, "|---|---%s|---:|---:|---:|---:|\n", rules.String())
}

func (r row) markdownLine(b *bytes.Buffer, name string) {
	results := r.results()
	best, hasBest := r.best(results)
	var our result
	found := false
	fmt.Fprintf(b, "| %s | %s", name, r.unit)
	for _, c := range r.cells {
		text := "–"
		for _, s := range results {
			if s.system.name == c.system.name {
				text = number(s.value)
				if s.system.name == ours {
					our, found = s, true
				}
			}
		}
		b.WriteString(" | " + text)
	}
	times := math.NaN()
	if found && hasBest {
		times = ratio(our.value, best.value, r.lessIsBetter())
	}
	both := func(text func(result) string) string {
		switch {
		case !found:
			return ""
		case !hasBest || text(best) == "":
			return text(our)
		}
		return text(our) + " (" + text(best) + ")"
	}
	fmt.Fprintf(b, " | %s | %s | %s | %s |\n", number(times),
		both(func(s result) string { return r.cpu(s.summary) }),
		both(func(s result) string { return r.trips(s.summary) }),
		both(func(s result) string { return mib(s.peak) }))
}

// Between these lines a file has its tables.
const (
	markBegin = "<!-- begin of the tables of scripts/bench -->\n"
	markEnd   = "<!-- end of the tables of scripts/bench -->\n"
)

// writeMarkdown writes tables to a file: between the marks if it has them, and
// in place of all that is in it if not.
func writeMarkdown(file string, tables []byte) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(file, splice(old, tables), 0o644)
}

func splice(old, tables []byte) []byte {
	before, rest, ok := bytes.Cut(old, []byte(markBegin))
	if !ok {
		return tables
	}
	_, after, ok := bytes.Cut(rest, []byte(markEnd))
	if !ok {
		return tables
	}
	return slices.Concat(before, []byte(markBegin), tables, []byte(markEnd), after)
}

// machine says where and on what this was measured.
func machine() string {
	var u unix.Utsname
	unix.Uname(&u)
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return fmt.Sprintf("Linux %s on %d cores of %s, %s, %s, %s, %s, data in memory.", release, runtime.NumCPU(), runtime.GOARCH,
		runtime.Version(), toolVersion("ssh", "-V"), toolVersion("sshfs", "--version"), toolVersion("rclone", "version"))
}

// toolVersion is the line in which a program tells its version, up to the
// first comma.
func toolVersion(name, flag string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, flag).CombinedOutput()
	if err != nil {
		return "no " + name
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(strings.ToLower(line), name) {
			line, _, _ = strings.Cut(line, ",")
			return strings.TrimSpace(line)
		}
	}
	return name
}

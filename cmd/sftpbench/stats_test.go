package main

import (
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 4}, 4},
		{[]float64{4, 1, 2, 9}, 3},
		{nil, math.NaN()},
	} {
		got := median(test.values)
		if got != test.want && !(math.IsNaN(got) && math.IsNaN(test.want)) {
			t.Errorf("median(%v) = %v, want %v", test.values, got, test.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	samples := []sample{
		{amount: 2 << 30, elapsed: 4 * time.Second, cpu: 2 * time.Second, trips: 7, down: 1 << 30, peak: 5},
		{amount: 1 << 30, elapsed: time.Second, cpu: 3 * time.Second, trips: 9, down: 0, peak: 3},
		{amount: 1 << 30, elapsed: 4 * time.Second, cpu: 4 * time.Second, trips: 8, down: 1 << 30, peak: 4},
	}
	for _, test := range []struct {
		unit string
		want summary
	}{
		{unitBytes, summary{value: 512, cpu: 3, trips: 8, fetched: 0.5, peak: 4}},
		{"op/s", summary{value: 1 << 29, cpu: 3e6 / (1 << 30), trips: 8.0 / (1 << 30), peak: 4}},
		{unitTime, summary{value: 2e6 / (1 << 30), cpu: 3e6 / (1 << 30), trips: 8.0 / (1 << 30), peak: 4}},
		{unitMemory, summary{value: 1 << 20, cpu: 3e6 / (1 << 30), trips: 8.0 / (1 << 30), peak: 4}},
	} {
		if got := summarize(workload{unit: test.unit}, samples); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.unit, got, test.want)
		}
	}
}

func TestBest(t *testing.T) {
	cells := []cell{
		{system: system{name: ours}, samples: []sample{{amount: 9, elapsed: time.Second}}},
		{system: system{name: "slow"}, samples: []sample{{amount: 2, elapsed: time.Second}}},
		{system: system{name: "fast"}, samples: []sample{{amount: 4, elapsed: time.Second}}},
		{system: system{name: "directory", limit: true}, samples: []sample{{amount: 99, elapsed: time.Second}}},
		{system: system{name: "failed"}},
	}
	for unit, want := range map[string]string{"op/s": "fast", unitTime: "fast", unitMemory: "slow"} {
		r := row{workload: workload{unit: unit}, cells: cells}
		if got, ok := r.best(r.results()); !ok || got.system.name != want {
			t.Errorf("%s: best is %q, want %q", unit, got.system.name, want)
		}
	}
	r := row{workload: workload{unit: "op/s"}, cells: cells[:1]}
	if got, ok := r.best(r.results()); ok {
		t.Errorf("without peers the best is %q", got.system.name)
	}
	if got := ratio(4, 2, false); got != 2 {
		t.Errorf("4 op/s are %v times 2 op/s", got)
	}
	if got := ratio(4, 2, true); got != 0.5 {
		t.Errorf("4 µs are %v times 2 µs", got)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.123: "0.12", 9.99: "9.99", 9.999: "10.0", 45.67: "45.7", 99.96: "100",
		1234.5: "1 234", 1234567: "1 234 567", math.Inf(1): "–", -1234: "-1 234",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a ) name) S 7 1 1 0 -1 0 1 2 3 4 100 50 25 25 20 0 3 0 777 9000 11 0 0"
	got, err := parseStat(line)
	want := procStat{parent: 7, start: 777, cpu: 2 * time.Second, rss: 11 * int64(os.Getpagesize())}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 7", "42 (x) S x 1 1 0 -1 0 1 2 3 4 1 1 1 1 20 0 3 0 7 9 11"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestTree(t *testing.T) {
	table := procTable{1: {}, 2: {parent: 1, rss: 1}, 3: {parent: 2, rss: 2}, 4: {parent: 1, rss: 4}, 5: {parent: 3, rss: 8}}
	if _, rss := table.tree(2, 3).total(); rss != 11 {
		t.Errorf("the tree has %d bytes instead of 11", rss)
	}
	if got := table.tree(99); len(got) != 0 {
		t.Errorf("a process that is gone has a tree: %v", got)
	}
}

func TestParseRTTs(t *testing.T) {
	got, err := parseRTTs("0, 10,50")
	if err != nil || len(got) != 3 || got[2] != 50*time.Millisecond {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "-1", "10,"} {
		if _, err := parseRTTs(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestSplice(t *testing.T) {
	for old, want := range map[string]string{
		"":                 "new\n",
		"something else\n": "new\n",
		"a\n" + markBegin + "old\n" + markEnd + "b\n": "a\n" + markBegin + "new\n" + markEnd + "b\n",
		"a\n" + markBegin + "the end is missing\n":    "new\n",
	} {
		if got := string(splice([]byte(old), []byte("new\n"))); got != want {
			t.Errorf("%q becomes %q, want %q", old, got, want)
		}
	}
}

// The report is complete where a system is missing or failed.
func TestMarkdown(t *testing.T) {
	rep := report{rows: []row{{
		workload: workload{name: "mount/seqread", unit: unitBytes, remote: true},
		rtt:      50 * time.Millisecond,
		cells: []cell{
			{system: system{name: ours}, samples: []sample{{amount: 4 << 20, elapsed: time.Second, cpu: time.Second, trips: 3, peak: 1 << 20}}},
			{system: system{name: "sshfs"}, samples: []sample{{amount: 1 << 20, elapsed: time.Second, trips: 9, peak: 2 << 20}}},
			{system: system{name: "rclone"}, failed: os.ErrNotExist},
		},
	}}}
	_, got, _ := strings.Cut(string(rep.markdown()), "\n\n")
	want := `### Mount of an OpenSSH server, round-trip time 50 ms

| workload | unit | sftpbridge | sshfs | rclone | × | CPU | round trips | peak MiB |
|---|---|---:|---:|---:|---:|---:|---:|---:|
| seqread | MiB/s | 4.00 | 1.00 | – | 4.00 | 256 s/GiB (0 s/GiB) | 3.00 (9.00) | 1.00 (2.00) |
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

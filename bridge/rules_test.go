package bridge

import (
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"syscall"
	"testing"
)

func TestMatchPath(t *testing.T) {
	tests := []struct {
		pattern, path string
		want          bool
	}{
		{"/", "/", true},
		{"/", "", true},
		{"/", "/a", false},
		{"/dir", "/dir", true},
		{"/dir", "dir", true},
		{"/dir", "/dir/x", false},
		{"/dir", "/di", false},
		{"/dir/**", "/dir", false},
		{"/dir/**", "/dir/x", true},
		{"/dir/**", "/dir/x/y/z", true},
		{"/dir/**", "/dirx/y", false},
		{"/**", "/", false},
		{"/**", "/x", true},
		{"/**", "/x/y", true},
		{"/*", "/x", true},
		{"/*", "/.hidden", true},
		{"/*", "/x/y", false},
		{"/**/*.key", "/a.key", true},
		{"/**/*.key", "/x/y/a.key", true},
		{"/**/*.key", "/x/a.key/y", false},
		{"/**/a/**", "/a", false},
		{"/**/a/**", "/a/b", true},
		{"/**/a/**", "/x/a/a", true},
		{"/**/a/**/b", "/x/a/y/b/a/b", true},
		{"/home/*/.ssh/**", "/home/joe/.ssh/id", true},
		{"/home/*/.ssh/**", "/home/joe/x/.ssh/id", false},
		{"/[ab]?", "/bx", true},
		{"/[ab]?", "/cx", false},
		{`/\*`, "/*", true},
		{`/\*`, "/x", false},
		{"/**/**", "/x", true},
	}
	for _, tt := range tests {
		if got := matchPath(tt.pattern, tt.path); got != tt.want {
			t.Errorf("matchPath(%q, %q) = %v, want %v", tt.pattern, tt.path, got, tt.want)
		}
	}
}

func TestRulesCheck(t *testing.T) {
	rules := Rules{
		{"/pub/drop/**", OpCreate | OpWrite, true},
		{"/pub/**", OpWrite | OpCreate | OpOverwrite | OpDelete, false},
		{"/**/*.secret", OpAll, false},
	}
	tests := []struct {
		op   Ops
		path string
		want error
	}{
		{OpWrite, "/pub/x", syscall.EACCES},
		{OpRead, "/pub/x", nil},
		{OpWrite, "/pub/drop/x", nil},
		{OpWrite | OpCreate, "/pub/drop/x", nil},
		{OpWrite | OpOverwrite, "/pub/drop/x", syscall.EACCES},
		{OpWrite, "/pub", nil},
		{OpList, "/a/b.secret", syscall.EACCES},
		{OpCreate, "/pub/drop/b.secret", nil},
		{OpRead, "/pub/drop/b.secret", syscall.EACCES},
		{OpDelete, "/other", nil},
	}
	for _, tt := range tests {
		if got := rules.Check(tt.op, tt.path); got != tt.want {
			t.Errorf("Check(%v, %q) = %v, want %v", tt.op, tt.path, got, tt.want)
		}
	}
	if err := (Rules)(nil).Check(OpAll, "/x"); err != nil {
		t.Errorf("no rules: %v", err)
	}
	if err := rules.Valid(); err != nil {
		t.Error(err)
	}
}

func TestRulesValid(t *testing.T) {
	tests := []struct{ pattern, want string }{
		{"", "begin with a slash"},
		{"a/b", "begin with a slash"},
		{"/a//b", "empty component"},
		{"/a/", "empty component"},
		{"/a/../b", `".."`},
		{"/./b", `"."`},
		{"/a**", "between slashes"},
		{"/x/[a", "syntax error"},
		{"/x/y[]a", "syntax error"},
		{`/x\`, "syntax error"},
	}
	for _, tt := range tests {
		err := Rules{{"/ok", OpRead, true}, {tt.pattern, OpRead, false}}.Valid()
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "rule 2") {
			t.Errorf("pattern %q: error %v, want %q in rule 2", tt.pattern, err, tt.want)
		}
	}
	if err := (Rules{{"/a", 0, true}}).Valid(); err == nil {
		t.Error("a rule without operations is valid")
	}
}

func TestOpsNames(t *testing.T) {
	for op := Ops(1); op <= OpAll; op++ {
		if got, err := ParseOps(op.String()); err != nil || got != op {
			t.Fatalf("ParseOps(%q) = %v, %v", op.String(), got, err)
		}
	}
	if got, err := ParseOps("read, setattr"); err != nil || got != OpRead|OpSetAttr {
		t.Errorf("ParseOps = %v, %v", got, err)
	}
	for _, s := range []string{"", "Read", "read,", "none", "chmod"} {
		if _, err := ParseOps(s); err == nil {
			t.Errorf("ParseOps(%q) has no error", s)
		}
	}
	if s := Ops(0).String(); s != "none" {
		t.Errorf("no operations are %q", s)
	}
}

// naiveMatch is matchPath as one would first write it.
func naiveMatch(pattern, name []string) bool {
	if len(pattern) == 0 {
		return len(name) == 0
	}
	if pattern[0] == "**" {
		if len(pattern) == 1 {
			return len(name) > 0
		}
		return naiveMatch(pattern[1:], name) || len(name) > 0 && naiveMatch(pattern, name[1:])
	}
	if len(name) == 0 {
		return false
	}
	ok, _ := path.Match(pattern[0], name[0])
	return ok && naiveMatch(pattern[1:], name[1:])
}

func splitPath(s string) []string {
	if s = strings.Trim(s, "/"); s == "" {
		return nil
	}
	return strings.Split(s, "/")
}

func TestMatchPathAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(words []string, n int) string {
		s := "/"
		for i := range rng.IntN(n) {
			if i > 0 {
				s += "/"
			}
			s += words[rng.IntN(len(words))]
		}
		return s
	}
	matched := 0
	for range 50000 {
		pattern := random([]string{"**", "**", "*", "a", "a*", "b"}, 6)
		name := random([]string{"a", "b", "ab"}, 7)
		want := naiveMatch(splitPath(pattern), splitPath(name))
		if got := matchPath(pattern, name); got != want {
			t.Fatalf("matchPath(%q, %q) = %v, want %v", pattern, name, got, want)
		}
		if want {
			matched++
		}
	}
	if matched < 5000 {
		t.Errorf("only %d of the pairs match: the test tests little", matched)
	}
}

func FuzzRules(f *testing.F) {
	f.Add("/dir/**", "/dir/x")
	f.Add("/**/a/*", "/x/a/b")
	f.Add(`/[a-c]\?`, "/b?")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		rules := Rules{{pattern, OpRead, false}}
		if rules.Valid() != nil || len(pattern) > 60 || len(name) > 200 || strings.Contains(name, "//") {
			return
		}
		denied := errors.Is(rules.Check(OpRead, name), syscall.EACCES)
		if want := naiveMatch(splitPath(pattern), splitPath(name)); denied != want {
			t.Errorf("pattern %q, path %q: denied %v, want %v", pattern, name, denied, want)
		}
	})
}

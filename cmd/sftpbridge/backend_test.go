package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseBackend(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		in   string
		want backendSpec
	}{
		{"mem:", backendSpec{Kind: kindMem}},
		{"/srv/data", backendSpec{Kind: kindLocal, Path: "/srv/data"}},
		{"/srv/a:b", backendSpec{Kind: kindLocal, Path: "/srv/a:b"}},
		{"./a:b", backendSpec{Kind: kindLocal, Path: filepath.Join(wd, "a:b")}},
		{".", backendSpec{Kind: kindLocal, Path: wd}},
		{"file:///srv/a%20b/", backendSpec{Kind: kindLocal, Path: "/srv/a b"}},
		{"host:", backendSpec{Kind: kindSFTP, Host: "host", Path: "."}},
		{"host:dir/x", backendSpec{Kind: kindSFTP, Host: "host", Path: "dir/x"}},
		{"host:/dir:x", backendSpec{Kind: kindSFTP, Host: "host", Path: "/dir:x"}},
		{"me@host:/", backendSpec{Kind: kindSFTP, User: "me", Host: "host", Path: "/"}},
		{"me@corp@host:x", backendSpec{Kind: kindSFTP, User: "me@corp", Host: "host", Path: "x"}},
		{"me@[::1]:x", backendSpec{Kind: kindSFTP, User: "me", Host: "::1", Path: "x"}},
		{"[fe80::1%eth0]:/x", backendSpec{Kind: kindSFTP, Host: "fe80::1%eth0", Path: "/x"}},
		{"sftp://host", backendSpec{Kind: kindSFTP, Host: "host", Path: "."}},
		{"sftp://host/", backendSpec{Kind: kindSFTP, Host: "host", Path: "/"}},
		{"sftp://host/~/x", backendSpec{Kind: kindSFTP, Host: "host", Path: "x"}},
		{"sftp://me@host:2022/a%20b", backendSpec{Kind: kindSFTP, User: "me", Host: "host", Port: 2022, Path: "/a b"}},
		{"sftp://[::1]:22/x", backendSpec{Kind: kindSFTP, Host: "::1", Port: 22, Path: "/x"}},
	}
	for _, test := range tests {
		test.want.Text = test.in
		got, err := parseBackend(test.in)
		if err != nil || got != test.want {
			t.Errorf("parseBackend(%q) = %+v, %v, want %+v", test.in, got, err, test.want)
		}
	}
}

func TestParseBackendRefuses(t *testing.T) {
	for _, in := range []string{
		"", "x", "mem:x", ":x", "@host:x", "-oProxyCommand=x:y", "me@-x:y", "s3://bucket/x", "ho st:x",
		"file://host/x", "file:x", "sftp:x", "sftp:///x", "sftp://h:0/x", "sftp://h:99999/", "sftp://u:pw@h/",
		"sftp://h/x?y", "[::1:x", "[nonsense]:x", "host:a\x00b", "sftp://h/a%00b", "file:///a%0ab",
	} {
		if got, err := parseBackend(in); err == nil {
			t.Errorf("parseBackend(%q) = %+v, want an error", in, got)
		}
	}
}

func FuzzParseBackend(f *testing.F) {
	for _, seed := range []string{"mem:", "/d", "u@h:p", "sftp://u@h:1/p", "[::1]:x", "file:///x", "u@[fe80::1%e]:/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		spec, err := parseBackend(in)
		if err != nil {
			return
		}
		switch spec.Kind {
		case kindLocal:
			if !filepath.IsAbs(spec.Path) {
				t.Errorf("%q: local path %q is not absolute", in, spec.Path)
			}
		case kindSFTP:
			if spec.Host == "" || spec.Path == "" || strings.HasPrefix(spec.Host, "-") || strings.HasPrefix(spec.User, "-") {
				t.Errorf("%q: bad %+v", in, spec)
			}
		}
		if strings.ContainsFunc(spec.Host+spec.User+spec.Path, isControl) {
			t.Errorf("%q: control characters in %+v", in, spec)
		}
	})
}

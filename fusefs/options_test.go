package fusefs

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"sftpbridge/bridge"
)

func TestParseMountOptions(t *testing.T) {
	opts, err := ParseMountOptions("ro, nosuid,,allow_other,fsname=a=b,subtype=x,x-systemd.automount,_netdev,rw")
	if err != nil || len(opts) != 8 {
		t.Errorf("got %q, %v", opts, err)
	}
	for _, bad := range []string{"nonsense", "fsname", "ro=1", "uid=1000"} {
		if _, err := ParseMountOptions("rw," + bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestMountFlags(t *testing.T) {
	const base = syscall.MS_MGC_VAL
	for opts, want := range map[string]struct {
		bits  uintptr
		names string
	}{
		"":                        {base | syscall.MS_NOSUID | syscall.MS_NODEV, ""},
		"ro":                      {base | syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_RDONLY, "ro"},
		"ro,rw":                   {base | syscall.MS_NOSUID | syscall.MS_NODEV, ""},
		"suid,dev,noexec,noatime": {base | syscall.MS_NOEXEC | syscall.MS_NOATIME, "noexec,noatime,suid,dev"},
		"suid,dev,sync,dirsync": {base | syscall.MS_SYNCHRONOUS | syscall.MS_DIRSYNC,
			"sync,dirsync,suid,dev"},
		"suid,dev,sync,async,nodiratime,diratime,strictatime,lazytime": {base, "suid,dev"},
		"suid,nosuid,noexec,exec":                                      {base | syscall.MS_NOSUID | syscall.MS_NODEV, ""},
	} {
		var f mountFlags
		if err := f.parse(strings.Split(opts, ",")); err != nil && opts != "" {
			t.Fatal(err)
		}
		if got := f.bits(); got != want.bits {
			t.Errorf("%s: flags %#x, want %#x", opts, got, want.bits)
		}
		if got := strings.Join(f.names(), ","); got != want.names {
			t.Errorf("%s: names %s, want %s", opts, got, want.names)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, bad := range []Options{
		{},
		{Avatar: &bridge.Avatar{}, AllowOther: true},
		{Avatar: &bridge.Avatar{}, Mount: []string{"allow_other"}},
		{Avatar: &bridge.Avatar{}, Mount: []string{"nonsense"}},
	} {
		if _, _, err := bad.validate(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	o, flags, err := Options{Avatar: &bridge.Avatar{Root: "home/u/"}, Root: "../x", Mount: []string{"fsname=src"}, ReadOnly: true}.validate()
	if err != nil || o.FSName != "src" || o.root() != "/home/u/x" || !slices.Contains(flags.names(), "ro") {
		t.Errorf("got %+v with root %s, %+v, %v", o, o.root(), flags, err)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		p, dir string
		want   bool
	}{
		{"/", "", true}, {"/a", "/", true}, {"/a", "a", true}, {"/a/b", "/a/", true},
		{"/ab", "/a", false}, {"/", "/a", false}, {"/a", "/a/b", false},
	} {
		if got := within(c.p, c.dir); got != c.want {
			t.Errorf("within(%q, %q) = %v", c.p, c.dir, got)
		}
	}
}

func TestUnescapeMount(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\134b`: `/a\b`, `/a\0`: `/a\0`, `/plain`: "/plain"} {
		if got := unescapeMount(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

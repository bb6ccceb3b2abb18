package fusefs

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

// Options say for whom and how a tree is mounted. Either Avatar or Realm is
// to be set.
type Options struct {
	// Avatar is who everybody is that may use the mount: the user who mounts,
	// and nobody else, since the kernel answers all others EACCES.
	Avatar *bridge.Avatar
	// Realm maps the user and the group of each system call to an avatar. The
	// kernel checks the permission bits as well (default_permissions).
	Realm bridge.Realm
	// AllowOther lets all users of the machine use the mount. It needs a Realm.
	AllowOther bool
	// Root is the directory that is mounted, seen from the root of the Avatar,
	// or from that of the tree if there is a Realm. "" is the root itself.
	Root string
	// FSName is the source that df and mount show; "" is "sftpbridge".
	FSName   string
	ReadOnly bool
	// Mount are further options in the words of mount(8); see ParseMountOptions.
	Mount []string
	// AttrTimeout is for how long the kernel may believe names and attributes;
	// 0 leaves it to the tree, negative is not at all.
	AttrTimeout time.Duration
	// Rules says that avatars of the Realm have rules or roots of their own,
	// which permission bits do not express: the kernel then remembers nothing.
	Rules  bool
	Logger *slog.Logger
}

// validate completes o from its mount(8) options.
func (o Options) validate() (Options, mountFlags, error) {
	var flags mountFlags
	if err := flags.parse(o.Mount); err != nil {
		return o, flags, err
	}
	o.AllowOther = o.AllowOther || flags.allowOther
	if flags.fsname != "" {
		o.FSName = flags.fsname
	}
	if o.FSName == "" {
		o.FSName = typeName
	}
	if flags.subtype == "" {
		flags.subtype = typeName
	}
	if o.ReadOnly {
		flags.set["ro"] = true
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case (o.Avatar == nil) == (o.Realm == nil):
		return o, flags, errors.New("fusefs: a mount has either an avatar or a realm")
	case o.AllowOther && o.Realm == nil:
		return o, flags, errors.New("fusefs: allow_other needs a realm that tells users apart")
	}
	return o, flags, nil
}

// root returns the path in the tree of the directory that is mounted.
func (o Options) root() string {
	p := path.Clean("/" + o.Root)
	if o.Avatar != nil {
		p = path.Join("/", path.Clean("/"+o.Avatar.Root), p)
	}
	return p
}

// ParseMountOptions splits a comma-separated list as that of mount -o and
// says which option of it is not known.
func ParseMountOptions(list string) ([]string, error) {
	var opts []string
	for o := range strings.SplitSeq(list, ",") {
		if o = strings.TrimSpace(o); o != "" {
			opts = append(opts, o)
		}
	}
	var f mountFlags
	return opts, f.parse(opts)
}

// mountFlags are options of mount(8), sorted by who carries them out.
type mountFlags struct {
	set        map[string]bool // flags of the mount itself, by name
	allowOther bool
	fsname     string
	subtype    string
}

// A mountFlag is what an option without a value does: it turns one of the
// flags named below on or off, or nothing.
type mountFlag struct {
	name string
	on   bool
}

// flagOf knows the options without a value.
func flagOf(option string) (f mountFlag, known bool) {
	switch option {
	case "ro", "suid", "dev", "noexec", "noatime", "sync", "dirsync":
		return mountFlag{option, true}, true
	case "rw":
		return mountFlag{"ro", false}, true
	case "nosuid":
		return mountFlag{"suid", false}, true
	case "nodev":
		return mountFlag{"dev", false}, true
	case "exec":
		return mountFlag{"noexec", false}, true
	case "atime":
		return mountFlag{"noatime", false}, true
	case "async":
		return mountFlag{"sync", false}, true
	case "defaults", "auto", "noauto", "user", "nouser", "users", "group", "owner", "nofail", "_netdev",
		"silent", "loud", "default_permissions",
		// The kernel leaves times of access to who serves the files.
		"diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime":
		return mountFlag{}, true
	}
	return mountFlag{}, strings.HasPrefix(option, "x-") || strings.HasPrefix(option, "comment=")
}

// take takes in an option without a value, if it is one that is known.
func (f *mountFlags) take(option string) bool {
	flag, known := flagOf(option)
	if flag.name != "" {
		f.set[flag.name] = flag.on
	}
	return known
}

// parse takes in options one by one, later ones winning.
func (f *mountFlags) parse(opts []string) error {
	f.set = make(map[string]bool)
	for _, o := range opts {
		if f.take(o) {
			continue
		}
		key, value, hasValue := strings.Cut(o, "=")
		switch {
		case o == "allow_other":
			f.allowOther = true
		case key == "fsname" && hasValue:
			f.fsname = value
		case key == "subtype" && hasValue:
			f.subtype = value
		default:
			return fmt.Errorf("fusefs: unknown mount option %q", o)
		}
	}
	return nil
}

// bits returns the flags for mount(2): no set-id and no devices unless they
// were asked for.
func (f *mountFlags) bits() uintptr {
	bits := uintptr(syscall.MS_MGC_VAL) // which has the kernel ignore that it is no flag
	for name, bit := range map[string]uintptr{
		"ro":      syscall.MS_RDONLY,
		"noexec":  syscall.MS_NOEXEC,
		"noatime": syscall.MS_NOATIME,
		"sync":    syscall.MS_SYNCHRONOUS,
		"dirsync": syscall.MS_DIRSYNC,
	} {
		if f.set[name] {
			bits |= bit
		}
	}
	if !f.set["suid"] {
		bits |= syscall.MS_NOSUID
	}
	if !f.set["dev"] {
		bits |= syscall.MS_NODEV
	}
	return bits
}

// names returns the flags for fusermount3.
func (f *mountFlags) names() []string {
	var names []string
	for _, name := range []string{"ro", "noexec", "noatime", "sync", "dirsync", "suid", "dev"} {
		if f.set[name] {
			names = append(names, name)
		}
	}
	return names
}

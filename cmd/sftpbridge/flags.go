package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"sftpbridge/fusefs"
)

// treeFlags are the flags of all commands that open one backend: they become
// a config of one tree.
type treeFlags struct {
	log      logConfig
	logFile  string
	tree     treeConfig
	user     string
	umask    string
	idmap    string
	daemon   bool
	options  []string // -o, as given
	fuseOpts []string // what of them goes to the mount
}

func (f *treeFlags) addLog(fs *pflag.FlagSet) {
	fs.StringVar(&f.log.Level, "log-level", "info", "log `LEVEL`: debug, info, warn or error")
	fs.StringVar(&f.log.Format, "log-format", "text", "log `FORMAT`: text or json")
}

// addUpstream adds the flags that say how to reach an SFTP backend, and how to
// treat any.
func (f *treeFlags) addUpstream(fs *pflag.FlagSet) {
	up := &f.tree.Upstream
	fs.IntVarP(&up.Port, "port", "p", 0, "`PORT` of the server")
	fs.StringArrayVarP(&up.Identity, "identity", "i", nil, "private key `FILE` to log in to the server with (may be repeated)")
	fs.StringVar(&up.KnownHosts, "known-hosts", "", "`FILE` of the servers' keys (default as ssh)")
	fs.StringVarP(&up.SSHConfig, "ssh-config", "F", "", "ssh_config `FILE` (default as ssh; none for no file)")
	fs.BoolVar(&up.AcceptNewHostKeys, "accept-new-host-keys", false, "trust servers not seen before, and remember their keys")
	fs.StringVar(&f.idmap, "idmap", "user", "`MAP` of ids: user makes the account on the server the user's, UID:GID too, none keeps ids as they are")
	fs.IntVar(&up.Connections, "connections", 0, "use up to `N` connections to the server (default 2)")
	fs.StringVar(&up.Timeout, "timeout", "", "`DURATION` after which a request to the server has failed (default 30s)")
	fs.StringVar(&f.tree.AttrTimeout, "attr-timeout", "", "`DURATION` for which attributes and listings of a server are believed (default 1s)")
	fs.StringVar(&f.tree.CacheSize, "cache-size", "", "memory for content of slow backends, in `BYTES` (K, M, G; default 160M, and up to 96M beside it)")
	fs.BoolVar(&f.tree.ReadOnly, "read-only", false, "change nothing")
	fs.StringVar(&f.tree.Enforce, "enforce", "tree", "who enforces permissions, `WHO`: tree, or kernel for that too on a local directory, as root")
}

// addDoor adds the flags of commands that open doors and stay.
func (f *treeFlags) addDoor(fs *pflag.FlagSet) {
	fs.StringArrayVarP(&f.options, "options", "o", nil, "mount `OPTIONS`, and these flags as name=value, separated by commas")
	fs.BoolVar(&f.daemon, "daemon", false, "go to the background once the doors are open")
	fs.StringVar(&f.logFile, "log-file", "", "with --daemon, log to `FILE`")
}

// applyOptions sets the flags that -o names and keeps what is the mount's.
func (f *treeFlags) applyOptions(fs *pflag.FlagSet) error {
	for _, option := range f.allOptions() {
		if err := f.applyOption(fs, option); err != nil {
			return err
		}
	}
	return nil
}

// allOptions returns what was given with -o, one by one.
func (f *treeFlags) allOptions() []string {
	var all []string
	for _, list := range f.options {
		all = append(all, splitOptions(list)...)
	}
	return all
}

// applyOption sets the flag that an option names, or keeps it for the mount.
// What has both a meaning to mount(8) and a flag of that name, such as user, is
// the flag if it has a value.
func (f *treeFlags) applyOption(fs *pflag.FlagSet, option string) error {
	name, value, valued := strings.Cut(option, "=")
	if name == "ro" && !valued {
		name, value, valued = "read-only", "true", true
	}
	flag := fs.Lookup(strings.ReplaceAll(name, "_", "-"))
	if flag != nil && !valued && flag.Value.Type() == "bool" {
		value, valued = "true", true
	}
	if flag != nil && valued && flag.Name != "options" && flag.Name != "daemon" {
		if err := fs.Set(flag.Name, value); err != nil {
			return usagef("option %q: %v", option, err)
		}
		return nil
	}
	if _, err := fusefs.ParseMountOptions(option); err != nil {
		return usagef("unknown option %q", option)
	}
	f.fuseOpts = append(f.fuseOpts, option)
	return nil
}

// config returns what the flags ask for, without doors.
func (f *treeFlags) config(backend string) (*config, error) {
	if _, err := parseBackend(backend); err != nil {
		return nil, usageError{err.Error()}
	}
	account, err := accountOf(f.user)
	if err != nil {
		return nil, err
	}
	account.Umask = octal(f.umask)
	f.tree.Backend = backend
	switch f.idmap {
	case "none":
	case "user":
		f.tree.Upstream.Account = account.Name
	default:
		f.tree.Upstream.Account, f.tree.Upstream.AccountIDs = account.Name, f.idmap
	}
	return &config{Log: f.log, Users: []userConfig{account}}, nil
}

// mountFlags and sftpFlags are the flags of the two doors.
type mountFlags struct {
	mountConfig
}

func (f *mountFlags) add(fs *pflag.FlagSet) {
	fs.BoolVar(&f.AllowOther, "allow-other", false, "let all users of this machine in at the mount, each with his own rights")
}

type sftpFlags struct {
	sftpConfig
	authorizedKeys []string
}

func (f *sftpFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.Listen, "listen", "127.0.0.1:2022", "`ADDR` to serve SFTP at")
	fs.StringArrayVar(&f.HostKeys, "host-key", nil, "host key `FILE`, made if missing (may be repeated; default in the state directory)")
	fs.StringArrayVar(&f.authorizedKeys, "authorized-keys", nil, "`FILE` of the keys to log in with (may be repeated; default ~/.ssh/authorized_keys)")
	fs.StringArrayVar(&f.UserCAKeys, "user-ca-key", nil, "`FILE` of keys whose user certificates are taken (may be repeated)")
	fs.StringVar(&f.IdleTimeout, "idle-timeout", "", "`DURATION` after which a silent session is ended")
	fs.IntVar(&f.MaxSessions, "max-sessions", 0, "at most `N` sessions on one connection (default 10)")
	fs.IntVar(&f.MaxConns, "max-connections", 0, "at most `N` connections at once (default 1000)")
}

// keyFiles returns the files of authorized keys: those that were named, or
// else the file that sshd would look in, if it is there.
func (f *sftpFlags) keyFiles(home string) []string {
	if len(f.authorizedKeys) > 0 || len(f.UserCAKeys) > 0 {
		return slices.Clone(f.authorizedKeys)
	}
	file := filepath.Join(home, ".ssh", "authorized_keys")
	if _, err := os.Stat(file); err != nil {
		return nil
	}
	return []string{file}
}

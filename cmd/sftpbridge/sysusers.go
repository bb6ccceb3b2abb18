package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"sftpbridge/bridge"
	"sftpbridge/sftpsrv"
)

// systemLogins lets the accounts of this machine log in, with the keys in their
// ~/.ssh/authorized_keys and under the conditions of sshd without PAM: the
// account is neither locked nor expired, has a shell that lets it in, and
// nobody else can write its files of keys (StrictModes).
type systemLogins struct {
	noLogin string // a file that keeps all but root out while it is there
}

func newSystemLogins() *systemLogins { return &systemLogins{"/etc/nologin"} }

// A passwdEntry is a line of passwd(5).
type passwdEntry struct {
	name, password string
	uid, gid       uint32
	home, shell    string
}

// keyFiles are the files of keys in a home directory.
var keyFiles = []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}

const getentTimeout = 10 * time.Second

// maxAccountKeys bounds a file of keys, which is read for each login.
const maxAccountKeys = 1 << 20

// check returns nil if key may log in as the account name.
func (s systemLogins) check(ctx context.Context, name string, key ssh.PublicKey, remote net.Addr) error {
	p, err := s.account(ctx, name)
	if err != nil {
		return err
	}
	refused := sftpsrv.ErrKeyUnknown
	for _, file := range keyFiles {
		data, err := readKeys(filepath.Join(p.home, file), p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			keys, _ := sftpsrv.ParseAuthorizedKeys(data)
			if err = keys.Check(name, key, remote, time.Now()); err == nil {
				return nil
			}
		}
		if !errors.Is(err, sftpsrv.ErrKeyUnknown) {
			refused = err
		}
	}
	return refused
}

// account returns an account that may log in.
func (s systemLogins) account(ctx context.Context, name string) (passwdEntry, error) {
	line, err := getent(ctx, "passwd", name)
	if err != nil {
		return passwdEntry{}, err
	}
	p, err := parsePasswd(line)
	if err != nil {
		return p, err
	}
	shadow, err := getent(ctx, "shadow", name)
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return p, err
	}
	if err := loginAllowed(p, shadow, time.Now()); err != nil {
		return p, err
	}
	if _, err := os.Stat(s.noLogin); err == nil && p.uid != 0 {
		return p, fmt.Errorf("there is %s", s.noLogin)
	}
	return p, checkShell(p.shell)
}

// getent returns the line of a name in a database of the system (ENOENT).
func getent(ctx context.Context, database, name string) (string, error) {
	if name == "" || len(name) > 256 || strings.HasPrefix(name, "-") || strings.ContainsAny(name, ":/") || strings.ContainsFunc(name, isControl) {
		return "", fmt.Errorf("no name of an account: %w", syscall.ENOENT)
	}
	ctx, cancel := context.WithTimeout(ctx, getentTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "--", database, name).Output()
	if errors.Is(err, exec.ErrNotFound) {
		if out, err = os.ReadFile("/etc/" + database); err != nil {
			return "", err
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() { // getent takes a number for an id
		if strings.HasPrefix(lines.Text(), name+":") {
			return lines.Text(), nil
		}
	}
	return "", fmt.Errorf("no %s of %q: %w", database, name, syscall.ENOENT)
}

func parsePasswd(line string) (passwdEntry, error) {
	f := strings.Split(line, ":")
	if len(f) != 7 {
		return passwdEntry{}, fmt.Errorf("passwd has %d fields: %w", len(f), syscall.EINVAL)
	}
	uid, err1 := parseID(f[2])
	gid, err2 := parseID(f[3])
	if err1 != nil || err2 != nil || !filepath.IsAbs(f[5]) {
		return passwdEntry{}, fmt.Errorf("passwd has no number or no home directory: %w", syscall.EINVAL)
	}
	return passwdEntry{f[0], f[1], uid, gid, filepath.Clean(f[5]), f[6]}, nil
}

// loginAllowed returns an error for an account that is locked or has expired,
// by its line of shadow(5), or "".
func loginAllowed(p passwdEntry, shadow string, now time.Time) error {
	password := p.password
	if f := strings.Split(shadow, ":"); len(f) >= 8 {
		password = f[1]
		if days, err := strconv.ParseInt(f[7], 10, 64); err == nil && days > 0 && now.Unix()/86400 > days {
			return errors.New("the account has expired")
		}
	}
	if strings.HasPrefix(password, "!") {
		return errors.New("the account is locked")
	}
	return nil
}

// checkShell returns an error for a shell that is not there, or that sends
// people away.
func checkShell(shell string) error {
	if shell == "" {
		shell = "/bin/sh"
	}
	fi, err := os.Stat(shell)
	switch base := filepath.Base(shell); {
	case err != nil:
		return fmt.Errorf("the shell %s is not there", shell)
	case !fi.Mode().IsRegular() || fi.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("the shell %s cannot be executed", shell)
	case base == "nologin" || base == "false":
		return fmt.Errorf("the shell is %s", shell)
	}
	return nil
}

// readKeys reads a file of keys of an account, if it and the directories from
// there up to the home directory are such that nobody else can have written
// it.
func readKeys(file string, p passwdEntry) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", file)
	case fi.Size() > maxAccountKeys:
		return nil, fmt.Errorf("%s is too large", file)
	}
	if err := onlyTheirs(real, fi, p.uid); err != nil {
		return nil, err
	}
	home, err := filepath.EvalSymlinks(p.home)
	if err != nil {
		return nil, err
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		fi, err := os.Stat(dir)
		if err != nil {
			return nil, err
		}
		if err := onlyTheirs(dir, fi, p.uid); err != nil {
			return nil, err
		}
		if dir == home || dir == "/" {
			break
		}
	}
	return io.ReadAll(io.LimitReader(f, maxAccountKeys))
}

// onlyTheirs returns an error unless a file belongs to the user or root, and
// only its owner may write it.
func onlyTheirs(name string, fi os.FileInfo, uid uint32) error {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 && st.Uid != uid || fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write %s", name)
	}
	return nil
}

// homeInTree returns where a home directory of this machine is in the tree of
// a backend: the root if it is not in there.
func (s backendSpec) homeInTree(home string) string {
	if s.Kind != kindLocal {
		return "/"
	}
	rest, ok := strings.CutPrefix(filepath.Clean(home)+"/", strings.TrimSuffix(s.Path, "/")+"/")
	if !ok {
		return "/"
	}
	return "/" + strings.TrimSuffix(rest, "/")
}

// A homeRealm gives the avatars of listed users as they are, and those of
// accounts with their home in the tree of a backend.
type homeRealm struct {
	*userList
	backend backendSpec
}

// AvatarByName is that of the list, or of an account if the list has those.
func (r homeRealm) AvatarByName(name string) (*bridge.Avatar, error) {
	if !r.system || r.find(name) != nil {
		return r.userList.AvatarByName(name)
	}
	ctx := context.Background() // getent has its own deadline
	line, err := getent(ctx, "passwd", name)
	if err != nil {
		return nil, err
	}
	p, err := parsePasswd(line)
	if err != nil {
		return nil, err
	}
	groups, err := groupsOf(ctx, name)
	if err != nil {
		return nil, err
	}
	return &bridge.Avatar{
		Name:  name,
		Cred:  bridge.Cred{UID: p.uid, GID: p.gid, Groups: groups},
		Home:  r.backend.homeInTree(p.home),
		Umask: 0o022,
	}, nil
}

// groupsOf returns the supplementary groups of an account.
func groupsOf(ctx context.Context, name string) (groups []uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, getentTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", "--", "initgroups", name).Output()
	fields := strings.Fields(string(out))
	switch {
	case errors.Is(err, exec.ErrNotFound):
		u, err := user.Lookup(name)
		if err != nil {
			return nil, err
		}
		if fields, err = u.GroupIds(); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("groups of %q: %w", name, err)
	case len(fields) > 0:
		fields = fields[1:] // the first is the name
	}
	for _, f := range fields {
		gid, err := parseID(f)
		if err != nil {
			return nil, fmt.Errorf("groups of %q: %w", name, err)
		}
		groups = append(groups, gid)
	}
	return groups, nil
}

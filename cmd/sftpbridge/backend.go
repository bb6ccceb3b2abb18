package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// A backendKind is where a tree lives.
type backendKind int

const (
	kindMem backendKind = iota
	kindLocal
	kindSFTP
)

// A backendSpec is a parsed BACKEND argument.
type backendSpec struct {
	Kind backendKind
	User string // "" if not given
	Host string // a name for ssh_config, or an address
	Port int    // 0 if not given
	Path string // local: the directory; SFTP: absolute, or relative to the login directory
	Text string // as it was given
}

func (s backendSpec) String() string { return s.Text }

// backendForms is what a message about a bad BACKEND ends with.
const backendForms = "BACKEND is [user@]host:path, sftp://[user@]host[:port]/path, /dir, file:///dir or mem:"

// parseBackend parses a BACKEND: [user@]host:path with a path that is absolute
// or relative to the login directory, sftp://[user@]host[:port]/path, /dir,
// file:///dir, or mem:. As with scp, a slash before the first colon makes it a
// local path; ./dir is one too.
func parseBackend(text string) (backendSpec, error) {
	spec, err := splitBackend(text)
	if err != nil {
		return backendSpec{}, fmt.Errorf("backend %q: %w; %s", text, err, backendForms)
	}
	spec.Text = text
	return spec, nil
}

func splitBackend(text string) (backendSpec, error) {
	if strings.ContainsFunc(text, isControl) {
		return backendSpec{}, errors.New("control character")
	}
	switch {
	case text == "":
		return backendSpec{}, errors.New("empty")
	case text == "mem:":
		return backendSpec{Kind: kindMem}, nil
	case strings.HasPrefix(text, "mem:"):
		return backendSpec{}, errors.New("mem: takes no path")
	case strings.HasPrefix(text, "file:"):
		return splitFileURL(text)
	case strings.HasPrefix(text, "sftp:"):
		return splitSFTPURL(text)
	case strings.Contains(text, "://"):
		return backendSpec{}, errors.New("unknown scheme")
	}
	return splitSCP(text)
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// splitFileURL parses file:///dir.
func splitFileURL(text string) (backendSpec, error) {
	u, err := url.Parse(text)
	if err != nil {
		return backendSpec{}, urlError(err)
	}
	if u.Host != "" && u.Host != "localhost" || !strings.HasPrefix(u.Path, "/") || u.RawQuery != "" || u.Fragment != "" {
		return backendSpec{}, errors.New("a file URL is file:///dir")
	}
	if strings.ContainsFunc(u.Path, isControl) {
		return backendSpec{}, errors.New("control character")
	}
	return backendSpec{Kind: kindLocal, Path: filepath.Clean(u.Path)}, nil
}

// splitSFTPURL parses sftp://[user@]host[:port]/path. The path is absolute;
// /~/x is relative to the login directory, which is also what no path means.
func splitSFTPURL(text string) (backendSpec, error) {
	u, err := url.Parse(text)
	if err != nil {
		return backendSpec{}, urlError(err)
	}
	if u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
		return backendSpec{}, errors.New("an SFTP URL is sftp://[user@]host[:port]/path")
	}
	if _, has := u.User.Password(); has {
		return backendSpec{}, errors.New("a password does not belong in a URL")
	}
	spec := backendSpec{Kind: kindSFTP, User: u.User.Username(), Host: u.Hostname(), Path: u.Path}
	if p := u.Port(); p != "" {
		spec.Port, err = strconv.Atoi(p)
		if err != nil || spec.Port < 1 || spec.Port > 65535 {
			return backendSpec{}, fmt.Errorf("bad port %q", p)
		}
	}
	switch rest, home := strings.CutPrefix(spec.Path, "/~/"); {
	case spec.Path == "" || spec.Path == "/~":
		spec.Path = "."
	case home:
		spec.Path = orDot(rest)
	}
	return spec, spec.checkHost()
}

func urlError(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// splitSCP parses [user@]host:path and local paths.
func splitSCP(text string) (backendSpec, error) {
	colon := strings.IndexByte(text, ':')
	if bracket := strings.Index(text, "["); bracket == 0 || bracket > 0 && text[bracket-1] == '@' {
		end := strings.Index(text, "]:") // an IPv6 address has colons of its own
		if end < bracket {
			return backendSpec{}, errors.New("no ]: after the address")
		}
		colon = end + 1
	}
	if slash := strings.IndexByte(text, '/'); slash >= 0 && (colon < 0 || slash < colon) || text == "." || text == ".." {
		dir, err := filepath.Abs(text)
		return backendSpec{Kind: kindLocal, Path: dir}, err
	}
	if colon < 0 {
		return backendSpec{}, errors.New("neither host:path nor a directory (say ./" + text + " for one here)")
	}
	spec := backendSpec{Kind: kindSFTP, Host: text[:colon], Path: orDot(text[colon+1:])}
	if at := strings.LastIndexByte(spec.Host, '@'); at >= 0 {
		spec.User, spec.Host = spec.Host[:at], spec.Host[at+1:]
		if spec.User == "" {
			return backendSpec{}, errors.New("empty user")
		}
	}
	if strings.HasPrefix(spec.Host, "[") {
		spec.Host = strings.Trim(spec.Host, "[]")
		if net.ParseIP(stripZone(spec.Host)) == nil {
			return backendSpec{}, fmt.Errorf("bad address %q", spec.Host)
		}
	}
	return spec, spec.checkHost()
}

// checkHost refuses hosts and users that are none, or would be options.
func (s backendSpec) checkHost() error {
	if s.Host == "" {
		return errors.New("no host")
	}
	for _, name := range []string{s.Host, s.User} {
		if strings.HasPrefix(name, "-") || strings.ContainsAny(name, " /\\[]") || strings.ContainsFunc(name, isControl) {
			return fmt.Errorf("bad name %q", name)
		}
	}
	if strings.ContainsFunc(s.Path, isControl) {
		return errors.New("control character")
	}
	return nil
}

func orDot(path string) string {
	if path == "" {
		return "."
	}
	return path
}

func stripZone(addr string) string {
	addr, _, _ = strings.Cut(addr, "%")
	return addr
}

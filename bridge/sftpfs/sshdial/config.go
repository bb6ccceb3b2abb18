package sshdial

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"
)

// A Target says where to connect to. User and Port are as given, or empty.
type Target struct {
	User, Host, Port string
}

// ParseTarget parses [user@]host[:port]; an IPv6 address with a port is in
// brackets.
func ParseTarget(s string) (Target, error) {
	var t Target
	rest := s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		t.User, rest = s[:i], s[i+1:]
	}
	t.Host = rest
	switch {
	case strings.HasPrefix(rest, "["):
		host, after, ok := strings.Cut(rest[1:], "]")
		if !ok || after != "" && after[0] != ':' {
			return t, fmt.Errorf("bad host %q", s)
		}
		t.Host, t.Port = host, strings.TrimPrefix(after, ":")
	case strings.Count(rest, ":") == 1:
		t.Host, t.Port, _ = strings.Cut(rest, ":")
		if t.Port == "" {
			return t, fmt.Errorf("no port after the colon in %q", s)
		}
	}
	if t.Host == "" || t.Host[0] == '-' || strings.ContainsAny(t.Host, " \t\r\n\x00/") {
		return t, fmt.Errorf("bad host %q", s)
	}
	if t.Port != "" {
		if n, err := strconv.ParseUint(t.Port, 10, 16); err != nil || n == 0 {
			return t, fmt.Errorf("bad port %q", t.Port)
		}
	}
	return t, nil
}

// A hop is a host with all that the configuration says of it.
type hop struct {
	alias          string // as the user said it
	host, port     string
	user           string
	keyAlias       string // name in known_hosts, if not the host's
	identities     []string
	identitiesOnly bool
	agent          string // socket, "" for none
	knownHosts     []string
	acceptNew      bool
	hash           bool
	timeout        time.Duration
	proxyCommand   string // makes the connection in TCP's place, "" for none
}

func (h hop) addr() string { return net.JoinHostPort(h.host, h.port) }

// String is how messages name the host.
func (h hop) String() string {
	s := h.alias
	if h.alias != h.host {
		s += " (" + h.host + ")"
	}
	if h.port != "22" {
		s += " port " + h.port
	}
	return s
}

// knownName is the address by which known_hosts has the host.
func (h hop) knownName() string {
	if h.keyAlias != "" {
		return net.JoinHostPort(h.keyAlias, "22")
	}
	return h.addr()
}

// resolve returns the hosts to go through to t, and t itself at the end.
func resolve(t Target, opt Options) ([]hop, error) {
	c := config{settings: &ssh_config.UserSettings{}, opt: opt}
	switch file := opt.ConfigFile; file {
	case "":
	case "none":
		c.settings.ConfigFinder(func() string { return os.DevNull })
	default:
		c.settings.ConfigFinder(func() string { return file })
	}
	return c.resolve(t, 0)
}

type config struct {
	settings *ssh_config.UserSettings
	opt      Options
}

// get returns the configuration's value, or "".
func (c config) get(alias, key string) (string, error) {
	v, err := c.settings.GetStrict(alias, key)
	if err != nil {
		return "", fmt.Errorf("ssh_config: %w", err)
	}
	if v == ssh_config.Default(key) {
		v = ""
	}
	return unquote(v), nil
}

const maxHops = 8

func (c config) resolve(t Target, depth int) ([]hop, error) {
	if depth > maxHops {
		return nil, fmt.Errorf("ProxyJump of %s goes in a circle", t.Host)
	}
	h, err := c.hop(t)
	if err != nil {
		return nil, err
	}
	jump, err := c.get(t.Host, "ProxyJump")
	if err != nil {
		return nil, err
	}
	if jump == "" || strings.EqualFold(jump, "none") {
		return []hop{h}, nil
	}
	h.proxyCommand = ""
	var hops []hop
	for i, j := range strings.Split(jump, ",") {
		jt, err := ParseTarget(strings.TrimPrefix(strings.TrimSpace(j), "ssh://"))
		if err != nil {
			return nil, fmt.Errorf("ProxyJump of %s: %w", t.Host, err)
		}
		if i > 0 { // reached through the one before, whatever it says itself
			jh, err := c.hop(jt)
			if err != nil {
				return nil, err
			}
			jh.proxyCommand = ""
			hops = append(hops, jh)
			continue
		}
		first, err := c.resolve(jt, depth+1)
		if err != nil {
			return nil, err
		}
		hops = append(hops, first...)
	}
	return append(hops, h), nil
}

// hop returns what the configuration says of one host.
func (c config) hop(t Target) (hop, error) {
	var errs []error
	get := func(key string) string {
		v, err := c.get(t.Host, key)
		errs = append(errs, err)
		return v
	}
	h := hop{alias: t.Host, host: t.Host, port: t.Port, user: t.User, keyAlias: get("HostKeyAlias")}
	if name := get("HostName"); name != "" {
		h.host = strings.NewReplacer("%%", "%", "%h", t.Host).Replace(name)
	}
	h.port = first(h.port, get("Port"), "22")
	h.user = first(h.user, get("User"), localUser())
	h.identitiesOnly = get("IdentitiesOnly") == "yes"
	h.hash = get("HashKnownHosts") == "yes"
	h.agent = c.agent(get("IdentityAgent"))
	switch strings.ToLower(get("StrictHostKeyChecking")) {
	case "accept-new", "no", "off":
		h.acceptNew = true
	}
	h.acceptNew = h.acceptNew || c.opt.AcceptNewHostKeys
	h.timeout = 30 * time.Second
	if n, err := strconv.Atoi(get("ConnectTimeout")); err == nil && n > 0 {
		h.timeout = time.Duration(n) * time.Second
	}
	if c.opt.Timeout > 0 {
		h.timeout = c.opt.Timeout
	}
	h.knownHosts = append(strings.Fields(first(get("UserKnownHostsFile"), "~/.ssh/known_hosts ~/.ssh/known_hosts2")),
		strings.Fields(first(get("GlobalKnownHostsFile"), "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"))...)
	if c.opt.KnownHosts != "" {
		h.knownHosts = []string{c.opt.KnownHosts}
	}
	if command := get("ProxyCommand"); !strings.EqualFold(command, "none") {
		h.proxyCommand = h.expandTokens(command)
	}
	files, err := c.identities(t.Host)
	errs = append(errs, err)
	h.identities = files
	for _, list := range [][]string{h.identities, h.knownHosts} {
		for i := range list {
			list[i] = h.expand(list[i])
		}
	}
	return h, errors.Join(errs...)
}

// identities returns the key files to be tried, those of the options first.
func (c config) identities(alias string) ([]string, error) {
	files := slices.Clone(c.opt.IdentityFiles)
	configured, err := c.settings.GetAllStrict(alias, "IdentityFile")
	if err != nil {
		return nil, fmt.Errorf("ssh_config: %w", err)
	}
	if len(configured) == 0 || len(configured) == 1 && configured[0] == ssh_config.Default("IdentityFile") {
		configured = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	for _, f := range configured {
		if f = unquote(f); !strings.EqualFold(f, "none") && !slices.Contains(files, f) {
			files = append(files, f)
		}
	}
	return files, nil
}

// agent returns the agent's socket.
func (c config) agent(configured string) string {
	switch {
	case configured == "none":
		return ""
	case configured == "" || configured == "SSH_AUTH_SOCK":
		return os.Getenv("SSH_AUTH_SOCK")
	case strings.HasPrefix(configured, "$"):
		return os.Getenv(strings.Trim(configured[1:], "{}"))
	}
	return expandHome(configured)
}

// expand is the name of a file that the configuration gives.
func (h hop) expand(file string) string { return expandHome(h.expandTokens(file)) }

// expandTokens replaces the tokens of ssh_config(5).
func (h hop) expandTokens(s string) string {
	return strings.NewReplacer("%%", "%", "%d", homeDir(), "%h", h.host, "%n", h.alias,
		"%p", h.port, "%r", h.user, "%u", localUser()).Replace(s)
}

func expandHome(file string) string {
	if file == "~" || strings.HasPrefix(file, "~/") {
		return filepath.Join(homeDir(), file[1:])
	}
	return file
}

func homeDir() string {
	if dir, err := os.UserHomeDir(); err == nil {
		return dir
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return "/"
}

func localUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func unquote(v string) string {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}

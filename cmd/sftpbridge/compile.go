package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sftpbridge/bridge"
)

// A plan is a config that makes sense, in the terms of the packages that carry
// it out.
type plan struct {
	log   logPlan
	users *userList
	trees []treePlan
}

type logPlan struct {
	level  slog.Level
	format string
}

type treePlan struct {
	name     string
	backend  backendSpec
	kernel   bool // a local backend acts with the rights of who asks
	options  bridge.Options
	upstream upstreamPlan
	mounts   []mountPlan
	servers  []serverPlan
}

type upstreamPlan struct {
	upstreamConfig
	timeout time.Duration
	account *bridge.Avatar // whose the account on the server is, or nil
	ids     *ids           // of the account on the server, if they were given
}

type mountPlan struct {
	mountConfig
	avatar *bridge.Avatar // nil: everybody's, by the realm
}

type serverPlan struct {
	sftpConfig
	users       *userList
	loginGrace  time.Duration
	idleTimeout time.Duration
	keepalive   time.Duration
}

// A compiler collects what is wrong while it turns a config into a plan.
type compiler struct {
	problems []problem
}

func (c *compiler) errorf(path, format string, args ...any) {
	c.problems = append(c.problems, problem{path: path, msg: fmt.Sprintf(format, args...)})
}

func (c *compiler) check(path string, err error) {
	if err != nil {
		_, isFile := errors.AsType[*fs.PathError](err)
		c.problems = append(c.problems, problem{path, err.Error(), isFile})
	}
}

// compile finds out what cfg means. If there are problems the plan is of no
// use.
func compile(cfg *config) (*plan, []problem) {
	var c compiler
	p := &plan{log: c.log(cfg.Log), users: c.users(cfg)}
	if len(cfg.Trees) == 0 {
		c.errorf("trees", "no trees")
	}
	names := map[string]bool{}
	doors := map[string]bool{}
	for i, t := range cfg.Trees {
		path := fmt.Sprintf("trees[%d]", i)
		if t.Name != "" && names[t.Name] {
			c.errorf(path+".name", "a second tree %q", t.Name)
		}
		names[t.Name] = true
		p.trees = append(p.trees, c.tree(path, t, p.users, doors))
	}
	return p, c.problems
}

// planOf compiles a config that came from the command line. What is wrong with
// it is a usageError, but for files that cannot be used.
func planOf(cfg *config) (*plan, error) {
	p, problems := compile(cfg)
	if len(problems) == 0 {
		return p, nil
	}
	var errs []error
	usage := true
	for _, problem := range problems {
		errs = append(errs, errors.New(problem.msg))
		usage = usage && !problem.file
	}
	err := errors.Join(errs...)
	if usage {
		err = usageError{err.Error()}
	}
	return nil, err
}

func (c *compiler) log(l logConfig) logPlan {
	p := logPlan{level: slog.LevelInfo, format: "text"}
	if l.Level != "" {
		if err := p.level.UnmarshalText([]byte(l.Level)); err != nil {
			c.errorf("log.level", "unknown log level %q: want debug, info, warn or error", l.Level)
		}
	}
	switch l.Format {
	case "":
	case "text", "json":
		p.format = l.Format
	default:
		c.errorf("log.format", "unknown log format %q: want text or json", l.Format)
	}
	return p
}

func (c *compiler) tree(path string, t treeConfig, users *userList, doors map[string]bool) treePlan {
	p := c.openable(path, t, users)
	if len(t.Mount) == 0 && len(t.SFTP) == 0 {
		c.errorf(path, "no door: neither mount nor sftp")
	}
	for i, m := range t.Mount {
		p.mounts = append(p.mounts, c.mount(fmt.Sprintf("%s.mount[%d]", path, i), m, users, doors))
	}
	for i, s := range t.SFTP {
		p.servers = append(p.servers, c.server(fmt.Sprintf("%s.sftp[%d]", path, i), s, users, doors))
	}
	return p
}

// openable compiles a tree without its doors.
func (c *compiler) openable(path string, t treeConfig, users *userList) treePlan {
	p := treePlan{name: t.Name}
	var err error
	p.backend, err = parseBackend(t.Backend)
	c.check(path+".backend", err)
	if p.name == "" {
		p.name = t.Backend
	}
	p.options.ReadOnly = t.ReadOnly
	p.kernel = c.enforce(path+".enforce", t.Enforce, p.backend)
	p.options.AttrTimeout = c.duration(path+".attr_timeout", t.AttrTimeout)
	if t.AttrTimeout != "" && p.options.AttrTimeout == 0 {
		p.options.AttrTimeout = -1 // 0 in the configuration is not at all
	}
	p.options.CacheSize, err = parseSize(t.CacheSize)
	c.check(path+".cache_size", err)
	p.upstream = c.upstream(path+".upstream", t.Upstream, users)
	return p
}

// enforce reports whether the kernel enforces the permissions, too.
func (c *compiler) enforce(path, by string, backend backendSpec) bool {
	switch by {
	case "", "tree":
		return false
	case "kernel":
		if backend.Kind != kindLocal {
			c.errorf(path, "the kernel has nothing to enforce: %q is no local directory", backend.Text)
		}
		return true
	}
	c.errorf(path, "enforced by %q: want tree or kernel", by)
	return false
}

func (c *compiler) upstream(path string, u upstreamConfig, users *userList) upstreamPlan {
	if u.Port < 0 || u.Port > 65535 {
		c.errorf(path+".port", "no such port: %d", u.Port)
	}
	if u.Connections < 0 || u.Connections > 64 {
		c.errorf(path+".connections", "%d connections: want 1 to 64", u.Connections)
	}
	u.Identity = absolutes(u.Identity)
	u.KnownHosts = absolute(u.KnownHosts)
	if u.SSHConfig != "none" {
		u.SSHConfig = absolute(u.SSHConfig)
	}
	p := upstreamPlan{upstreamConfig: u, timeout: c.duration(path+".timeout", u.Timeout)}
	if u.Account != "" {
		var err error
		p.account, err = users.AvatarByName(u.Account)
		c.check(path+".account", err)
	}
	if u.AccountIDs != "" {
		ids, err := parseIDs(u.AccountIDs)
		c.check(path+".account_ids", err)
		if u.Account == "" {
			c.errorf(path+".account_ids", "whose they are here is not said: there is no account")
		}
		p.ids = &ids
	}
	return p
}

func (c *compiler) mount(path string, m mountConfig, users *userList, doors map[string]bool) mountPlan {
	p := mountPlan{mountConfig: m}
	switch {
	case m.Dir == "":
		c.errorf(path+".dir", "no directory to mount on")
		return p
	case doors[m.Dir]:
		c.errorf(path+".dir", "%s is mounted on twice", m.Dir)
	}
	doors[m.Dir] = true
	if dir, err := filepath.Abs(m.Dir); err == nil {
		p.Dir = dir
	}
	switch {
	case m.User != "" && m.AllowOther:
		c.errorf(path+".user", "a mount is either one user's or, with allow_other, everybody's")
	case m.User != "":
		var err error
		p.avatar, err = users.AvatarByName(m.User)
		c.check(path+".user", err)
	case !m.AllowOther:
		var err error
		p.avatar, err = users.invoking()
		c.check(path, err)
	}
	return p
}

func (c *compiler) server(path string, s sftpConfig, users *userList, doors map[string]bool) serverPlan {
	p := serverPlan{sftpConfig: s, users: users}
	_, port, err := net.SplitHostPort(s.Listen)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	switch {
	case err != nil:
		c.errorf(path+".listen", "bad address %q: want host:port", s.Listen)
	case doors[s.Listen] && port != "0":
		c.errorf(path+".listen", "%s is listened on twice", s.Listen)
	}
	doors[s.Listen] = true
	if len(s.Users) > 0 || s.SystemUsers {
		p.users, err = users.only(s.Users)
		p.users.system = s.SystemUsers
		c.check(path+".users", err)
	}
	p.loginGrace = c.duration(path+".login_grace", s.LoginGrace)
	p.idleTimeout = c.duration(path+".idle_timeout", s.IdleTimeout)
	p.keepalive = c.duration(path+".keepalive", s.Keepalive)
	for _, limit := range []struct {
		key string
		n   int
	}{
		{"max_auth_tries", s.MaxAuthTries},
		{"max_sessions", s.MaxSessions},
		{"max_connections", s.MaxConns},
		{"max_connections_per_address", s.PerAddress},
		{"max_startups", s.MaxStartups},
	} {
		if limit.n < 0 {
			c.errorf(path+"."+limit.key, "negative")
		}
	}
	if err == nil && !p.users.anyLogin() && len(s.UserCAKeys) == 0 && !s.SystemUsers {
		c.errorf(path, "nobody can log in: no user has keys or a password, and there are no user_ca_keys")
	}
	return p
}

// absolute makes the name of a file that is opened again later independent of
// the working directory, which a process in the background leaves.
func absolute(file string) string {
	if file == "" || strings.HasPrefix(file, "~") {
		return file
	}
	if abs, err := filepath.Abs(file); err == nil {
		return abs
	}
	return file
}

func absolutes(files []string) []string {
	var out []string
	for _, f := range files {
		out = append(out, absolute(f))
	}
	return out
}

// duration parses a duration, "" is 0.
func (c *compiler) duration(path, text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	switch {
	case text == "0":
		return 0
	case err != nil:
		c.errorf(path, "bad duration %q: want a number with a unit, such as 500ms, 30s or 5m", text)
	case d < 0:
		c.errorf(path, "negative duration %q", text)
	}
	return d
}

// parseSize parses a number of bytes with an optional K, M or G (powers of
// 1024); "" is 0.
func parseSize(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	digits, shift := text, 0
	if i := strings.IndexByte("KMG", text[len(text)-1]); i >= 0 {
		digits, shift = text[:len(text)-1], 10*(i+1)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("bad size %q: want bytes, or a number with K, M or G", text)
	}
	return n << shift, nil
}

// parseUmask parses an octal umask; "" is 0o022.
func parseUmask(text string) (uint32, error) {
	if text == "" {
		return 0o022, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("bad umask %q: want octal digits, such as 027", text)
	}
	return uint32(n), nil
}

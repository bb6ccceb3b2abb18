package main

import "strings"

// A config is the whole of what sftpbridge is told to do. It comes from a file
// (run, check) or from the command line (serve, mount, …). The texts in it are
// as they were written; compile finds out what they mean and whether they make
// sense together.
type config struct {
	Log         logConfig    `yaml:"log"`
	SystemUsers bool         `yaml:"system_users"`
	Users       []userConfig `yaml:"users"`
	Trees       []treeConfig `yaml:"trees"`
}

type logConfig struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// A userConfig is a user who may log in, or come through a mount.
type userConfig struct {
	Name           string       `yaml:"name"`
	UID            *uint32      `yaml:"uid"`
	GID            *uint32      `yaml:"gid"`
	Groups         []uint32     `yaml:"groups"`
	Root           string       `yaml:"root"`
	Home           string       `yaml:"home"`
	Umask          octal        `yaml:"umask"`
	ReadOnly       bool         `yaml:"read_only"`
	Rules          []ruleConfig `yaml:"rules"`
	AuthorizedKeys []string     `yaml:"authorized_keys"`
	PasswordHash   string       `yaml:"password_hash"`
	Principals     []string     `yaml:"principals"`
}

// A ruleConfig allows or denies operations on the paths of a pattern.
type ruleConfig struct {
	Path  string   `yaml:"path"`
	Allow []string `yaml:"allow"`
	Deny  []string `yaml:"deny"`
}

// A treeConfig is a backend and the doors to it.
type treeConfig struct {
	Name        string         `yaml:"name"`
	Backend     string         `yaml:"backend"`
	ReadOnly    bool           `yaml:"read_only"`
	Enforce     string         `yaml:"enforce"`
	AttrTimeout string         `yaml:"attr_timeout"`
	CacheSize   string         `yaml:"cache_size"`
	Upstream    upstreamConfig `yaml:"upstream"`
	Mount       []mountConfig  `yaml:"mount"`
	SFTP        []sftpConfig   `yaml:"sftp"`
}

// An upstreamConfig says how to reach the server of an SFTP backend.
type upstreamConfig struct {
	Port              int      `yaml:"port"`
	Identity          []string `yaml:"identity"`
	KnownHosts        string   `yaml:"known_hosts"`
	SSHConfig         string   `yaml:"ssh_config"`
	AcceptNewHostKeys bool     `yaml:"accept_new_host_keys"`
	Connections       int      `yaml:"connections"`
	Timeout           string   `yaml:"timeout"`
	Account           string   `yaml:"account"`
	AccountIDs        string   `yaml:"account_ids"`
}

// A mountConfig is a FUSE door.
type mountConfig struct {
	Dir        string   `yaml:"dir"`
	User       string   `yaml:"user"`
	AllowOther bool     `yaml:"allow_other"`
	Options    []string `yaml:"options"`
}

// An sftpConfig is an SFTP door.
type sftpConfig struct {
	Listen       string   `yaml:"listen"`
	HostKeys     []string `yaml:"host_keys"`
	Users        []string `yaml:"users"`
	UserCAKeys   []string `yaml:"user_ca_keys"`
	SystemUsers  bool     `yaml:"system_users"`
	LoginGrace   string   `yaml:"login_grace"`
	IdleTimeout  string   `yaml:"idle_timeout"`
	Keepalive    string   `yaml:"keepalive"`
	MaxAuthTries int      `yaml:"max_auth_tries"`
	MaxSessions  int      `yaml:"max_sessions"`
	MaxConns     int      `yaml:"max_connections"`
	PerAddress   int      `yaml:"max_connections_per_address"`
	MaxStartups  int      `yaml:"max_startups"`
	Penalties    *bool    `yaml:"penalties"` // nil is true
}

// An octal is a number in octal digits as it was written, in quotes or not:
// YAML itself would make 027 the number 23.
type octal string

// UnmarshalYAML takes the text of the value.
func (o *octal) UnmarshalYAML(text []byte) error {
	*o = octal(strings.Trim(string(text), "\"' \n"))
	return nil
}

package main

import (
	"testing"
	"time"
)

// TestExampleLimits: what the example says of limits are the defaults.
func TestExampleLimits(t *testing.T) {
	p, err := loadConfig("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := p.trees[0].servers[0]
	if s.loginGrace != time.Minute || s.MaxAuthTries != 6 || s.MaxSessions != 10 || s.MaxConns != 1000 ||
		s.PerAddress != 250 || s.MaxStartups != 100 || s.Penalties == nil || !*s.Penalties {
		t.Errorf("the limits of the example are %+v", s.sftpConfig)
	}
	_, err = parseConfig("c.yaml", []byte("trees:\n  - backend: \"mem:\"\n    sftp:\n      - listen: :22\n        max_startups: -1\n"))
	if err == nil {
		t.Error("a negative limit is taken")
	}
}

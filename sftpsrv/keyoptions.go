package sftpsrv

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// keyOptions are the options of a line of authorized_keys that matter here.
type keyOptions struct {
	from       []string  // patterns of addresses; nil is any
	expires    time.Time // zero is never
	authority  bool      // the key signs certificates
	principals []string  // of such certificates; nil is the user's name
}

// parseKeyOptions takes options apart as sshd(8) has them, each with its
// quotes. What only concerns what is never allowed here (shells, terminals,
// forwarding) is passed over; what restricts otherwise, or is not known, is an
// error, so that no key can do more than its line says.
func parseKeyOptions(options []string) (keyOptions, error) {
	var o keyOptions
	for _, opt := range options {
		name, value, has := strings.Cut(opt, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if has {
			var err error
			if value, err = unquote(value); err != nil {
				return o, fmt.Errorf("option %s: %w", name, err)
			}
		}
		if err := o.set(name, value, has); err != nil {
			return o, fmt.Errorf("option %s: %w", name, err)
		}
	}
	return o, nil
}

var (
	errOptionUnknown = errors.New("not supported")
	errOptionTwice   = errors.New("given twice")
	errOptionValue   = errors.New("bad value")
)

func (o *keyOptions) set(name, value string, has bool) error {
	switch name {
	case "restrict", "pty", "no-pty", "agent-forwarding", "no-agent-forwarding", "port-forwarding",
		"no-port-forwarding", "x11-forwarding", "no-x11-forwarding", "user-rc", "no-user-rc", "no-touch-required":
		if has {
			return errOptionValue
		}
	case "permitopen", "permitlisten", "tunnel", "environment":
		// Nothing of the kind can be had here.
	case "cert-authority":
		if has {
			return errOptionValue
		}
		o.authority = true
	case "command":
		if strings.TrimSpace(value) != "internal-sftp" {
			return errOptionUnknown
		}
	case "from":
		if o.from != nil {
			return errOptionTwice
		}
		o.from = strings.Split(value, ",")
		return checkAddressList(o.from)
	case "principals":
		if o.principals != nil {
			return errOptionTwice
		}
		o.principals = strings.Split(value, ",")
	case "expiry-time":
		t, err := parseExpiry(value)
		if err != nil {
			return err
		}
		if o.expires.IsZero() || t.Before(o.expires) {
			o.expires = t
		}
	default:
		return errOptionUnknown
	}
	return nil
}

// unquote takes the quotes from a value.
func unquote(s string) (string, error) {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return "", errOptionValue
	}
	return strings.ReplaceAll(s[1:len(s)-1], `\"`, `"`), nil
}

// parseExpiry takes a time as sshd does: YYYYMMDD[HHMM[SS]], local time unless
// a Z follows.
func parseExpiry(s string) (time.Time, error) {
	zone := time.Local
	if t, ok := strings.CutSuffix(strings.ToUpper(s), "Z"); ok {
		s, zone = t, time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(s) == len(layout) {
			t, err := time.ParseInLocation(layout, s, zone)
			if err != nil {
				return t, errOptionValue
			}
			return t, nil
		}
	}
	return time.Time{}, errOptionValue
}

// checkAddressList refuses what looks like a network and is none.
func checkAddressList(patterns []string) error {
	for _, p := range patterns {
		p = strings.TrimPrefix(p, "!")
		if p == "" {
			return errOptionValue
		}
		if strings.Contains(p, "/") {
			prefix, err := netip.ParsePrefix(p)
			if err != nil || prefix != prefix.Masked() {
				return fmt.Errorf("%w: %s is no network", errOptionValue, p)
			}
		}
	}
	return nil
}

// matchAddress reports whether addr is in a list of addresses, networks and
// patterns with * and ?, of which none with a "!" before it may match.
func matchAddress(patterns []string, addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	addr = addr.Unmap().WithZone("")
	found := false
	for _, p := range patterns {
		p, negated := strings.CutPrefix(p, "!")
		matched := false
		if prefix, err := netip.ParsePrefix(p); err == nil {
			matched = prefix.Contains(addr)
		} else if a, err := netip.ParseAddr(p); err == nil {
			matched = a.Unmap() == addr
		} else {
			matched = wildcard(p, addr.String())
		}
		if matched && negated {
			return false
		}
		found = found || matched
	}
	return found
}

// wildcard matches s against a pattern in which * is any characters and ? is
// one, without regard to case.
func wildcard(pattern, s string) bool {
	pattern, s = strings.ToLower(pattern), strings.ToLower(s)
	star, mark := -1, 0 // after the last *, and where it is tried next
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, mark = p, i
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

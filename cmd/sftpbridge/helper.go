package main

import (
	"path/filepath"
	"strings"
)

// helperArgs returns the arguments of the command without the program's name.
// mount(8) and mount.fuse(8) call a helper with arguments of their own kind,
// such as
//
//	mount.sftpbridge BACKEND DIR [-sfnv] [-t type] [-o options]
//	sftpbridge BACKEND DIR -o options
//
// which become those of the mount command, in the background, as a helper has
// to end when the mount is up.
func helperArgs(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	name := filepath.Base(args[0])
	called := name == "mount.sftpbridge" || name == "mount.fuse.sftpbridge"
	args = args[1:]
	if !called && (len(args) < 2 || !looksLikeBackend(args[0])) {
		return args, nil
	}
	out := []string{"mount", "--daemon"}
	var operands []string
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "-o" || arg == "-t" || arg == "-N":
			i++
			if i == len(args) {
				return nil, usagef("%s needs a value", arg)
			}
			if arg == "-N" {
				return nil, usagef("mounting in another namespace is not supported")
			}
			if arg == "-o" {
				out = append(out, "-o", args[i])
			}
		case strings.HasPrefix(arg, "--") || strings.HasPrefix(arg, "-o"):
			out = append(out, arg)
		case strings.HasPrefix(arg, "-") && strings.Trim(arg[1:], "sfnvw") == "":
			if strings.Contains(arg, "f") {
				return []string{"version"}, nil // a rehearsal: do nothing, well
			}
		case arg == "-r":
			out = append(out, "--read-only")
		default:
			operands = append(operands, arg)
		}
	}
	if len(operands) != 2 {
		return nil, usagef("a mount helper is called with BACKEND DIR [-o options]")
	}
	return append(append(out, "--"), operands...), nil
}

// looksLikeBackend reports whether the first argument is a backend and so no
// subcommand nor flag.
func looksLikeBackend(arg string) bool {
	return !strings.HasPrefix(arg, "-") && strings.ContainsAny(arg, ":/")
}

// splitOptions splits the value of -o at its commas. A backslash keeps the
// character after it from being one.
func splitOptions(text string) []string {
	var out []string
	var item strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text):
			i++
			item.WriteByte(text[i])
		case text[i] == ',':
			out = append(out, item.String())
			item.Reset()
		default:
			item.WriteByte(text[i])
		}
	}
	out = append(out, item.String())
	kept := out[:0]
	for _, o := range out {
		if o != "" {
			kept = append(kept, o)
		}
	}
	return kept
}

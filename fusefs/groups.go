package fusefs

import (
	"os"
	"strconv"
	"strings"

	"sftpbridge/bridge"
)

// inProcess returns the avatar with the supplementary groups of the thread that
// sent a request, which the kernel keeps waiting meanwhile; or as it is, if the
// thread cannot be seen or is somebody else.
func inProcess(a *bridge.Avatar, from sender) *bridge.Avatar {
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(from.pid), 10) + "/status")
	if err != nil {
		return a
	}
	groups, ok := groupsOf(string(status), from.uid, from.gid)
	if !ok {
		return a
	}
	own := *a
	own.Cred.Groups = groups
	return &own
}

// groupsOf finds the supplementary groups in a text as in /proc/PID/status, if
// it is about a process that uses files as uid and gid: proc(5).
func groupsOf(status string, uid, gid uint32) (groups []uint32, ok bool) {
	found := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch key {
		case "Uid", "Gid":
			want := uid
			if key == "Gid" {
				want = gid
			}
			if len(fields) != 4 || fields[3] != strconv.FormatUint(uint64(want), 10) {
				return nil, false
			}
			found++
		case "Groups":
			for _, f := range fields {
				id, err := strconv.ParseUint(f, 10, 32)
				if err != nil {
					return nil, false
				}
				groups = append(groups, uint32(id))
			}
			found++
		}
	}
	return groups, found == 3
}

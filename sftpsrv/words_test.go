package sftpsrv

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"
)

// answerWords puts all fields of an answer in words.
func answerWords(typ sshfx.PacketType, b *sshfx.Buffer, s step, root string) string {
	switch typ {
	case sshfx.PacketTypeStatus:
		return fmt.Sprintf("status %d %q %q", b.ConsumeUint32(), b.ConsumeString(), b.ConsumeString())
	case sshfx.PacketTypeHandle:
		return "handle"
	case sshfx.PacketTypeData:
		return fmt.Sprintf("data %q", b.ConsumeString())
	case sshfx.PacketTypeAttrs:
		return "attrs " + attrWords(b)
	case sshfx.PacketTypeName:
		return "names " + nameWords(b, root)
	case sshfx.PacketTypeExtendedReply:
		return "reply " + replyWords(b, s.fields[0].(string))
	}
	return fmt.Sprint("type ", typ)
}

// replyWords tells the answer to an extended request, but for what changes by
// itself: how much of the file system is free.
func replyWords(b *sshfx.Buffer, name string) string {
	switch name {
	case extLimits:
		return fmt.Sprint(b.ConsumeUint64(), b.ConsumeUint64(), b.ConsumeUint64(), " handles ", b.ConsumeUint64())
	case extStatVFS, extFStatVFS:
		w := fmt.Sprint("block ", b.ConsumeUint64(), b.ConsumeUint64(), " blocks ", b.ConsumeUint64())
		b.ConsumeUint64()
		b.ConsumeUint64()
		w += fmt.Sprint(" files ", b.ConsumeUint64())
		b.ConsumeUint64()
		b.ConsumeUint64()
		return w + fmt.Sprint(" id ", b.ConsumeUint64(), " flags ", b.ConsumeUint64(), " name ", b.ConsumeUint64())
	}
	rest := make([]byte, b.Len())
	for i := range rest {
		rest[i] = b.ConsumeUint8()
	}
	return hex.EncodeToString(rest)
}

// attrWords tells attributes. Of times that are of today it says no more.
func attrWords(b *sshfx.Buffer) string {
	var a sshfx.Attributes
	if err := a.UnmarshalFrom(b); err != nil {
		return err.Error()
	}
	if a.Flags == 0 {
		return "none"
	}
	return fmt.Sprintf("flags %d size %d owner %d:%d mode %o times %s %s",
		a.Flags, a.Size, a.UID, a.GID, uint32(a.Permissions), timeWord(a.ATime), timeWord(a.MTime))
}

func timeWord(t uint32) string {
	if isNow(int64(t)) {
		return "now"
	}
	return fmt.Sprint(t)
}

func isNow(t int64) bool { return time.Since(time.Unix(t, 0)).Abs() < 12*time.Hour }

// nameWords tells the names of an answer in their order. Of "..", which may be
// out of our tree, only the name; and without the minute for what is of today.
func nameWords(b *sshfx.Buffer, root string) string {
	var list []string
	for n := b.ConsumeUint32(); n > 0 && b.Err == nil; n-- {
		name, long := b.ConsumeString(), b.ConsumeString()
		attrs := attrWords(b)
		switch {
		case name == "..":
			long, attrs = "", ""
		case strings.HasSuffix(attrs, " now") && long != name:
			long = long[:max(0, len(long)-len(name)-len("Jan _2 15:04 "))]
		}
		if root != "" && strings.HasPrefix(name, "/") {
			name, long = within(name, root), within(long, root)
		}
		list = append(list, fmt.Sprintf("%q %q %s", name, long, attrs))
	}
	return strings.Join(list, "\n\t")
}

// within is path as somebody sees it whose root is root.
func within(path, root string) string {
	if path == root {
		return "/"
	}
	if rest, ok := strings.CutPrefix(path, root+"/"); ok {
		return "/" + rest
	}
	return path
}

// treeOf lists all files with their modes, owners, times and content.
func treeOf(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case fi.Mode().IsRegular() && fi.Size() > 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%q", data)
		case fi.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(path)
		}
		when := "now"
		if !isNow(fi.ModTime().Unix()) {
			when = fmt.Sprint(fi.ModTime().UnixNano())
		}
		st := fi.Sys().(*syscall.Stat_t)
		fmt.Fprintln(&b, strings.TrimPrefix(path, dir), fi.Mode(), st.Uid, st.Gid, st.Nlink, when, content)
		return nil
	}))
	return b.String()
}

package sftpsrv

import (
	"strconv"
	"syscall"
	"time"

	"sftpbridge/bridge"
)

// halfYear is how old a file may be for its long name to give the hour.
const halfYear = 365 * 24 * time.Hour / 2

// longName appends the line that "ls -l" of OpenSSH's sftp-server gives for an
// entry: mode, links, user, group, size, date, name.
func longName(b []byte, e bridge.DirEntry, user, group string, now time.Time) []byte {
	b = appendMode(b, e.Attr.Mode)
	b = append(b, ' ', ' ')
	b = padLeft(b, strconv.FormatUint(uint64(max(e.Attr.Nlink, 1)), 10), 3)
	b = append(b, ' ')
	b = padRight(b, user, 8)
	b = append(b, ' ')
	b = padRight(b, group, 8)
	b = append(b, ' ')
	b = padLeft(b, strconv.FormatUint(uint64(e.Attr.Size), 10), 8)
	b = append(b, ' ')
	mtime := time.Unix(int64(wireTime(e.Attr.Mtime)), 0).In(now.Location())
	if age := now.Sub(mtime); age < halfYear && age >= 0 {
		b = mtime.AppendFormat(b, "Jan _2 15:04")
	} else {
		b = mtime.AppendFormat(b, "Jan _2  2006")
	}
	b = append(b, ' ')
	return append(b, e.Name...)
}

// appendMode appends a mode in the form of strmode(3), without the last blank.
func appendMode(b []byte, mode uint32) []byte {
	b = append(b, typeLetter(mode))
	for i, shift := range []uint{6, 3, 0} {
		bits := mode >> shift
		b = append(b, letter(bits&4, 'r'), letter(bits&2, 'w'))
		special := mode&(syscall.S_ISUID>>i) != 0
		set, unset := byte('s'), byte('S')
		if shift == 0 {
			set, unset = 't', 'T'
		}
		switch {
		case special && bits&1 != 0:
			b = append(b, set)
		case special:
			b = append(b, unset)
		default:
			b = append(b, letter(bits&1, 'x'))
		}
	}
	return b
}

func typeLetter(mode uint32) byte {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return 'd'
	case syscall.S_IFLNK:
		return 'l'
	case syscall.S_IFREG:
		return '-'
	case syscall.S_IFCHR:
		return 'c'
	case syscall.S_IFBLK:
		return 'b'
	case syscall.S_IFIFO:
		return 'p'
	case syscall.S_IFSOCK:
		return 's'
	}
	return '?'
}

func letter(bit uint32, c byte) byte {
	if bit != 0 {
		return c
	}
	return '-'
}

func padLeft(b []byte, s string, width int) []byte {
	for n := len(s); n < width; n++ {
		b = append(b, ' ')
	}
	return append(b, s...)
}

func padRight(b []byte, s string, width int) []byte {
	b = append(b, s...)
	for n := len(s); n < width; n++ {
		b = append(b, ' ')
	}
	return b
}

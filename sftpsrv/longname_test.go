package sftpsrv

import (
	"math"
	"testing"
	"time"

	"sftpbridge/bridge"
)

func TestLongName(t *testing.T) {
	now := time.Date(2024, 7, 9, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		mode  uint32
		nlink uint32
		size  int64
		mtime time.Time
		user  string
		want  string
	}{
		{0o100644, 1, 5, now, "root", "-rw-r--r--    1 root     wheel           5 Jul  9 12:00 name"},
		{0o040755, 12, 4096, now.AddDate(0, -5, 11), "a-long-user", "drwxr-xr-x   12 a-long-user wheel        4096 Feb 20 12:00 name"},
		{0o120777, 0, 3, now.AddDate(-1, 0, 0), "1000", "lrwxrwxrwx    1 1000     wheel           3 Jul  9  2023 name"},
		{0o100644, 1, 1 << 40, now.Add(time.Hour), "root", "-rw-r--r--    1 root     wheel    1099511627776 Jul  9  2024 name"},
		{0o106755, 1, 0, now, "root", "-rwsr-sr-x    1 root     wheel           0 Jul  9 12:00 name"},
		{0o106644, 1, 0, now, "root", "-rwSr-Sr--    1 root     wheel           0 Jul  9 12:00 name"},
		{0o041777, 1, 0, now, "root", "drwxrwxrwt    1 root     wheel           0 Jul  9 12:00 name"},
		{0o041776, 1, 0, now, "root", "drwxrwxrwT    1 root     wheel           0 Jul  9 12:00 name"},
		{0o010600, 1, 0, now, "root", "prw-------    1 root     wheel           0 Jul  9 12:00 name"},
		{0o140600, 1, 0, now, "root", "srw-------    1 root     wheel           0 Jul  9 12:00 name"},
		{0o020600, 1, 0, now, "root", "crw-------    1 root     wheel           0 Jul  9 12:00 name"},
		{0o060600, 1, 0, now, "root", "brw-------    1 root     wheel           0 Jul  9 12:00 name"},
	}
	for _, tt := range tests {
		e := bridge.DirEntry{Name: "name", Attr: bridge.Attr{Mode: tt.mode, Nlink: tt.nlink, Size: tt.size, Mtime: tt.mtime}}
		if got := string(longName(nil, e, tt.user, "wheel", now)); got != tt.want {
			t.Errorf("long name\n%q, want\n%q", got, tt.want)
		}
	}
}

func TestWireTime(t *testing.T) {
	for sec, want := range map[int64]uint32{-1: 0, 0: 0, 1e9: 1e9, math.MaxUint32: math.MaxUint32, 1 << 33: math.MaxUint32} {
		if got := wireTime(time.Unix(sec, 5)); got != want {
			t.Errorf("wireTime(%d) = %d, want %d", sec, got, want)
		}
	}
}

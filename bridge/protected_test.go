package bridge

import (
	"syscall"
	"testing"
)

func TestCheckLink(t *testing.T) {
	tests := []struct {
		name string
		c    *Cred
		a    Attr
		want error
	}{
		{"owner", permAlice, aFile(0), nil},
		{"owner, set-user-ID", permAlice, aFile(0o4755), nil},
		{"who may read and write", permBob, aFile(0o660), nil},
		{"who may only read", permBob, aFile(0o644), syscall.EPERM},
		{"set-user-ID", permBob, aFile(0o4666), syscall.EPERM},
		{"set-group-ID", permBob, aFile(0o2676), syscall.EPERM},
		{"mandatory lock bit", permBob, aFile(0o2666), nil},
		{"fifo", permBob, aFifo(0o666), syscall.EPERM},
		{"own fifo", permAlice, aFifo(0), nil},
		{"root", permRoot, aFile(0), nil},
		{"directory", permBob, aDir(0o777), syscall.EPERM},
	}
	for _, tt := range tests {
		if got := (Protected{Hardlinks: true}).CheckLink(tt.c, tt.a); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		if got := (Protected{}).CheckLink(tt.c, tt.a); got != nil {
			t.Errorf("%s, not protected: got %v", tt.name, got)
		}
	}
}

func TestCheckFollow(t *testing.T) {
	aLink := func(uid uint32) Attr { return Attr{Mode: syscall.S_IFLNK | 0o777, UID: uid} }
	tests := []struct {
		name      string
		c         *Cred
		dir, link Attr
		want      error
	}{
		{"other's", permEve, aDir(0o1777), aLink(1002), syscall.EACCES},
		{"root's", permEve, aDir(0o1777), aLink(0), syscall.EACCES},
		{"by the directory's owner", permAlice, aDir(0o1777), aLink(1002), syscall.EACCES},
		{"by root", permRoot, aDir(0o1777), aLink(1002), syscall.EACCES},
		{"own", permBob, aDir(0o1777), aLink(1002), nil},
		{"the directory's owner's", permEve, aDir(0o1777), aLink(1001), nil},
		{"not sticky", permEve, aDir(0o777), aLink(1002), nil},
		{"not open to the world", permBob, aDir(0o1775), aLink(1003), nil},
		{"open to the world only", permEve, aDir(0o1703), aLink(1002), syscall.EACCES},
	}
	for _, tt := range tests {
		if got := (Protected{Symlinks: true}).CheckFollow(tt.c, tt.dir, tt.link); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		if got := (Protected{}).CheckFollow(tt.c, tt.dir, tt.link); got != nil {
			t.Errorf("%s, not protected: got %v", tt.name, got)
		}
	}
}

func TestCheckReuse(t *testing.T) {
	of := func(uid, typ uint32) Attr { return Attr{Mode: typ | 0o666, UID: uid} }
	const reg, fifo, sock = syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK
	tests := []struct {
		name      string
		c         *Cred
		dir, file Attr
		want      [3]error // by the level of protection
	}{
		{"other's", permEve, aDir(0o1777), of(1002, reg), [3]error{nil, syscall.EACCES, syscall.EACCES}},
		{"other's fifo", permEve, aDir(0o1777), of(1002, fifo), [3]error{nil, syscall.EACCES, syscall.EACCES}},
		{"other's socket", permEve, aDir(0o1777), of(1002, sock), [3]error{syscall.EACCES, syscall.EACCES, syscall.EACCES}},
		{"by the directory's owner", permAlice, aDir(0o1777), of(1002, reg), [3]error{nil, syscall.EACCES, syscall.EACCES}},
		{"by root", permRoot, aDir(0o1777), of(1002, reg), [3]error{nil, syscall.EACCES, syscall.EACCES}},
		{"own", permBob, aDir(0o1777), of(1002, reg), [3]error{}},
		{"the directory's owner's", permEve, aDir(0o1777), of(1001, reg), [3]error{}},
		{"not sticky", permEve, aDir(0o777), of(1002, reg), [3]error{}},
		{"open to the group", permBob, aDir(0o1775), of(1003, reg), [3]error{nil, nil, syscall.EACCES}},
		{"fifo, open to the group", permBob, aDir(0o1770), of(1003, fifo), [3]error{nil, nil, syscall.EACCES}},
		{"socket, open to the group", permBob, aDir(0o1770), of(1003, sock), [3]error{}},
		{"open to nobody", permRoot, aDir(0o1755), of(1003, reg), [3]error{}},
	}
	for _, tt := range tests {
		for level, want := range tt.want {
			p := Protected{Regular: level}
			if tt.file.Type() == fifo {
				p = Protected{FIFOs: level}
			}
			if got := p.CheckReuse(tt.c, tt.dir, tt.file); got != want {
				t.Errorf("%s, protected by %d: got %v, want %v", tt.name, level, got, want)
			}
		}
	}
}

package bridge

import (
	"syscall"
	"testing"
	"time"
)

var (
	permRoot  = &Cred{UID: 0, GID: 0}
	permAlice = &Cred{UID: 1001, GID: 1001, Groups: []uint32{2000}}
	permBob   = &Cred{UID: 1002, GID: 1002, Groups: []uint32{2000}}
	permEve   = &Cred{UID: 1003, GID: 1003}
)

// aFile, aDir and aFifo return attributes of alice's, of the shared group 2000.
func aFile(perm uint32) Attr { return Attr{Mode: syscall.S_IFREG | perm, UID: 1001, GID: 2000} }
func aDir(perm uint32) Attr  { return Attr{Mode: syscall.S_IFDIR | perm, UID: 1001, GID: 2000} }
func aFifo(perm uint32) Attr { return Attr{Mode: syscall.S_IFIFO | perm, UID: 1001, GID: 2000} }

func TestCheckAccess(t *testing.T) {
	tests := []struct {
		name string
		c    *Cred
		a    Attr
		mask uint32
		want error
	}{
		{"existence", permEve, aFile(0), 0, nil},
		{"owner reads", permAlice, aFile(0o400), MayRead, nil},
		{"owner has only the owner's bits", permAlice, aFile(0o077), MayRead, syscall.EACCES},
		{"group reads", permBob, aFile(0o040), MayRead, nil},
		{"group has only the group's bits", permBob, aFile(0o707), MayRead, syscall.EACCES},
		{"others read", permEve, aFile(0o004), MayRead, nil},
		{"others do not write", permEve, aFile(0o774), MayWrite, syscall.EACCES},
		{"all of the mask", permAlice, aFile(0o400), MayRead | MayWrite, syscall.EACCES},
		{"root reads", permRoot, aFile(0), MayRead | MayWrite, nil},
		{"root does not execute", permRoot, aFile(0o666), MayExec, syscall.EACCES},
		{"root executes what somebody may", permRoot, aFile(0o001), MayExec | MayRead, nil},
		{"root searches", permRoot, aDir(0), MayExec | MayWrite, nil},
	}
	for _, tt := range tests {
		if got := CheckAccess(tt.c, tt.a, tt.mask); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCheckDelete(t *testing.T) {
	bobs := Attr{Mode: syscall.S_IFREG, UID: permBob.UID}
	tests := []struct {
		name        string
		c           *Cred
		dir, victim Attr
		want        error
	}{
		{"group may write", permBob, aDir(0o770), aFile(0), nil},
		{"no write permission", permBob, aDir(0o750), aFile(0), syscall.EACCES},
		{"no search permission", permBob, aDir(0o760), aFile(0), syscall.EACCES},
		{"sticky, other's file", permBob, aDir(0o1777), aFile(0), syscall.EPERM},
		{"sticky, own file", permBob, aDir(0o1777), bobs, nil},
		{"sticky, own directory", permAlice, aDir(0o1777), bobs, nil},
		{"sticky, root", permRoot, aDir(0o1777), bobs, nil},
		{"sticky, without write permission", permEve, aDir(0o1770), aFile(0), syscall.EACCES},
	}
	for _, tt := range tests {
		if got := CheckDelete(tt.c, tt.dir, tt.victim); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCheckSetAttr(t *testing.T) {
	const nowNow = SetAtime | SetMtime | SetAtimeNow | SetMtimeNow
	mode := SetAttr{Valid: SetMode, Mode: 0o600}
	uid := func(id uint32) SetAttr { return SetAttr{Valid: SetUID, UID: id} }
	gid := func(id uint32) SetAttr { return SetAttr{Valid: SetGID, GID: id} }
	size := func(n int64) SetAttr { return SetAttr{Valid: SetSize, Size: n} }
	times := SetAttr{Valid: SetAtime | SetMtime, Atime: time.Unix(1, 0)}
	now := SetAttr{Valid: nowNow}
	oneNow := SetAttr{Valid: SetMtime | SetMtimeNow}
	tests := []struct {
		name     string
		c        *Cred
		a        Attr
		set      SetAttr
		byHandle bool
		want     error
	}{
		{"nothing", permEve, aFile(0), SetAttr{}, false, nil},
		{"chmod by owner", permAlice, aFile(0), mode, false, nil},
		{"chmod by writer", permBob, aFile(0o666), mode, false, syscall.EPERM},
		{"chmod by root", permRoot, aFile(0), mode, false, nil},
		{"chown by owner", permAlice, aFile(0), uid(1002), false, syscall.EPERM},
		{"chown to oneself by owner", permAlice, aFile(0), uid(1001), false, nil},
		{"chown to the same by other", permBob, aFile(0o666), uid(1001), false, syscall.EPERM},
		{"chown by root", permRoot, aFile(0), uid(1002), false, nil},
		{"chgrp to own group", permAlice, aFile(0), gid(1001), false, nil},
		{"chgrp to the same group", &Cred{UID: 1001, GID: 1001}, aFile(0), gid(2000), false, nil},
		{"chgrp to a foreign group", permAlice, aFile(0), gid(3000), false, syscall.EPERM},
		{"chgrp by member", permBob, aFile(0o660), gid(1002), false, syscall.EPERM},
		{"chgrp by root", permRoot, aFile(0), gid(7), false, nil},
		{"truncate by writer", permBob, aFile(0o060), size(0), false, nil},
		{"truncate by reader", permBob, aFile(0o640), size(0), false, syscall.EACCES},
		{"truncate by handle", permBob, aFile(0), size(0), true, nil},
		{"truncate below nothing", permBob, aFile(0), size(-1), true, syscall.EINVAL},
		{"truncate a directory", permRoot, aDir(0o777), size(0), false, syscall.EISDIR},
		{"truncate a fifo", permRoot, aFifo(0o777), size(0), false, syscall.EINVAL},
		{"times by owner", permAlice, aFile(0), times, false, nil},
		{"times by writer", permBob, aFile(0o660), times, false, syscall.EPERM},
		{"now by owner", permAlice, aFile(0), now, false, nil},
		{"now by writer", permBob, aFile(0o020), now, false, nil},
		{"now by reader", permBob, aFile(0o040), now, false, syscall.EACCES},
		{"now by root", permRoot, aFile(0), now, false, nil},
		{"one time now by writer", permBob, aFile(0o020), oneNow, false, syscall.EPERM},
		{"several, one not allowed", permAlice, aFile(0o600), SetAttr{Valid: SetMode | SetUID, UID: 5}, false, syscall.EPERM},
	}
	for _, tt := range tests {
		if got := CheckSetAttr(tt.c, tt.a, tt.set, tt.byHandle); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestSetAttrEffect(t *testing.T) {
	mode := func(m uint32) SetAttr { return SetAttr{Valid: SetMode, Mode: m} }
	chgrp := SetAttr{Valid: SetGID, GID: 1001}
	size := SetAttr{Valid: SetSize}
	tests := []struct {
		name string
		c    *Cred
		a    Attr
		set  SetAttr
		want uint32 // the mode afterwards
	}{
		{"set-group-ID by a member", permAlice, aFile(0o755), mode(0o2755), 0o2755},
		{"set-group-ID by who is not", &Cred{UID: 1001, GID: 1}, aFile(0o755), mode(0o6755), 0o4755},
		{"set-group-ID by root", permRoot, aFile(0o755), mode(0o2755), 0o2755},
		{"set-group-ID with a new group", permAlice, Attr{Mode: syscall.S_IFREG, UID: 1001, GID: 9},
			SetAttr{Valid: SetMode | SetGID, GID: 1001, Mode: 0o2755}, 0o2755},
		{"set-group-ID of a directory by who is not", &Cred{UID: 1001, GID: 1}, aDir(0o755), mode(0o2755), 0o755},
		{"chgrp", permAlice, aFile(0o6755), chgrp, 0o755},
		{"chgrp keeps the mandatory lock bit", permAlice, aFile(0o2745), chgrp, 0o2745},
		{"chown by root", permRoot, aFile(0o6755), SetAttr{Valid: SetUID}, 0o755},
		{"chown of a directory", permRoot, aDir(0o6755), SetAttr{Valid: SetUID}, 0o6755},
		{"chown with a mode", permRoot, aFile(0o6755), SetAttr{Valid: SetUID | SetMode, Mode: 0o4700}, 0o4700},
		{"truncate", permAlice, aFile(0o6755), size, 0o755},
		{"truncate by root", permRoot, aFile(0o6755), size, 0o6755},
		{"times", permAlice, aFile(0o6755), SetAttr{Valid: SetMtime}, 0o6755},
	}
	for _, tt := range tests {
		got := SetAttrEffect(tt.c, tt.a, tt.set)
		if got.Valid&^SetMode != tt.set.Valid&^SetMode || got.UID != tt.set.UID || got.GID != tt.set.GID {
			t.Errorf("%s: %+v became %+v", tt.name, tt.set, got)
		}
		if m := got.Apply(tt.a, time.Unix(0, 0)).Perm(); m != tt.want {
			t.Errorf("%s: mode %#o, want %#o", tt.name, m, tt.want)
		}
	}
}

func TestWriteClears(t *testing.T) {
	tests := []struct {
		name string
		c    *Cred
		a    Attr
		want uint32
	}{
		{"none set", permBob, aFile(0o777), 0o777},
		{"both", permAlice, aFile(0o6755), 0o755},
		{"root", permRoot, aFile(0o6755), 0o6755},
		{"group may not execute", permBob, aFile(0o2666), 0o2666},
		{"group may not execute, not a member", permEve, aFile(0o2666), 0o666},
	}
	for _, tt := range tests {
		mode, clear := WriteClears(tt.c, tt.a)
		if mode != tt.want || clear != (mode != tt.a.Perm()) {
			t.Errorf("%s: mode %#o, %v, want %#o", tt.name, mode, clear, tt.want)
		}
	}
}

func TestNewAttr(t *testing.T) {
	const reg, fold = syscall.S_IFREG, syscall.S_IFDIR
	tests := []struct {
		name     string
		c        *Cred
		dir      Attr
		mode     uint32
		gid      uint32
		wantMode uint32
	}{
		{"file", permBob, aDir(0o777), reg | 0o644, 1002, 0o644},
		{"set-group-ID file of the own group", permBob, aDir(0o777), reg | 0o6755, 1002, 0o6755},
		{"file in a set-group-ID directory", permBob, aDir(0o2777), reg | 0o2755, 2000, 0o2755},
		{"the same of no member", permEve, aDir(0o2777), reg | 0o6755, 2000, 0o4755},
		{"the same, not for the group to execute", permEve, aDir(0o2777), reg | 0o2744, 2000, 0o2744},
		{"the same of root", permRoot, aDir(0o2777), reg | 0o2755, 2000, 0o2755},
		{"directory", permBob, aDir(0o777), fold | 0o7755, 1002, 0o1755},
		{"directory in a set-group-ID directory", permEve, aDir(0o2777), fold | 0o755, 2000, 0o2755},
	}
	for _, tt := range tests {
		got := NewAttr(tt.c, tt.dir, tt.mode)
		want := SetAttr{Valid: SetMode | SetUID | SetGID, Mode: tt.wantMode, UID: tt.c.UID, GID: tt.gid}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
		}
	}
}

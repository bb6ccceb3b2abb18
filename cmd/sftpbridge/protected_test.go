package main

import (
	"os"
	"path/filepath"
	"testing"

	"sftpbridge/bridge"
)

func TestProtectedAs(t *testing.T) {
	dir := t.TempDir()
	set := func(name, value string) {
		if err := os.WriteFile(filepath.Join(dir, "protected_"+name), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := protectedAs(dir); got != (bridge.Protected{Symlinks: true, Hardlinks: true, Regular: 2, FIFOs: 2}) {
		t.Errorf("of a kernel that tells nothing: %+v", got)
	}
	set("symlinks", "1\n")
	set("hardlinks", "0\n")
	set("regular", "2\n")
	set("fifos", "1\n")
	if got := protectedAs(dir); got != (bridge.Protected{Symlinks: true, Regular: 2, FIFOs: 1}) {
		t.Errorf("as set: %+v", got)
	}
	for _, name := range []string{"symlinks", "hardlinks", "regular", "fifos"} {
		set(name, "0\n")
	}
	if got := protectedAs(dir); got != (bridge.Protected{}) {
		t.Errorf("with nothing set: %+v", got)
	}
	if _, err := os.Stat(filepath.Join(procFS, "protected_regular")); err != nil {
		t.Errorf("this kernel tells nothing: %v", err)
	}
}

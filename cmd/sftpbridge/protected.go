package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sftpbridge/bridge"
)

// procFS is where the kernel tells of its settings for file systems.
const procFS = "/proc/sys/fs"

// protectedAs returns the protections that the kernel has set in the directory
// dir, which is procFS: it heeds them at mounts, so the trees have to at other
// doors. What it does not tell counts as set.
func protectedAs(dir string) bridge.Protected {
	level := func(name string, highest int) int {
		text, err := os.ReadFile(filepath.Join(dir, "protected_"+name))
		if err != nil {
			return highest
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return highest
		}
		return n
	}
	return bridge.Protected{
		Symlinks:  level("symlinks", 1) != 0,
		Hardlinks: level("hardlinks", 1) != 0,
		Regular:   level("regular", 2),
		FIFOs:     level("fifos", 2),
	}
}

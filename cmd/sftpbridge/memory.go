package main

import (
	"math"
	"runtime/debug"

	"sftpbridge/bridge"
)

// beside is the memory that is needed beside the content of upstreams:
// requests under way, what is remembered of files, the program itself.
const beside = 96 << 20

// limitMemory has the garbage collector keep the process near what its caches
// may hold: it would let garbage grow as large as they are. A limit in the
// environment (GOMEMLIMIT) stays.
func limitMemory(trees []treePlan) {
	caches := int64(0)
	for _, t := range trees {
		if t.backend.Kind != kindSFTP {
			continue
		}
		size := t.options.CacheSize
		if size == 0 {
			size = bridge.DefaultCacheSize
		}
		caches += size
	}
	if caches > 0 && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(caches + beside)
	}
}

package main

import (
	"math"
	"os"
	"runtime"
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

// readers is how many threads of a mount at most wait in read(2) for what the
// kernel asks next; see maxReaders of go-fuse.
func readers(procs int) int { return min(max(procs, 2), 16) }

// makeRoom has the scheduler run as many goroutines at once as there are
// processors, however many threads wait for the kernel's requests: each of
// these counts as running until it is taken from its processor by force, which
// costs more than many requests do. A number in the environment (GOMAXPROCS)
// stays.
func makeRoom(mounts int) {
	if mounts > 0 && os.Getenv("GOMAXPROCS") == "" {
		procs := runtime.GOMAXPROCS(0)
		runtime.GOMAXPROCS(procs + mounts*readers(procs))
	}
}

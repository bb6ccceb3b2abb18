//go:build !(amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package main

import (
	"errors"
	"fmt"
	"syscall"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
)

// enforceByKernel fails: package rights does not know the system calls here.
func enforceByKernel(fs *localfs.FS) (bridge.Backend, error) {
	return nil, errors.Join(fmt.Errorf("enforcement by the kernel: %w", syscall.EOPNOTSUPP), fs.Close())
}

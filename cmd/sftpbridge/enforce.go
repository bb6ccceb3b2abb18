//go:build amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x

package main

import (
	"errors"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
	"sftpbridge/bridge/localfs/rights"
)

// enforceByKernel returns a local directory that is used with the rights of
// who asks.
func enforceByKernel(fs *localfs.FS) (bridge.Backend, error) {
	b, err := rights.New(fs, bridge.CredOf)
	if err != nil {
		return nil, errors.Join(err, fs.Close())
	}
	return b, nil
}

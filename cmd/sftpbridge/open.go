package main

import (
	"context"
	"fmt"
	"log/slog"

	"sftpbridge/bridge"
	"sftpbridge/bridge/localfs"
	"sftpbridge/bridge/memfs"
)

// openTree opens the backend of a plan and the tree over it, with the
// protections that the kernel has at the moment.
func openTree(ctx context.Context, p treePlan, log *slog.Logger) (*bridge.Tree, error) {
	backend, err := openBackend(ctx, p, log)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.backend, err)
	}
	p.options.Protected = protectedAs(procFS)
	tree, err := bridge.New(ctx, backend, p.options)
	if err != nil {
		backend.Close()
		return nil, fmt.Errorf("%s: %w", p.backend, err)
	}
	return tree, nil
}

func openBackend(ctx context.Context, p treePlan, log *slog.Logger) (bridge.Backend, error) {
	switch p.backend.Kind {
	case kindMem:
		return memfs.New(), nil
	case kindLocal:
		fs, err := localfs.New(p.backend.Path)
		if err == nil && p.kernel {
			return enforceByKernel(fs)
		}
		return fs, err
	}
	return openUpstream(ctx, p, log)
}

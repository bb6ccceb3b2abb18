package main

import (
	"context"
	"errors"
	"log/slog"

	"sftpbridge/bridge"
)

func openUpstream(ctx context.Context, p treePlan, log *slog.Logger) (bridge.Backend, error) {
	return nil, errors.ErrUnsupported
}

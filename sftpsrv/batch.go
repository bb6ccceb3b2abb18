package sftpsrv

import (
	"context"

	sshfx "github.com/pkg/sftp/v2/encoding/ssh/filexfer"

	"sftpbridge/bridge"
)

// gather begins a batch with the request q if it asks for attributes and there
// is more that has come already, and ends the one under way if q does not.
func (s *session) gather(q *request, more bool) {
	switch {
	case q.typ != sshfx.PacketTypeStat && q.typ != sshfx.PacketTypeLStat:
		s.endBatch()
	case more && s.batch == nil && s.batcher != nil:
		s.batch = s.batcher.AttrBatch()
	}
}

func (s *session) endBatch() {
	if s.batch != nil {
		s.batch.Close()
		s.batch = nil
	}
}

// getAttrs is STAT and LSTAT.
func (s *session) getAttrs(ctx context.Context, q *request) (bridge.Attr, error) {
	follow := q.typ == sshfx.PacketTypeStat
	if s.batch != nil {
		return s.batch.GetAttrs(ctx, q.path, follow)
	}
	return s.srv.GetAttrs(ctx, q.path, follow)
}

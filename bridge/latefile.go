package bridge

import (
	"context"
	"sync"
	"syscall"
	"time"
)

// openLater returns a file that is opened when it is needed, if n has been
// read ahead and nothing else is asked for than reading. renameMu is held.
func (t *Tree) openLater(n *Node, flags OpenFlags) File {
	if !t.traits.Slow || flags.Writes() || flags.Has(syscall.O_TRUNC) {
		return nil
	}
	t.mu.Lock()
	defer t.unlock()
	if !n.aheadOf(n.attr) || !time.Now().Before(n.attrUntil) {
		return nil
	}
	return &lateFile{tree: t, node: n}
}

// A lateFile is a file open for reading that the backend has not opened yet:
// its content has been read ahead, and chances are that nobody needs more.
type lateFile struct {
	tree *Tree
	node *Node

	mu   sync.Mutex
	file File // guarded by mu; nil until it is needed
}

// open opens the file in earnest. Before a name is removed or replaced, the
// files that are open under it are opened, since there is no other time.
func (l *lateFile) open(ctx context.Context) (File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		return l.file, nil
	}
	l.tree.lateMu.RLock()
	defer l.tree.lateMu.RUnlock()
	l.tree.mu.Lock()
	path, named := l.node.backendPathLocked()
	l.tree.unlock()
	if !named {
		return nil, syscall.ESTALE
	}
	f, err := l.tree.backend.Open(ctx, path, syscall.O_RDONLY, SetAttr{})
	if err == nil {
		l.file = f
	}
	return f, err
}

// openNow has the backend open all files that are open at n. renameMu is held.
func (t *Tree) openNow(ctx context.Context, n *Node) {
	t.mu.Lock()
	var late []*lateFile
	for h := range n.handles {
		if l, ok := h.file.(*lateFile); ok {
			late = append(late, l)
		}
	}
	t.unlock()
	for _, l := range late {
		if _, err := l.open(ctx); err != nil {
			t.log.Warn("an open file was lost when its name was removed", "path", n.path(""), "err", err)
		}
	}
}

func (l *lateFile) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	f, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	return f.ReadAt(ctx, p, off)
}

func (l *lateFile) WriteAt(ctx context.Context, p []byte, off int64) (int, error) {
	return 0, syscall.EBADF
}

func (l *lateFile) Attr(ctx context.Context) (Attr, error) {
	f, err := l.open(ctx)
	if err != nil {
		return Attr{}, err
	}
	return f.Attr(ctx)
}

func (l *lateFile) SetAttr(ctx context.Context, set SetAttr) error {
	f, err := l.open(ctx)
	if err != nil {
		return err
	}
	return f.SetAttr(ctx, set)
}

func (l *lateFile) Sync(ctx context.Context) error { return nil }

func (l *lateFile) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close(ctx)
}

// CopyRange implements CopyFile.
func (l *lateFile) CopyRange(ctx context.Context, off int64, dst File, dstOff, n int64) (int64, error) {
	f, err := l.open(ctx)
	if err != nil {
		return 0, err
	}
	c, ok := f.(CopyFile)
	if !ok {
		return 0, syscall.EOPNOTSUPP
	}
	return c.CopyRange(ctx, off, dst, dstOff, n)
}

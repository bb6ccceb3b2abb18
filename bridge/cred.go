package bridge

import "context"

// A CallerBackend does what it is asked with the rights of who asks: those that
// CredOf finds in the context of a call, or else those of the process. The tree
// puts them there for what is asked by name and by a caller: looking up,
// opening, listing, making, removing, renaming, changing. The tree decides as
// ever, too. Attributes of a known node and what goes on in an open file need
// no rights.
type CallerBackend interface {
	Backend
	ActsAsCaller()
}

type credKey struct{}

// WithCred returns a context for calls of a backend that are made for cred.
func WithCred(ctx context.Context, cred Cred) context.Context {
	return context.WithValue(ctx, credKey{}, cred)
}

// CredOf returns the credentials that WithCred put into the context.
func CredOf(ctx context.Context) (Cred, bool) {
	cred, ok := ctx.Value(credKey{}).(Cred)
	return cred, ok
}

// as returns the context for calls of the backend that are made for c.
func (t *Tree) as(ctx context.Context, c Caller) context.Context {
	if !t.asCaller {
		return ctx
	}
	return WithCred(ctx, c.Cred)
}

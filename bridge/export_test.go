package bridge

// Fetching returns how many things are being fetched ahead of need.
func Fetching(t *Tree) int {
	t.ahead.mu.Lock()
	defer t.ahead.mu.Unlock()
	return len(t.ahead.fetches)
}

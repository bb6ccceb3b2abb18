package bridge_test

import (
	"testing"

	"sftpbridge/bridge"
)

// newView returns the view of an avatar, which is closed with the test.
func newView(t *testing.T, tree *bridge.Tree, a *bridge.Avatar) *bridge.View {
	t.Helper()
	v, err := tree.View(t.Context(), a, tree.NewDoor())
	must(t, err)
	t.Cleanup(func() { must(t, v.Close()) })
	return v
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

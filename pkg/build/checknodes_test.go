package build

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/builder"
)

// TestCheckNodes: what a node would not do is refused, rather than left out.
func TestCheckNodes(t *testing.T) {
	remote := builder.Builder{Name: "farm", Driver: "remote", Nodes: []builder.Node{{Name: "one", Endpoint: "tcp://192.0.2.1:1234"}}}
	if !remote.Remote() {
		t.Fatalf("not remote: %+v", remote)
	}
	for name, o := range map[string]Options{
		"limits": {Limits: Resources{Memory: 1}}, "a shell": {OnError: func(FailedStep) {}}, "authorities": {Authorities: []byte("x")}, "native programs": {Accelerate: []string{"host"}},
	} {
		require.NoError(t, checkNodes(Request{}, o), name)
		o.Builder = remote
		err := checkNodes(Request{}, o)
		require.ErrorIs(t, err, ErrNodeCannot, name)
		assert.Contains(t, err.Error(), "--", name)
	}
	require.NoError(t, checkNodes(Request{}, Options{Builder: remote, LogLimit: 1 << 20}))
}

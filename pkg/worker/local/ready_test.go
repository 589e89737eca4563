package local

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func TestReadyIsRemembered(t *testing.T) {
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer st.Close()
	w := New(Options{Store: st})
	if err := w.Ready(t.Context()); err != nil {
		t.Skipf("this host runs no steps: %v", err)
	}
	assert.NotNil(t, w.pool)
	require.NoError(t, w.Close())

	w = New(Options{Store: st})
	require.NoError(t, w.Ready(t.Context()))
	assert.Nil(t, w.pool, "nothing was started")
	require.NoError(t, w.Close())

	w = New(Options{Store: st, Sandbox: sandbox.Options{Mode: "nonsense"}})
	require.Error(t, w.Ready(t.Context()), "other options, another answer")
	require.NoError(t, w.Close())
}

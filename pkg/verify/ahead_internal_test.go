package verify

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAhead(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	a := newAhead(iotest.HalfReader(bytes.NewReader(data)))
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.NoError(t, a.Close())
	assert.True(t, bytes.Equal(data, got))

	cause := errors.New("cut")
	a = newAhead(io.MultiReader(bytes.NewReader(data[:1000]), iotest.ErrReader(cause)))
	got, err = io.ReadAll(a)
	require.ErrorIs(t, err, cause)
	assert.Len(t, got, 1000, "what came before the error")
	_, err = a.Read(make([]byte, 1))
	require.ErrorIs(t, err, cause, "and it stays")
	require.NoError(t, a.Close())

	// Whoever stops early does not leave the goroutine behind.
	a = newAhead(bytes.NewReader(data))
	_, err = io.ReadFull(a, make([]byte, 10))
	require.NoError(t, err)
	require.NoError(t, a.Close())
}

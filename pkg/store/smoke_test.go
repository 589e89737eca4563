package store

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, t.TempDir()+"/a/b", Options{})
	require.NoError(t, err)
	big := bytes.Repeat([]byte("hello"), 1<<20)
	d, err := s.Put(ctx, "x", bytes.NewReader(big))
	require.NoError(t, err)
	rc, err := s.Open(ctx, d)
	require.NoError(t, err)
	b, err := io.ReadAll(rc)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(b, big))
	require.NoError(t, s.SetRef(ctx, "hello:1.0", d))
	require.NoError(t, s.PutRecord("cache", "abc", Record{Data: []byte("hi")}))
	r, err := s.GetRecord("cache", "abc")
	require.NoError(t, err)
	assert.Equal(t, "hi", string(r.Data))
	rep, err := s.GC(ctx, GCOptions{})
	require.NoError(t, err)
	assert.Zero(t, rep)
	fs, err := s.Check(ctx, CheckOptions{ReadData: true})
	require.NoError(t, err)
	assert.Empty(t, fs)
	require.NoError(t, s.Close())
}

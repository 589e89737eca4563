package serve_test

import (
	"bytes"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
)

// BenchmarkTransfer moves a blob of 64 MiB to a registry and back.
func BenchmarkTransfer(b *testing.B) {
	h, err := serve.Handler(b.Context(), serve.Options{Dir: b.TempDir()})
	require.NoError(b, err)
	srv := httptest.NewServer(h)
	defer func() { srv.Close(); require.NoError(b, h.Close()) }()
	r, err := ref.Parse(strings.TrimPrefix(srv.URL, "http://") + "/app:1")
	require.NoError(b, err)
	c := registry.New(registry.Options{})
	blob := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
	n := 0
	b.Run("push", func(b *testing.B) {
		b.SetBytes(int64(len(blob)))
		b.ReportAllocs()
		for b.Loop() {
			n++
			copy(blob, []byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
			b.StopTimer()
			desc := describe(blob)
			b.StartTimer()
			_, err := c.PushBlob(b.Context(), r, desc, opener(blob), nil)
			require.NoError(b, err)
		}
	})
	b.Run("pull", func(b *testing.B) {
		b.SetBytes(int64(len(blob)))
		b.ReportAllocs()
		desc := describe(blob)
		for b.Loop() {
			rc, err := c.Blob(b.Context(), r, desc)
			require.NoError(b, err)
			_, err = io.Copy(io.Discard, rc)
			require.NoError(b, err)
			require.NoError(b, rc.Close())
		}
	})
}

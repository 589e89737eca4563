package registry_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// counted is a source that counts what is read of it, and how many are open.
type counted struct {
	io.Reader
	read, open *atomic.Int64
	closed     atomic.Bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return nil
}

// TestPushBlob_C18_piecesReadOnce: a blob that goes in pieces is read from its start only by its first one, and by one after a
// failure: reading again all that was before each piece of 6 GB takes hours.
func TestPushBlob_C18_piecesReadOnce(t *testing.T) {
	const size, chunk = 4 << 20, 64 << 10
	for name, tc := range map[string]struct {
		rules func(f *fake)
		most  int64 // bytes read
	}{
		"too large for a proxy": {func(f *fake) {
			f.when("PUT", testregistry.Uploads, 0, func(w http.ResponseWriter, r *http.Request) bool {
				return r.ContentLength > 1<<20 && status(413, "")(w, r)
			})
		}, 2 * size},
		"a piece is cut": {func(f *fake) {
			f.when("PUT", testregistry.Uploads, 1, reset)
			f.When("PATCH", testregistry.Uploads, 32, testregistry.CutUpload(1000))
		}, 3 * size},
		"the answer to a piece is lost": {func(f *fake) {
			f.when("PUT", testregistry.Uploads, 1, reset)
			f.when("PATCH", testregistry.Uploads, 32, f.storeAndCut(chunk))
		}, 3 * size},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			tc.rules(f)
			desc, b := randomBlob(t, size)
			var read, opened atomic.Int64
			open := func(context.Context) (io.ReadCloser, error) {
				opened.Add(1)
				return &counted{Reader: bytes.NewReader(b), read: &read, open: &opened}, nil
			}
			_, err := client(registry.Options{ChunkSize: chunk}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, open, nil)
			require.NoError(t, err)
			assert.True(t, f.holds("app", b))
			assert.LessOrEqual(t, read.Load(), tc.most)
			assert.Greater(t, f.count("PATCH", testregistry.Uploads), size/chunk-3)
			assert.Eventually(t, func() bool { return opened.Load() == 0 }, time.Minute, 10*time.Millisecond, "all sources are closed")
		})
	}
}

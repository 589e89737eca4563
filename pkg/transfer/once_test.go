package transfer

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
)

// TestStream_hashedOnce: what a source verifies as it is read says so through the wrappers of a transfer, and nothing else
// says it: bytes are hashed once, and never not at all.
func TestStream_hashedOnce(t *testing.T) {
	d := digest.FromString("x")
	assert.Equal(t, d, (&stream{ReadCloser: selfVerifying{io.NopCloser(bytes.NewReader(nil)), d}}).Verifies())
	assert.Empty(t, (&stream{ReadCloser: io.NopCloser(bytes.NewReader(nil))}).Verifies())
}

type selfVerifying struct {
	io.ReadCloser
	d digest.Digest
}

func (v selfVerifying) Verifies() digest.Digest { return v.d }

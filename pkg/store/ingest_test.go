package store

import (
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAnIngestThatIsOnlyDigested leaves nothing in the store and says what it would have become.
func TestAnIngestThatIsOnlyDigested(t *testing.T) {
	data := make([]byte, 3*bufferSize/2)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	for name, at := range map[string]int{"from the beginning": 0, "within a buffer": 1000, "after a flush": bufferSize + 1, "at the end": len(data)} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			w, err := s.Ingest(t.Context())
			require.NoError(t, err)
			_, err = w.Write(data[:at])
			require.NoError(t, err)
			if at < len(data) {
				require.NoError(t, w.DigestOnly())
				n, err := w.Write(data[at:])
				require.NoError(t, err)
				assert.Equal(t, len(data)-at, n)
			}
			desc, err := w.Finish("x")
			require.NoError(t, err)
			assert.Equal(t, ocispec.Descriptor{MediaType: "x", Digest: digest.FromBytes(data), Size: int64(len(data))}, desc)
			_, err = s.Stat(desc.Digest)
			require.ErrorIs(t, err, ErrNotFound)
			left, err := os.ReadDir(s.path(ingestDir))
			require.NoError(t, err)
			assert.Empty(t, left)
			_, err = w.Finish("x")
			require.Error(t, err, "it has ended")
		})
	}
	s := open(t, t.TempDir())
	w, err := s.Ingest(t.Context())
	require.NoError(t, err)
	require.NoError(t, w.DigestOnly())
	_, err = w.Commit(t.Context(), "x")
	require.ErrorIs(t, err, ErrInvalid, "nothing was written")
	require.Error(t, w.DigestOnly(), "it has ended")
}

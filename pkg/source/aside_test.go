package source

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestAside: what is sent aside is judged as what is read is.
func TestAside(t *testing.T) {
	good := bytes.Repeat([]byte("0123456789abcdef"), 20_000) // 320,000 bytes
	desc := ocispec.Descriptor{Digest: digest.FromBytes(good), Size: int64(len(good))}
	wrong := bytes.Clone(good)
	wrong[len(wrong)-1] ^= 1
	for name, tc := range map[string]struct {
		holds   []byte
		read    int // bytes that are read before
		step    int64
		wantErr error
	}{
		"as it should be":           {good, 0, 64 << 10, nil},
		"in one step":               {good, 0, desc.Size, nil},
		"a beginning was read":      {good, 1000, 100_000, nil},
		"the last byte is another":  {wrong, 0, 64 << 10, ErrCorrupt},
		"and some of it was read":   {wrong, 70_000, desc.Size, ErrCorrupt},
		"it is shorter":             {good[:300_000], 0, 64 << 10, ErrCorrupt},
		"shorter by the last byte":  {good[:len(good)-1], 0, desc.Size, ErrCorrupt},
		"it is longer":              {append(bytes.Clone(good), 'x'), 0, 64 << 10, ErrCorrupt},
		"longer, where a step ends": {append(bytes.Clone(good), 'x'), 0, 160_000, ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "blob")
			require.NoError(t, os.WriteFile(path, tc.holds, 0o600))
			f, err := os.Open(path)
			require.NoError(t, err)
			rc, err := verify(f, desc)
			require.NoError(t, err)
			defer rc.Close()
			_, err = io.CopyN(io.Discard, rc, int64(tc.read))
			require.NoError(t, err)
			v, _ := rc.(*verifier)
			file, check := v.Aside()
			require.NotNil(t, file)
			at, err := file.Seek(0, io.SeekCurrent)
			require.NoError(t, err)
			assert.Equal(t, int64(tc.read), at, "the file is where the reader was")
			for left := desc.Size - at; left > 0 && err == nil; left -= tc.step {
				err = check(min(tc.step, left))
			}
			require.ErrorIs(t, err, tc.wantErr)
			_, err = rc.Read(make([]byte, 1))
			assert.Error(t, err, "there are no two readers")
		})
	}
}

func TestAside_noFile(t *testing.T) {
	rc, err := verify(io.NopCloser(bytes.NewReader([]byte("x"))), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1})
	require.NoError(t, err)
	v, _ := rc.(*verifier)
	file, _ := v.Aside()
	assert.Nil(t, file)
	b, err := io.ReadAll(rc)
	require.NoError(t, err)
	assert.Equal(t, "x", string(b))
}

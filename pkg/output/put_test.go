package output_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/output"
)

// selfVerifying is a reader that verifies itself: it ends with err.
type selfVerifying struct {
	io.Reader
	d   digest.Digest
	err error
}

func (s selfVerifying) Verifies() digest.Digest { return s.d }

func (s selfVerifying) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = s.err
	}
	return n, err
}

// TestLayout_putHashesOnce: who verifies a blob as it is read is believed about that digest only, and its error at the end
// leaves nothing behind.
func TestLayout_putHashesOnce(t *testing.T) {
	const text = "hello"
	good := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromString(text), Size: int64(len(text))}
	wrong := good
	wrong.Digest = digest.FromString("other")
	bad := errors.New("these are other bytes")
	for name, tc := range map[string]struct {
		desc ocispec.Descriptor
		r    io.Reader
		want bool
	}{
		"verified by its reader":     {good, selfVerifying{strings.NewReader(text), good.Digest, io.EOF}, true},
		"verified here":              {good, strings.NewReader(text), true},
		"other bytes":                {wrong, strings.NewReader(text), false},
		"verified as something else": {wrong, selfVerifying{strings.NewReader(text), good.Digest, io.EOF}, false},
		"its reader says no":         {good, selfVerifying{strings.NewReader(text), good.Digest, bad}, false},
		"too short":                  {good, selfVerifying{strings.NewReader(text[1:]), good.Digest, io.EOF}, false},
		"too long":                   {good, selfVerifying{strings.NewReader(text + "x"), good.Digest, io.EOF}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := output.OpenLayout(dir)
			require.NoError(t, err)
			defer l.Close()
			err = l.Put(t.Context(), tc.desc, tc.r)
			assert.Equal(t, tc.want, err == nil, "%v", err)
			data, rerr := os.ReadFile(filepath.Join(dir, "blobs", "sha256", tc.desc.Digest.Encoded()))
			if tc.want {
				require.NoError(t, rerr)
				assert.Equal(t, text, string(data))
			} else {
				assert.ErrorIs(t, rerr, os.ErrNotExist)
			}
		})
	}
}

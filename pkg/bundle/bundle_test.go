package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

// contentsOf lists an image under a name, with all its blobs but without.
func contentsOf(img testimage.Content, name string, without ...digest.Digest) Contents {
	var c Contents
	root := img.Desc
	root.Platform = nil
	root.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	c.Roots = []ocispec.Descriptor{root}
	for d, data := range img.Blobs {
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(data))}
		switch {
		case strings.Contains(string(data), `"layers"`), strings.Contains(string(data), `"manifests"`):
			desc.MediaType = ocispec.MediaTypeImageManifest
			c.Documents = append(c.Documents, desc)
		case len(without) > 0 && d == without[0]:
			c.Base = append(c.Base, desc)
		default:
			c.Blobs = append(c.Blobs, desc)
		}
	}
	return c
}

func from(img testimage.Content) Open {
	return func(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
		data, ok := img.Blobs[desc.Digest]
		if !ok {
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

func sample() testimage.Content {
	return testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "text")).Gzip(), testimage.Layer(testimage.File("b", "more")))
}

func openBytes(t testing.TB, data []byte) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	f, err := OpenFile(t.Context(), path, nil, "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// TestWrite pins the bytes of the format: an archive of one version of this program is verified to the byte by another.
func TestWrite(t *testing.T) {
	img := testimage.Image("linux/amd64", testimage.Layer(testimage.File("b", "more")))
	var b bytes.Buffer
	c := contentsOf(img, "1.0")
	for _, l := range [][]ocispec.Descriptor{c.Documents, c.Blobs} {
		slices.SortFunc(l, func(a, b ocispec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	}
	require.NoError(t, Write(t.Context(), &b, c, from(img)))
	size, err := Size(c)
	require.NoError(t, err)
	assert.Len(t, b.Bytes(), int(size))
	assert.Equal(t, golden, digest.FromBytes(b.Bytes()).String())
}

// golden is the archive of TestWrite.
const golden = "sha256:fb054bd3e40ae50886ada7bb12a55bbaecc6579d137b4a8ad9a801cace9c5048"

func TestVerify(t *testing.T) {
	img := sample()
	var b bytes.Buffer
	require.NoError(t, Write(t.Context(), &b, contentsOf(img, "1.0"), from(img)))
	a, err := Read(openBytes(t, b.Bytes()))
	require.NoError(t, err)
	require.NoError(t, a.Verify(t.Context()))
	for d, want := range img.Blobs {
		require.True(t, a.Has(d))
		rc, err := a.Open(t.Context(), ocispec.Descriptor{Digest: d})
		require.NoError(t, err)
		got, err := io.ReadAll(rc)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	_, err = a.Open(t.Context(), ocispec.Descriptor{Digest: digest.FromString("other")})
	require.ErrorIs(t, err, fs.ErrNotExist)

	t.Run("every bit", func(t *testing.T) {
		whole := b.Bytes()
		path := filepath.Join(t.TempDir(), "x.tar")
		require.NoError(t, os.WriteFile(path, whole, 0o600))
		f, err := OpenFile(t.Context(), path, nil, "")
		require.NoError(t, err)
		defer f.Close()
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		defer w.Close()
		share := 41 // of them: the others are as alike
		if testing.Short() {
			share = 331
		}
		for n := 0; n < len(whole)*8; n += share {
			at, bit := int64(n/8), n%8
			_, err := w.WriteAt([]byte{whole[at] ^ 1<<bit}, at)
			require.NoError(t, err)
			a, err := Read(f)
			if err == nil {
				err = a.Verify(t.Context())
			}
			require.Error(t, err, "bit %d of byte %d", bit, at)
			require.NotErrorIs(t, err, ErrForeign, "bit %d of byte %d: it would be read as an archive of another program", bit, at)
			_, err = w.WriteAt(whole[at:at+1], at)
			require.NoError(t, err)
		}
	})
	t.Run("G07 what is reached is not there", func(t *testing.T) {
		c := contentsOf(img, "1.0")
		c.Blobs = c.Blobs[1:]
		var b bytes.Buffer
		require.NoError(t, Write(t.Context(), &b, c, from(img)))
		a, err := Read(openBytes(t, b.Bytes()))
		require.NoError(t, err)
		require.ErrorIs(t, a.Verify(t.Context()), ErrIncomplete)
		lost := contentsOf(img, "1.0", c.Blobs[0].Digest)
		b.Reset()
		require.NoError(t, Write(t.Context(), &b, lost, from(img)))
		a, err = Read(openBytes(t, b.Bytes()))
		require.NoError(t, err)
		require.NoError(t, a.Verify(t.Context()), "of a base, it is for whoever loads it")
		r, err := a.Reach(t.Context(), a.Contents.Roots)
		require.NoError(t, err)
		assert.Equal(t, lost.Base[0].Digest, r.Base[0].Digest)
	})
}

func TestParseContents(t *testing.T) {
	img := sample()
	good := contentsOf(img, "1.0")
	raw, err := good.Encode()
	require.NoError(t, err)
	back, err := ParseContents(raw)
	require.NoError(t, err)
	again, err := back.Encode()
	require.NoError(t, err)
	assert.Equal(t, string(raw), string(again))
	assert.Len(t, back.Known(), len(img.Blobs))

	for what, bad := range map[string]string{
		"another version":   strings.Replace(string(raw), `"version":1`, `"version":2`, 1),
		"a digest":          strings.Replace(string(raw), "sha256:", "sha256:../", 1),
		"a negative size":   strings.Replace(string(raw), `"size":`, `"size":-`, 1),
		"no JSON":           string(raw[:len(raw)-1]),
		"two keys":          strings.Replace(string(raw), `"version":1`, `"version":1,"version":1`, 1),
		"a key of any case": strings.Replace(string(raw), `"version":1`, `"Version":1`, 1),
		"no document":       strings.Replace(string(raw), `"documents":[`, `"base":[`, 1),
		"twice":             strings.Replace(string(raw), `"blobs":[`, `"blobs":[`+strings.SplitAfter(strings.SplitN(string(raw), `"blobs":[`, 2)[1], "}")[0]+",", 1),
	} {
		t.Run(what, func(t *testing.T) {
			_, err := ParseContents([]byte(bad))
			require.ErrorIs(t, err, ErrInvalid)
		})
	}
}

func TestWriteFile(t *testing.T) {
	img := sample()
	c := contentsOf(img, "1.0")
	path := filepath.Join(t.TempDir(), "a.tar")
	t.Run("a source that fails leaves the partial file", func(t *testing.T) {
		_, err := WriteFile(t.Context(), path, c, 1, func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
			if desc.Digest == c.Blobs[len(c.Blobs)-1].Digest {
				return nil, errors.New("no")
			}
			return from(img)(ctx, desc)
		})
		require.Error(t, err)
		require.NoFileExists(t, path)
		require.FileExists(t, PartialName(path))
	})
	t.Run("is used again", func(t *testing.T) {
		w, err := WriteFile(t.Context(), path, c, 4, from(img))
		require.NoError(t, err)
		assert.Equal(t, c.Blobs[len(c.Blobs)-1].Size, w.Moved)
		assert.Positive(t, w.Kept)
		require.NoFileExists(t, PartialName(path))
	})
	t.Run("one at a time", func(t *testing.T) {
		f, err := openPartial(PartialName(path))
		require.NoError(t, err)
		_, err = WriteFile(t.Context(), path, c, 4, from(img))
		require.ErrorContains(t, err, "another process")
		require.NoError(t, f.Close())
	})
	t.Run("a link in its place", func(t *testing.T) {
		require.NoError(t, os.Remove(PartialName(path)))
		require.NoError(t, os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), PartialName(path)))
		_, err := WriteFile(t.Context(), path, c, 4, from(img))
		require.ErrorIs(t, err, ErrInvalid)
	})
}

// TestPlan_G12: members of more than 8 GiB, whose sizes no plain header holds, and long names.
func TestPlan_G12(t *testing.T) {
	long := digest.SHA512.FromString("x")
	c := Contents{Blobs: []ocispec.Descriptor{
		{MediaType: "layer", Digest: digest.FromString("big"), Size: 20 << 30},
		{MediaType: "layer", Digest: long, Size: 3},
	}}
	p, err := newPlan(c)
	require.NoError(t, err)
	assert.Greater(t, p.size, int64(20<<30))
	for _, m := range p.members {
		assert.Zero(t, m.at%block)
		assert.Zero(t, m.header%block)
	}
}

func FuzzParseContents(f *testing.F) {
	img := sample()
	raw, err := contentsOf(img, "1.0").Encode()
	require.NoError(f, err)
	f.Add(raw)
	f.Add([]byte(`{"version":1,"roots":[],"documents":[],"blobs":[]}`))
	f.Add([]byte(`{"version":1,"roots":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseContents(raw)
		if err != nil {
			return
		}
		out, err := c.Encode()
		require.NoError(t, err)
		back, err := ParseContents(out)
		require.NoError(t, err)
		again, err := back.Encode()
		require.NoError(t, err)
		require.Equal(t, out, again)
		_, err = newPlan(c)
		require.NoError(t, err)
	})
}

// FuzzBundle: an archive is anything. Whatever is accepted is, to the byte, what this program writes of its contents.
func FuzzBundle(f *testing.F) {
	img := sample()
	var b bytes.Buffer
	require.NoError(f, Write(context.Background(), &b, contentsOf(img, "1.0"), from(img)))
	f.Add(b.Bytes())
	f.Add(b.Bytes()[:3000])
	f.Add([]byte("x"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, fmt.Sprint(os.Getpid()))
		require.NoError(t, os.WriteFile(path, data, 0o600))
		file, err := OpenFile(t.Context(), path, nil, dir)
		if err != nil {
			return
		}
		defer file.Close()
		a, err := Read(file)
		if err != nil {
			return
		}
		if err := a.Verify(t.Context()); err != nil {
			return
		}
		var out bytes.Buffer
		require.NoError(t, Write(t.Context(), &out, a.Contents, a.Open))
		got, err := io.ReadAll(io.NewSectionReader(file, 0, file.size))
		require.NoError(t, err)
		require.Equal(t, got, out.Bytes())
	})
}

package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpenMakesAnOCILayout(t *testing.T) {
	s := fresh(t)
	data, err := os.ReadFile(s.path("oci-layout"))
	require.NoError(t, err)
	assert.JSONEq(t, `{"imageLayoutVersion":"1.0.0"}`, string(data))
	data, err = os.ReadFile(s.path("index.json"))
	require.NoError(t, err)
	assert.JSONEq(t, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, string(data))
	sound(t, s)
	assert.True(t, filepath.IsAbs(s.Root()))
}

func TestOpenReadOnlyNeedsAStore(t *testing.T) {
	root := filepath.Join(t.TempDir(), "none")
	_, err := Open(t.Context(), root, Options{ReadOnly: true})
	assert.ErrorIs(t, err, ErrNotFound)
	assert.NoDirExists(t, root)
	_, err = Open(t.Context(), t.TempDir(), Options{ReadOnly: true})
	assert.ErrorIs(t, err, ErrNotFound)
}

func TestPutRoundTrip(t *testing.T) {
	s := fresh(t)
	for name, size := range map[string]int{
		"empty": 0, "one": 1, "below a buffer": bufferSize - 1, "a buffer": bufferSize, "above": bufferSize + 1, "three": 3*bufferSize + 17,
	} {
		t.Run(name, func(t *testing.T) {
			data := random(uint64(size), size)
			desc, err := s.Put(t.Context(), "a/b", iotest.HalfReader(bytes.NewReader(data)))
			require.NoError(t, err)
			assert.Equal(t, ocispec.Descriptor{MediaType: "a/b", Digest: digest.FromBytes(data), Size: int64(size)}, desc)
			again, err := s.Put(t.Context(), "a/b", bytes.NewReader(data))
			require.NoError(t, err)
			assert.Equal(t, desc, again)

			got, err := get(t.Context(), s, desc)
			require.NoError(t, err)
			assert.True(t, got == string(data))
			var buf bytes.Buffer
			rc, err := s.Open(t.Context(), desc)
			require.NoError(t, err)
			_, err = io.Copy(&buf, rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			assert.True(t, bytes.Equal(buf.Bytes(), data))
			n, err := s.Stat(desc.Digest)
			require.NoError(t, err)
			assert.EqualValues(t, size, n)

			ra, err := s.OpenAt(desc.Digest)
			require.NoError(t, err)
			assert.EqualValues(t, size, ra.Size())
			all, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
			require.NoError(t, err)
			assert.True(t, bytes.Equal(all, data))
			require.NoError(t, ra.Close())
		})
	}
	assert.Empty(t, files(t, s.path(ingestDir)))
	sound(t, s)
}

func TestIngest(t *testing.T) {
	s := fresh(t)
	w, err := s.Ingest(t.Context())
	require.NoError(t, err)
	data := random(1, 5*bufferSize/2)
	_, err = io.Copy(w, iotest.OneByteReader(bytes.NewReader(data[:1000])))
	require.NoError(t, err)
	n, err := w.Write(data[1000:])
	require.NoError(t, err)
	assert.Equal(t, len(data)-1000, n)
	desc, err := w.Commit(t.Context(), "a/b")
	require.NoError(t, err)
	assert.Equal(t, digest.FromBytes(data), desc.Digest)
	w.Abort()
	assert.True(t, exists(s, desc.Digest))
	_, err = w.Write([]byte("x"))
	assert.ErrorIs(t, err, os.ErrClosed)
	_, err = w.Commit(t.Context(), "a/b")
	assert.ErrorIs(t, err, os.ErrClosed)

	w, err = s.Ingest(t.Context())
	require.NoError(t, err)
	_, err = w.Write([]byte("dropped"))
	require.NoError(t, err)
	w.Abort()
	w.Abort()
	assert.Empty(t, files(t, s.path(ingestDir)))
	assert.False(t, exists(s, digest.FromString("dropped")))
}

func TestPutExpected(t *testing.T) {
	sha512 := digest.SHA512.FromString("hello")
	for name, tc := range map[string]struct {
		digest  digest.Digest
		size    int64
		wantErr error
	}{
		"right":            {digest.FromString("hello"), 5, nil},
		"size unknown":     {digest.FromString("hello"), 0, nil},
		"sha512":           {sha512, 5, nil},
		"sha384":           {digest.SHA384.FromString("hello"), 5, nil},
		"wrong digest":     {digest.FromString("other"), 5, ErrCorrupt},
		"too short":        {digest.FromString("hello"), 6, ErrCorrupt},
		"too long":         {digest.FromString("hello"), 4, ErrCorrupt},
		"negative":         {digest.FromString("hello"), -1, ErrCorrupt},
		"path":             {"sha256:../../../../etc/passwd", 5, ErrInvalid},
		"upper case":       {digest.Digest(strings.ToUpper(string(digest.FromString("hello")))), 5, ErrInvalid},
		"unknown":          {"blake3:" + digest.Digest(digest.FromString("hello").Encoded()), 5, ErrInvalid},
		"none":             {"", 5, ErrInvalid},
		"algorithm only":   {"sha256:", 5, ErrInvalid},
		"short":            {"sha256:abcd", 5, ErrInvalid},
		"NUL":              {digest.FromString("hello")[:70] + "\x00", 5, ErrInvalid},
		"slash for a hex ": {"sha256/" + digest.Digest(digest.FromString("hello").Encoded()), 5, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			err := s.PutExpected(t.Context(), ocispec.Descriptor{Digest: tc.digest, Size: tc.size}, strings.NewReader("hello"))
			require.ErrorIs(t, err, tc.wantErr)
			if err == nil {
				got, err := get(t.Context(), s, ocispec.Descriptor{Digest: tc.digest, Size: tc.size})
				require.NoError(t, err)
				assert.Equal(t, "hello", got)
				sound(t, s)
				return
			}
			assert.Empty(t, files(t, s.path(blobsDir)))
			assert.Empty(t, files(t, s.path(ingestDir)))
		})
	}
}

func TestPutExpectedReadsOneByteMoreAtMost(t *testing.T) {
	s := fresh(t)
	r := io.LimitReader(&endless{}, 1<<40)
	err := s.PutExpected(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 100}, r)
	assert.ErrorIs(t, err, ErrCorrupt)
	assert.EqualValues(t, 1<<40-101, r.(*io.LimitedReader).N)
}

func TestPutFailingReader(t *testing.T) {
	s := fresh(t)
	boom := errors.New("boom")
	_, err := s.Put(t.Context(), "a/b", io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(boom)))
	assert.ErrorIs(t, err, boom)
	assert.Empty(t, files(t, s.path(ingestDir)))
	assert.Empty(t, files(t, s.path(blobsDir)))
}

func TestInvalidDigestsTouchNothing(t *testing.T) {
	s := fresh(t)
	for _, d := range []digest.Digest{"", "sha256:../../refs/x", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:", "../x:y"} {
		assert.Empty(t, s.Path(d))
		_, err := s.Stat(d)
		assert.ErrorIs(t, err, ErrInvalid)
		_, err = s.Open(t.Context(), ocispec.Descriptor{Digest: d})
		assert.ErrorIs(t, err, ErrInvalid)
		_, err = s.OpenAt(d)
		assert.ErrorIs(t, err, ErrInvalid)
		assert.ErrorIs(t, s.SetRef(t.Context(), "x", ocispec.Descriptor{Digest: d}), ErrInvalid)
		assert.ErrorIs(t, s.PutRecord("cache", "k", Record{Blobs: []digest.Digest{d}}), ErrInvalid)
	}
}

func TestAbsent(t *testing.T) {
	s := fresh(t)
	d := digest.FromString("nobody put this")
	_, err := s.Stat(d)
	assert.ErrorIs(t, err, ErrNotFound)
	_, err = s.Open(t.Context(), ocispec.Descriptor{Digest: d})
	assert.ErrorIs(t, err, ErrNotFound)
	_, err = s.OpenAt(d)
	assert.ErrorIs(t, err, ErrNotFound)
	_, err = s.GetRef("x")
	assert.ErrorIs(t, err, ErrNotFound)
	assert.ErrorIs(t, s.DeleteRef(t.Context(), "x"), ErrNotFound)
	assert.ErrorIs(t, s.SetRef(t.Context(), "x", ocispec.Descriptor{Digest: d}), ErrNotFound)
	_, err = s.GetRecord("cache", "x")
	assert.ErrorIs(t, err, ErrNotFound)
	sound(t, s)
}

func TestReadAllHasALimit(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "0123456789")
	data, err := s.ReadAll(t.Context(), d, 10)
	require.NoError(t, err)
	assert.Equal(t, "0123456789", string(data))
	_, err = s.ReadAll(t.Context(), d, 9)
	assert.ErrorIs(t, err, ErrInvalid)
}

// Who knows the length and stops reading there sees the verdict too.
func TestVerdictComesWithTheLastBytes(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "0123456789")
	damage(t, s.Path(d.Digest), func(b []byte) []byte { b[3] ^= 1; return b })
	rc, err := s.Open(t.Context(), d)
	require.NoError(t, err)
	defer rc.Close()
	buf := make([]byte, 10)
	n, err := rc.Read(buf)
	assert.Equal(t, 10, n)
	assert.ErrorIs(t, err, ErrCorrupt)
}

func TestReadOnlyReads(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "hello")
	require.NoError(t, s.SetRef(t.Context(), "hello:1.0", d))
	require.NoError(t, s.PutRecord("cache", "k", Record{Data: []byte("x"), Blobs: []digest.Digest{d.Digest}}))

	r, err := Open(t.Context(), s.Root(), Options{ReadOnly: true})
	require.NoError(t, err)
	got, err := r.GetRef("hello:1.0")
	require.NoError(t, err)
	content, err := get(t.Context(), r, got)
	require.NoError(t, err)
	assert.Equal(t, "hello", content)
	_, err = r.Stat(d.Digest)
	require.NoError(t, err)
	_, err = r.GetRecord("cache", "k")
	require.NoError(t, err)
	sound(t, r)

	ctx := t.Context()
	_, err = r.Put(ctx, "", strings.NewReader("x"))
	assert.ErrorIs(t, err, errors.ErrUnsupported)
	assert.ErrorIs(t, r.SetRef(ctx, "x", d), errors.ErrUnsupported)
	assert.ErrorIs(t, r.DeleteRef(ctx, "x"), errors.ErrUnsupported)
	assert.ErrorIs(t, r.PutRecord("cache", "k", Record{}), errors.ErrUnsupported)
	assert.ErrorIs(t, r.Sync(ctx), errors.ErrUnsupported)
	_, err = r.GC(ctx, GCOptions{})
	assert.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = r.Check(ctx, CheckOptions{Repair: true})
	assert.ErrorIs(t, err, errors.ErrUnsupported)
	require.NoError(t, r.Close())
}

func TestClosedStore(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "hello")
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	assert.Empty(t, files(t, s.path(leasesDir)))
	_, err := s.Put(t.Context(), "", strings.NewReader("x"))
	assert.ErrorIs(t, err, os.ErrClosed)
	assert.ErrorIs(t, s.SetRef(t.Context(), "x", d), os.ErrClosed)
	assert.Empty(t, files(t, s.path(ingestDir)))
}

// One store, many goroutines: everything is there and whole in the end.
func TestConcurrentUse(t *testing.T) {
	s := fresh(t)
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			ctx := t.Context()
			for i := range 12 {
				desc, err := s.Put(ctx, "a/b", bytes.NewReader(random(uint64(i), 3000+i))) // the same for all
				if !assert.NoError(t, err) {
					return
				}
				name := "n" + string(rune('a'+g)) + ":" + string(rune('a'+i))
				assert.NoError(t, s.PutRecord("cache", name, Record{Data: []byte(name), Blobs: []digest.Digest{desc.Digest}}))
				if i%4 == 0 {
					assert.NoError(t, s.SetRef(ctx, name, desc))
				}
				_, err = get(ctx, s, desc)
				assert.NoError(t, err)
				_, err = s.GetRecord("cache", name)
				assert.NoError(t, err)
				if g == 0 && i%3 == 0 {
					_, err := s.GC(ctx, GCOptions{})
					assert.NoError(t, err)
				}
			}
		})
	}
	wg.Wait()
	refs, err := s.Refs()
	require.NoError(t, err)
	assert.Len(t, refs, 16*3)
	assert.Len(t, files(t, s.path(blobsDir)), 12)
	sound(t, s)
}

// Memory does not grow with what is put or read.
func TestD20_StreamsInBoundedMemory(t *testing.T) {
	s := fresh(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	desc, err := s.Put(t.Context(), "a/b", io.LimitReader(zeros{}, 128<<20))
	require.NoError(t, err)
	rc, err := s.Open(t.Context(), desc)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16<<20))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestD19_CancelLeavesNothing(t *testing.T) {
	s := fresh(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	n := 0
	_, err := s.Put(ctx, "a/b", readerFunc(func(p []byte) (int, error) {
		if n++; n == 5 {
			cancel(why)
		}
		return copy(p, random(uint64(n), len(p))), nil
	}))
	assert.ErrorIs(t, err, why)
	assert.Empty(t, files(t, s.path(ingestDir)))
	assert.Empty(t, files(t, s.path(blobsDir)))
	_, err = s.Put(ctx, "a/b", strings.NewReader("x"))
	assert.ErrorIs(t, err, why)
	d := put(t, s, "hello")
	assert.ErrorIs(t, s.SetRef(ctx, "x", d), why)
	_, err = s.GC(ctx, GCOptions{})
	assert.ErrorIs(t, err, why)
	_, err = s.Check(ctx, CheckOptions{ReadData: true})
	assert.ErrorIs(t, err, why)
	sound(t, s)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestSameAgain: what is there already makes no file that would have to be removed.
func TestSameAgain(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	big := bytes.Repeat([]byte("large"), bufferSize)
	for _, data := range [][]byte{nil, []byte("small"), big} {
		first, err := s.PutBytes(t.Context(), "x", data)
		require.NoError(t, err)
		assert.EqualValues(t, len(data), first.Size)
		w, err := s.Ingest(t.Context())
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
		if len(data) <= bufferSize {
			assert.Empty(t, files(t, s.path(ingestDir)), "nothing is written")
		}
		again, err := w.Commit(t.Context(), "x")
		require.NoError(t, err)
		assert.Equal(t, first, again)
		_, err = w.Write([]byte("more"))
		require.ErrorIs(t, err, fs.ErrClosed)
	}
	rec := Record{Data: []byte("same")}
	require.NoError(t, s.PutRecord("toc", "key", rec))
	path, err := s.recordPath("toc", "key")
	require.NoError(t, err)
	before, err := os.Stat(path)
	require.NoError(t, err)
	require.NoError(t, s.PutRecord("toc", "key", rec))
	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "a record that is there stays")
	require.NoError(t, s.PutRecord("toc", "key", Record{Data: []byte("other")}))
	got, err := s.GetRecord("toc", "key")
	require.NoError(t, err)
	assert.Equal(t, "other", string(got.Data))
}

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

// cutAfter answers a GET with n bytes of the rest and resets the connection.
func cutAfter(b []byte, n int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		start := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &start); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(b)-1, len(b)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(b)-start))
		if start > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(b[start:min(start+n, len(b))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func TestBlob_C13_resumes(t *testing.T) {
	desc, b := randomBlob(t, 20<<10)
	for offset := 0; offset <= len(b); offset += 4 << 10 {
		t.Run(fmt.Sprintf("cut at %d", offset), func(t *testing.T) {
			f := newFake(t)
			f.put("app", b)
			f.when("GET", "/blobs/", 1, cutAfter(b, offset))
			got, err := pull(t, client(registry.Options{}), f.host+"/app:1", desc)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(b, got))
			reqs := f.requests()
			switch {
			case offset == len(b): // all was there
				assert.Len(t, reqs, 1)
			case offset == 0:
				assert.Len(t, reqs, 2)
			default:
				require.Len(t, reqs, 2)
				assert.Equal(t, fmt.Sprintf("bytes=%d-", offset), reqs[1].rangeHeader, "only the rest is asked for")
			}
		})
	}
	t.Run("many cuts with progress", func(t *testing.T) {
		desc, b := randomBlob(t, 4<<20)
		f := newFake(t)
		f.when("GET", "/blobs/", 0, cutAfter(b, 300<<10))
		got, err := pull(t, client(registry.Options{}), f.host+"/app:1", desc)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(b, got))
	})
	t.Run("without progress it ends", func(t *testing.T) {
		f := newFake(t)
		f.when("GET", "/blobs/", 0, cutAfter(b, 10))
		_, err := pull(t, client(registry.Options{}), f.host+"/app:1", desc)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "cut 5 times")
		assert.Contains(t, err.Error(), desc.Digest.String())
		assert.LessOrEqual(t, f.count("GET", "/blobs/"), 6)
	})
}

// TestBlob_C14_C15_C16 holds answers that must not be spliced or believed.
func TestBlob_C14_C15_C16_wrongAnswers(t *testing.T) {
	desc, b := randomBlob(t, 10<<10)
	other := append([]byte(nil), b...)
	other[9000] ^= 1
	whole := func(w http.ResponseWriter, body []byte, headers ...string) bool {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = w.Write(body)
		return true
	}
	type answer = func(w http.ResponseWriter, r *http.Request) bool
	for name, tc := range map[string]struct {
		first, second answer
		desc          ocispec.Descriptor
		corrupt       bool
	}{
		"C14 Range ignored": {cutAfter(b, 5000), func(w http.ResponseWriter, _ *http.Request) bool { return whole(w, b) }, desc, false},
		"C14 Range ignored, and cut again": {cutAfter(b, 5000), func(w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return cutAfter(b, 2000)(w, r)
		}, desc, false},
		"C14 other content after the cut": {cutAfter(b, 5000), func(w http.ResponseWriter, _ *http.Request) bool { return whole(w, other) }, desc, true},
		"C14 other range than asked": {cutAfter(b, 5000), func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 4000-10239/10240")
			w.WriteHeader(206)
			return whole(w, b[4000:])
		}, desc, true},
		"C14 no Content-Range": {cutAfter(b, 5000), func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(206); return whole(w, b[5000:]) }, desc, true},
		"C14 other total": {cutAfter(b, 5000), func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Range", "bytes 5000-10239/99999")
			w.WriteHeader(206)
			return whole(w, b[5000:])
		}, desc, true},
		"C14 416":         {cutAfter(b, 5000), func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(416); return true }, desc, true},
		"B01 wrong bytes": {func(w http.ResponseWriter, _ *http.Request) bool { return whole(w, other) }, nil, desc, true},
		"C15 short without length": {func(w http.ResponseWriter, _ *http.Request) bool {
			_ = http.NewResponseController(w).Flush() // chunked
			return whole(w, b[:9999])
		}, nil, desc, false}, // taken up again
		"C15 longer than its descriptor": {func(w http.ResponseWriter, _ *http.Request) bool {
			_ = http.NewResponseController(w).Flush()
			return whole(w, append(append([]byte(nil), b...), 'x'))
		}, nil, desc, true},
		"C16 other Content-Length":        {func(w http.ResponseWriter, _ *http.Request) bool { return whole(w, b[:5000], "Content-Length", "5000") }, nil, desc, true},
		"C16 Content-Encoding":            {func(w http.ResponseWriter, _ *http.Request) bool { return whole(w, b, "Content-Encoding", "gzip") }, nil, desc, true},
		"no size in the descriptor":       {nil, nil, ocispec.Descriptor{Digest: desc.Digest}, false},
		"no size, and cut":                {cutAfter(b, 5000), nil, ocispec.Descriptor{Digest: desc.Digest}, false},
		"no size, and wrong bytes":        {func(w http.ResponseWriter, _ *http.Request) bool { return whole(w, other) }, nil, ocispec.Descriptor{Digest: desc.Digest}, true},
		"descriptor of another size":      {nil, nil, ocispec.Descriptor{Digest: desc.Digest, Size: desc.Size + 1}, true},
		"an unavailable range at the end": {cutAfter(b, len(b)), func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(416); return true }, desc, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.put("app", b)
			if tc.first != nil {
				f.when("GET", "/blobs/", 1, tc.first)
			}
			if tc.second != nil {
				f.when("GET", "/blobs/", 2, tc.second)
			}
			got, err := pull(t, client(registry.Options{}), f.host+"/app:1", tc.desc)
			if !tc.corrupt {
				require.NoError(t, err)
				assert.True(t, bytes.Equal(b, got))
				return
			}
			require.ErrorIs(t, err, registry.ErrCorrupt)
			assert.Contains(t, err.Error(), desc.Digest.String())
			assert.Contains(t, err.Error(), f.host)
		})
	}
}

func TestBlob_verifiedAtItsSize(t *testing.T) {
	desc, b := randomBlob(t, 1000)
	f := newFake(t)
	f.when("GET", "/blobs/", 0, func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = w.Write(bytes.Repeat([]byte{1}, len(b)))
		return true
	})
	rc, err := client(registry.Options{}).Blob(t.Context(), mustParse(t, f.host+"/app:1"), desc)
	require.NoError(t, err)
	defer rc.Close()
	// A reader that stops at the size, before EOF.
	_, err = io.ReadFull(rc, make([]byte, desc.Size+1))
	require.ErrorIs(t, err, registry.ErrCorrupt)
}

func TestBlob_C17_silence(t *testing.T) {
	desc, b := randomBlob(t, 10<<10)
	f := newFake(t)
	f.put("app", b)
	stop := make(chan struct{})
	defer close(stop)
	f.when("GET", "/blobs/", 1, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b[:4000])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-stop:
		case <-r.Context().Done():
		}
		return true
	})
	f.when("HEAD", "/manifests/", 0, func(_ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
		return true
	})
	c := client(registry.Options{})
	c.SetTimeouts(300*time.Millisecond, 30*time.Second, time.Second) // a busy machine is no silence
	got, err := pull(t, c, f.host+"/app:1", desc)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(b, got), "taken up again after silence")

	// A reader that takes its time is not the registry's silence.
	rc, err := c.Blob(t.Context(), mustParse(t, f.host+"/app:1"), desc)
	require.NoError(t, err)
	time.Sleep(400 * time.Millisecond)
	_, err = io.Copy(io.Discard, rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())

	c = client(registry.Options{})
	c.SetTimeouts(time.Second, 50*time.Millisecond, time.Second)
	_, err = c.Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
	require.Error(t, err, "no header ever")
	assert.Contains(t, err.Error(), "too long")
}

func TestBlob_canceled(t *testing.T) {
	desc, b := randomBlob(t, 1<<20)
	f := newFake(t)
	f.when("GET", "/blobs/", 0, cutAfter(b, 1000))
	ctx, cancel := context.WithCancelCause(t.Context())
	rc, err := client(registry.Options{}).Blob(ctx, mustParse(t, f.host+"/app:1"), desc)
	require.NoError(t, err)
	defer rc.Close()
	why := errors.New("because")
	cancel(why)
	_, err = io.Copy(io.Discard, rc)
	require.ErrorIs(t, err, why)
	assert.LessOrEqual(t, f.count("", ""), 2)
}

func TestBlob_closedEarly(t *testing.T) {
	desc, b := randomBlob(t, 1<<20)
	f := newFake(t)
	f.put("app", b)
	rc, err := client(registry.Options{}).Blob(t.Context(), mustParse(t, f.host+"/app:1"), desc)
	require.NoError(t, err)
	_, err = io.ReadFull(rc, make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	require.NoError(t, rc.Close())
	_, err = rc.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, io.EOF)
}

// TestMemory_D20 holds that neither way keeps a blob in memory.
func TestMemory_D20_flat(t *testing.T) {
	const size = 64 << 20
	zeros := func() io.Reader { return io.LimitReader(zero{}, size) }
	d, err := digest.FromReader(zeros())
	require.NoError(t, err)
	desc := ocispec.Descriptor{Digest: d, Size: size}
	f := newFake(t)
	f.when("GET", "/blobs/", 0, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = io.Copy(w, zeros())
		return true
	})
	f.when("PUT", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
		return true
	})
	c := client(registry.Options{})
	r := mustParse(t, f.host+"/app:1")
	_, err = c.Resolve(t.Context(), r) // connections and pools are there
	require.Error(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	rc, err := c.Blob(t.Context(), r, desc)
	require.NoError(t, err)
	n, err := io.Copy(io.Discard, rc)
	require.NoError(t, err)
	assert.Equal(t, int64(size), n)
	require.NoError(t, rc.Close())
	_, err = c.PushBlob(t.Context(), r, desc, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(zeros()), nil }, nil)
	require.NoError(t, err)
	runtime.ReadMemStats(&after)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20), "bytes allocated in all, for 128 MiB moved")
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

package registry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// asideFile is a file that is sent aside, and counts how often somebody reads it or asks for that.
type asideFile struct {
	*os.File
	check       func(n int64) error
	reads, asks *atomic.Int64
}

func (a asideFile) Read(p []byte) (int, error) {
	a.reads.Add(1)
	return a.File.Read(p)
}

func (a asideFile) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{a}) }

func (a asideFile) Aside() (*os.File, func(int64) error) {
	a.asks.Add(1)
	return a.File, a.check
}

// asideOf is a blob in a file. check is given how many bytes it has seen and how many there are.
func asideOf(t *testing.T, b []byte, check func(seen, size int64) error) (_ registry.Open, path string, reads, asks *atomic.Int64) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "blob")
	require.NoError(t, os.WriteFile(path, b, 0o600))
	reads, asks = new(atomic.Int64), new(atomic.Int64)
	return func(context.Context) (io.ReadCloser, error) {
		f, err := os.Open(path)
		seen := int64(0)
		return asideFile{f, func(n int64) error {
			seen += n
			return check(seen, int64(len(b)))
		}, reads, asks}, err
	}, path, reads, asks
}

func believe(_, _ int64) error { return nil }

func TestPushBlob_aside(t *testing.T) {
	for name, tc := range map[string]struct {
		size  int
		aside bool
	}{
		"a small one is read":           {256<<10 - 1, false},
		"the least":                     {256 << 10, true},
		"one window":                    {4 << 20, true},
		"a byte more than a window":     {4<<20 + 1, true},
		"what is held back more":        {4<<20 + 32<<10, true},
		"some windows and something":    {13<<20 + 7, true},
		"as many windows as may wait":   {8 << 20, true},
		"a piece and a byte for pieces": {256<<10 + 64<<10 + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c := client(registry.Options{})
			desc, b := randomBlob(t, tc.size)
			var seen atomic.Int64
			open, _, reads, asks := asideOf(t, b, func(n, _ int64) error { seen.Store(n); return nil })
			up, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, open, nil)
			require.NoError(t, err)
			assert.True(t, up)
			assert.True(t, f.holds("app", b))
			if tc.aside {
				assert.Zero(t, reads.Load(), "the bytes went past us")
				assert.Equal(t, desc.Size, seen.Load(), "and all of them were checked")
			} else {
				assert.Zero(t, asks.Load())
			}
		})
	}
}

var errWrongFile = errors.New("it is something else")

// TestPushBlob_D11_asideVerdict: what is not the blob does not arrive whole, so no registry can have it, whatever it checks.
func TestPushBlob_D11_asideVerdict(t *testing.T) {
	for _, size := range []int{256 << 10, 5 << 20} {
		f := newFake(t)
		c := client(registry.Options{})
		desc, b := randomBlob(t, size)
		open, _, _, _ := asideOf(t, b, func(seen, size int64) error {
			if seen == size {
				return errWrongFile
			}
			return nil
		})
		_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, open, nil)
		require.Error(t, err)
		assert.ErrorContains(t, err, errWrongFile.Error())
		assert.False(t, f.holds("app", b))
		for _, put := range f.Of("PUT", testregistry.Uploads) {
			assert.Less(t, put.Received, desc.Size)
		}
		assert.LessOrEqual(t, f.count("PUT", testregistry.Uploads), 1, "it would be no other the next time")
	}
}

func TestPushBlob_asideCutFile(t *testing.T) {
	f := newFake(t)
	c := client(registry.Options{})
	desc, b := randomBlob(t, 1<<20)
	open, path, _, _ := asideOf(t, b, believe)
	cut := func(ctx context.Context) (io.ReadCloser, error) {
		rc, err := open(ctx)
		return rc, errors.Join(err, os.Truncate(path, 300<<10))
	}
	_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, cut, nil)
	require.Error(t, err)
	assert.ErrorContains(t, err, "was cut while it was sent")
	assert.LessOrEqual(t, f.count("PUT", testregistry.Uploads), 1)
}

// TestPushBlob_C18_aside: what a registry did not take is read and sent in pieces.
func TestPushBlob_C18_aside(t *testing.T) {
	for name, rules := range map[string]func(f *fake){
		"cut": func(f *fake) { f.When("PUT", testregistry.Uploads, 1, testregistry.CutUpload(300<<10)) },
		"cut at once": func(f *fake) {
			f.when("PUT", testregistry.Uploads, 1, reset)
		},
		"answered before its end": func(f *fake) {
			f.when("PUT", testregistry.Uploads, 0, func(w http.ResponseWriter, r *http.Request) bool {
				return r.ContentLength > 1<<20 && status(413, "")(w, r)
			})
		},
		"an outage": func(f *fake) { f.when("PUT", testregistry.Uploads, 1, status(502, "")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			rules(f)
			c := client(registry.Options{ChunkSize: 1 << 20})
			desc, b := randomBlob(t, 5<<20)
			open, _, _, _ := asideOf(t, b, believe)
			_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, open, nil)
			require.NoError(t, err)
			assert.True(t, f.holds("app", b))
			assert.Equal(t, 1, f.count("POST", testregistry.Uploads), "the session went on")
		})
	}
}

// TestPushBlob_C04_aside: a token that ends while a blob is sent is asked for anew, and the blob sent again.
func TestPushBlob_C04_aside(t *testing.T) {
	f := newFake(t)
	g := newGuard(f, "http")
	c := client(registry.Options{})
	desc, b := randomBlob(t, 5<<20)
	open, _, _, _ := asideOf(t, b, believe)
	var once sync.Once
	_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, func(ctx context.Context) (io.ReadCloser, error) {
		once.Do(g.revokeAll) // between the POST and the PUT
		return open(ctx)
	}, nil)
	require.NoError(t, err)
	assert.True(t, f.holds("app", b))
}

func TestPushBlob_asideNotUnderTLS(t *testing.T) {
	f := newTLSFake(t)
	c := client(registry.Options{Insecure: everywhere})
	desc, b := randomBlob(t, 1<<20)
	open, _, reads, asks := asideOf(t, b, believe)
	_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, open, nil)
	require.NoError(t, err)
	assert.True(t, f.holds("app", b))
	assert.Zero(t, asks.Load())
	assert.NotZero(t, reads.Load())
}

var _ registry.Aside = asideFile{}

// TestPushBlob_asideProgress: what is displayed does not depend on who reads.
func TestPushBlob_asideProgress(t *testing.T) {
	f := newFake(t)
	var e events
	c := client(registry.Options{Events: e.sink})
	desc, b := randomBlob(t, 5<<20)
	open, _, _, _ := asideOf(t, b, believe)
	_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, open, nil)
	require.NoError(t, err)
	e.mu.Lock()
	defer e.mu.Unlock()
	require.NotEmpty(t, e.list)
	assert.Equal(t, desc.Size, e.list[len(e.list)-1].Current)
	assert.Greater(t, len(e.list), 5)
}

package registry_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

const (
	sweepSize = 5 << 20
	sweepStep = 64 << 10
)

// span is a part of a blob that was on the wire.
type span struct{ from, n int64 }

// exactlyOnce holds that spans cover a blob of size bytes without a gap, and no byte of it twice.
func exactlyOnce(t *testing.T, size int64, spans []span) {
	t.Helper()
	at := int64(0)
	for _, s := range spans {
		if s.n == 0 {
			continue
		}
		require.Equal(t, at, s.from, "no byte before the cut moves again, and none is left out: %v", spans)
		at += s.n
	}
	require.Equal(t, size, at, "%v", spans)
}

// TestBlob_C13_sweep cuts a download at every 64 KiB of 5 MiB.
func TestBlob_C13_sweep(t *testing.T) {
	desc, b := randomBlob(t, sweepSize)
	for cut := int64(0); cut <= sweepSize; cut += sweepStep {
		f := newFake(t)
		f.put("app", b)
		f.When("GET", testregistry.Blobs, 1, testregistry.Cut(cut))
		got, err := pull(t, client(registry.Options{}), f.host+"/app:1", desc)
		require.NoError(t, err, "cut at %d", cut)
		require.True(t, bytes.Equal(b, got), "cut at %d", cut)
		var spans []span
		f.Settled(t)
		for _, r := range f.Of("GET", testregistry.Blobs) {
			spans = append(spans, span{r.SentFrom, r.Sent})
		}
		exactlyOnce(t, sweepSize, spans)
	}
}

// TestPushBlob_C18_sweep cuts an upload at every 64 KiB of 5 MiB: the first request, and then a piece as well.
func TestPushBlob_C18_sweep(t *testing.T) {
	desc, b := randomBlob(t, sweepSize)
	for cut := int64(0); cut <= sweepSize; cut += sweepStep {
		f := newFake(t)
		f.When("PUT", testregistry.Uploads, 1, testregistry.CutUpload(cut))
		f.When("PATCH", testregistry.Uploads, 1, testregistry.CutUpload(min(cut, 100_000)))
		up, err := client(registry.Options{ChunkSize: 1 << 20}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.NoError(t, err, "cut at %d", cut)
		require.True(t, up)
		require.True(t, f.holds("app", b), "cut at %d", cut)
		var spans []span
		f.Settled(t)
		for _, r := range f.Of("", testregistry.Uploads) {
			if r.Method == "PUT" || r.Method == "PATCH" {
				spans = append(spans, span{r.ReceivedFrom, r.Received})
			}
		}
		exactlyOnce(t, sweepSize, spans)
		require.Equal(t, 1, f.Count("POST", testregistry.Uploads), "one session does")
	}
}

// TestPushBlob_C18_sweepWithoutParts is the same against a registry that drops what came of a request that was cut.
func TestPushBlob_C18_sweepWithoutParts(t *testing.T) {
	desc, b := randomBlob(t, 1<<20)
	for cut := int64(0); cut <= desc.Size; cut += sweepStep {
		f := fakeOf(testregistry.New(t, testregistry.Options{DropCut: true}))
		f.When("PUT", testregistry.Uploads, 1, testregistry.CutUpload(cut))
		f.When("PATCH", testregistry.Uploads, 2, testregistry.CutUpload(cut/2))
		_, err := client(registry.Options{ChunkSize: 256 << 10}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.NoError(t, err, "cut at %d", cut)
		require.True(t, f.holds("app", b), "cut at %d", cut)
	}
}

// TestSweep_rawConnections resets real sockets, whatever is in flight then.
func TestSweep_rawConnections(t *testing.T) {
	desc, b := randomBlob(t, 1<<20)
	step := int64(97 << 10)
	if testing.Short() {
		step *= 3
	}
	for cut := int64(1); cut <= desc.Size+4096; cut += step {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			f := newFake(t)
			p := &testregistry.Proxy{}
			p.CutAt(cut, cut/2)
			host := p.Start(t, f.host)
			c := client(registry.Options{ChunkSize: 128 << 10})
			_, err := c.PushBlob(t.Context(), mustParse(t, host+"/app:1"), desc, opener(b), nil)
			require.NoError(t, err)
			require.True(t, f.holds("app", b))
			c.Close()
			p.CutAt(cut)
			got, err := pull(t, client(registry.Options{}), host+"/app:1", desc)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(b, got))
			assert.NotZero(t, p.Cuts())
		})
	}
}

// TestManifest_cutEverywhere cuts a manifest at every byte.
func TestManifest_cutEverywhere(t *testing.T) {
	raw := imageManifest("x")
	for cut := range len(raw) {
		f := newFake(t)
		d := f.putManifest("app", "1", "application/vnd.oci.image.manifest.v1+json", raw)
		f.When("GET", testregistry.Manifests, 1, testregistry.Cut(int64(cut)))
		desc, got, err := client(registry.Options{}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
		require.NoError(t, err, "cut at %d", cut)
		require.Equal(t, d, desc.Digest)
		require.Equal(t, raw, got)
	}
}

package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

// reopened drops this process's leases.
func reopened(t *testing.T, s *Store) *Store {
	t.Helper()
	require.NoError(t, s.Close())
	return open(t, s.Root())
}

func TestGCKeepsWhatRefsReach(t *testing.T) {
	s := fresh(t)
	amd := testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "1")).Gzip())
	docker := testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/arm64", testimage.Layer(testimage.File("a", "2")).Gzip())
	list := testimage.IndexWith(testimage.IndexOptions{Docker: true}, docker)
	subject := amd.Desc
	referrer := testimage.ImageWith(testimage.ImageOptions{Subject: &subject}, "linux/amd64", testimage.Layer(testimage.File("sbom", "x")))
	absent := testimage.Image("linux/s390x", testimage.Layer(testimage.File("a", "3")))
	sparse := testimage.Index(amd, absent)
	for d := range absent.Blobs {
		delete(sparse.Blobs, d)
	}
	testimage.WriteStore(t, s, "nested", testimage.Index(testimage.Index(list)))
	testimage.WriteStore(t, s, "sparse", sparse)
	testimage.WriteStore(t, s, "referrer", referrer)
	testimage.WriteStore(t, s, "", testimage.Image("linux/386", testimage.Layer(testimage.File("garbage", "x"))))
	s = reopened(t, s)

	before := len(files(t, s.path(blobsDir)))
	dry, err := s.GC(t.Context(), GCOptions{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, 3, dry.Blobs)
	assert.Positive(t, dry.Bytes)
	assert.Len(t, files(t, s.path(blobsDir)), before)
	r, err := s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, dry, r)
	assert.Len(t, files(t, s.path(blobsDir)), before-3)
	sound(t, s)

	require.NoError(t, s.DeleteRef(t.Context(), "sparse"))
	r, err = s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Blobs, "the index; amd64 is the referrer's subject")
	require.NoError(t, s.DeleteRef(t.Context(), "referrer"))
	require.NoError(t, s.DeleteRef(t.Context(), "nested"))
	_, err = s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Empty(t, files(t, s.path(blobsDir)))
}

func TestGCKeepsLeases(t *testing.T) {
	s := fresh(t)
	layer := put(t, s, "layer")
	m := manifestOf(t, s, layer)
	loose := put(t, s, "loose")
	other := open(t, s.Root())
	r, err := other.GC(t.Context(), GCOptions{Cache: true})
	require.NoError(t, err)
	assert.Zero(t, r, "another Store's leases hold")

	s = reopened(t, s)
	_, err = s.Stat(m.Digest)
	require.NoError(t, err)
	r, err = other.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Blobs, "a lease on a manifest holds its layer and config")
	assert.False(t, exists(s, loose.Digest))
	assert.True(t, exists(s, layer.Digest))
	reopened(t, s)
	r, err = other.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, 3, r.Blobs)
}

func TestGCOfRecords(t *testing.T) {
	s := fresh(t)
	a, b := put(t, s, "a"), put(t, s, "b")
	require.NoError(t, s.PutRecord("cache", "a", Record{Blobs: []digest.Digest{a.Digest}}))
	require.NoError(t, s.PutRecord("toc", "both", Record{Blobs: []digest.Digest{a.Digest, b.Digest}}))
	require.NoError(t, os.MkdirAll(s.path(snapshotsDir, "x/fs/deep"), 0o700))
	require.NoError(t, os.WriteFile(s.path(snapshotsDir, "x/fs/file"), []byte("12345"), 0o600))
	require.NoError(t, os.Chmod(s.path(snapshotsDir, "x/fs/deep"), 0))
	s = reopened(t, s)
	r, err := s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Zero(t, r, "the step cache stays")

	require.NoError(t, os.Remove(s.Path(b.Digest)))
	r, err = s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Records, "a record whose blobs are gone is of no use")
	assert.Zero(t, r.Blobs)

	leased, err := s.GetRecord("cache", "a")
	require.NoError(t, err)
	assert.Equal(t, []digest.Digest{a.Digest}, leased.Blobs)
	dry, err := s.GC(t.Context(), GCOptions{Cache: true, DryRun: true})
	require.NoError(t, err)
	assert.DirExists(t, s.path(snapshotsDir, "x"))
	r, err = s.GC(t.Context(), GCOptions{Cache: true})
	require.NoError(t, err)
	assert.Equal(t, dry, r)
	assert.Equal(t, 1, r.Records)
	assert.Equal(t, 1, r.Snapshots)
	assert.Zero(t, r.Blobs, "a record that was read leases its blobs")
	assert.Empty(t, files(t, s.path(snapshotsDir)))
	assert.NoDirExists(t, s.path(snapshotsDir, "x"))
	r, err = reopened(t, s).GC(t.Context(), GCOptions{Cache: true})
	require.NoError(t, err)
	assert.Equal(t, GCReport{Blobs: 1, Bytes: 1}, r)
}

func TestGCLeavesSnapshotsInUse(t *testing.T) {
	s := fresh(t)
	user := open(t, s.Root())
	require.NoError(t, os.Mkdir(user.SnapshotDir()+"/x", 0o700))
	require.NoError(t, os.Mkdir(user.SnapshotDir()+"/"+SpoolPrefix+"1", 0o700))
	require.NoError(t, os.Mkdir(user.SnapshotDir()+"/"+snapshotTrash+"1", 0o700))
	r, err := s.GC(t.Context(), GCOptions{Cache: true})
	require.NoError(t, err)
	assert.Equal(t, GCReport{SnapshotsInUse: true}, r)
	assert.DirExists(t, s.path(snapshotsDir, SpoolPrefix+"1"))
	require.NoError(t, user.Close())
	r, err = s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, GCReport{Snapshots: 2}, r, "what killed processes left")
	var removed []string
	r, err = s.GC(t.Context(), GCOptions{Cache: true, RemoveTree: func(path string) error {
		removed = append(removed, path)
		return os.Remove(path)
	}})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Snapshots)
	assert.Len(t, removed, 1)
	assert.False(t, r.SnapshotsInUse)
}

func TestGCRemovesLeftovers(t *testing.T) {
	s := fresh(t)
	w, err := s.Ingest(t.Context())
	require.NoError(t, err)
	defer w.Abort()
	for _, f := range []string{
		ingestDir + "/blob-1", leasesDir + "/17-1", ".tmp-1", refsDir + "/.tmp-1", blobsDir + "/sha256/.tmp-1", "cache/.tmp-1",
	} {
		require.NoError(t, os.MkdirAll(s.path("cache"), 0o700))
		require.NoError(t, os.WriteFile(s.path(f), []byte("x"), 0o600))
	}
	for _, f := range []string{"notes.txt", "blobs/sha256/readme", "cache/mine.txt"} {
		require.NoError(t, os.WriteFile(s.path(f), []byte("x"), 0o600))
	}
	require.NoError(t, os.Mkdir(s.path("blobs/md5"), 0o700))
	found, err := s.Check(t.Context(), CheckOptions{ReadData: true, Repair: true})
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{
		"file ingest/blob-1", "file leases/17-1", "file notes.txt", "file blobs/sha256/readme", "file cache/mine.txt", "file blobs/md5",
	}, objects(found))
	for _, f := range found {
		assert.True(t, f.Harmless && !f.Fixed, f)
	}
	r, err := s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, GCReport{Ingests: 5, Bytes: 5}, r)
	for _, f := range []string{"notes.txt", "blobs/sha256/readme", "cache/mine.txt", "blobs/md5"} {
		_, err := os.Stat(s.path(f))
		assert.NoError(t, err, "not ours: %s", f)
	}
	_, err = w.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = w.Commit(t.Context(), "")
	require.NoError(t, err, "a blob being written survives")
}

// A bomb of indexes is read once a document.
func TestGCOfIndexBomb(t *testing.T) {
	s := fresh(t)
	c := testimage.Image("linux/amd64")
	for range 24 {
		c = testimage.Index(c, c, c, c, c, c, c, c)
	}
	testimage.WriteStore(t, s, "bomb", c)
	start := time.Now()
	sound(t, s)
	_, err := reopened(t, s).GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Less(t, time.Since(start), time.Minute)
}

func TestGCWaitsForItsTurn(t *testing.T) {
	s := fresh(t)
	leave, err := s.using(t.Context())
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = s.GC(ctx, GCOptions{})
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	done := make(chan error)
	go func() {
		_, err := s.GC(t.Context(), GCOptions{})
		done <- err
	}()
	time.Sleep(10 * time.Millisecond)
	leave()
	assert.NoError(t, <-done)
}

func TestCheckFindsDanglingRefs(t *testing.T) {
	s := fresh(t)
	layer, other := put(t, s, "layer"), put(t, s, "other layer")
	m := manifestOf(t, s, layer, other)
	require.NoError(t, s.SetRef(t.Context(), "hello", m))
	lying := layer
	lying.Size += 3
	require.NoError(t, s.SetRef(t.Context(), "lying", manifestOf(t, s, lying)))
	require.NoError(t, os.Remove(s.Path(other.Digest)))
	found, err := s.Check(t.Context(), CheckOptions{Repair: true})
	require.NoError(t, err)
	require.Equal(t, []string{"ref hello", "ref lying"}, objects(found))
	for i, want := range []string{other.Digest.String(), layer.Digest.String()} {
		assert.Contains(t, found[i].Text, want)
		assert.False(t, found[i].Fixed)
		assert.False(t, found[i].Harmless)
	}
	_, err = s.GC(t.Context(), GCOptions{})
	require.NoError(t, err, "a gap stops no collection")

	foreign := layer
	foreign.Digest = digest.FromString("elsewhere")
	config := put(t, s, "{}")
	doc := strings.Replace(string(manifestJSON(config, foreign)), ocispec.MediaTypeImageLayer, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 1)
	d, err := s.PutBytes(t.Context(), ocispec.MediaTypeImageManifest, []byte(doc))
	require.NoError(t, err)
	require.NoError(t, s.SetRef(t.Context(), "windows", d))
	found, err = s.Check(t.Context(), CheckOptions{})
	require.NoError(t, err)
	assert.Len(t, found, 2, "foreign layers live elsewhere")
}

// Whole documents that nobody can read are not damage: no collection stops, no
// repair removes them, and what any reader could see in them stays.
func TestOddDocuments(t *testing.T) {
	for name, format := range map[string]string{
		"not JSON":    "hello %s",
		"odd layers":  `{"layers":{"one":{"digest":%q}}}`,
		"odd config":  `{"config":"x","extra":[{"more":[{"digest":%q}]}]}`,
		"odd top":     `[[{"digest":%q}]]`,
		"odd size":    `{"layers":[{"digest":%q,"size":"many"}]}`,
		"bad digests": `{"layers":[{"digest":"sha256:../../x"},{"digest":%q},{"digest":7}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			layer := put(t, s, "layer")
			d, err := s.PutBytes(t.Context(), ocispec.MediaTypeImageManifest, fmt.Appendf(nil, format, layer.Digest))
			require.NoError(t, err)
			require.NoError(t, s.SetRef(t.Context(), "odd", d))
			s = reopened(t, s)
			found, err := s.Check(t.Context(), CheckOptions{Repair: true})
			require.NoError(t, err)
			assert.Equal(t, []string{"ref odd"}, objects(found))
			_, err = s.GC(t.Context(), GCOptions{})
			require.NoError(t, err)
			assert.True(t, exists(s, d.Digest))
			assert.Equal(t, name != "not JSON", exists(s, layer.Digest))
		})
	}
}

func TestSkopeoReadsTheStore(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed: apt-get install skopeo")
	}
	s := fresh(t)
	img := testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "1")).Gzip())
	testimage.WriteStore(t, s, "hello:1.0", img)
	testimage.WriteStore(t, s, "registry.example:5000/team/app:v1", img)
	for _, name := range []string{"hello:1.0", "registry.example:5000/team/app:v1"} {
		raw, err := exec.Command(skopeo, "inspect", "--raw", "oci:"+s.Root()+":"+name).CombinedOutput()
		require.NoError(t, err, "%s", raw)
		assert.Equal(t, string(img.Raw()), string(raw))
		out, err := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+s.Root()+":"+name, "dir:"+t.TempDir()).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
	sound(t, s)
}

func ExampleStore() {
	dir, err := os.MkdirTemp("", "store")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	s, err := Open(ctx, dir, Options{})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	desc, err := s.Put(ctx, "text/plain", strings.NewReader("hello"))
	if err != nil {
		panic(err)
	}
	if err := s.SetRef(ctx, "hello:1.0", desc); err != nil {
		panic(err)
	}
	got, err := s.GetRef("hello:1.0")
	if err != nil {
		panic(err)
	}
	data, err := s.ReadAll(ctx, got, 1<<20)
	fmt.Println(string(data), err)
	// Output: hello <nil>
}

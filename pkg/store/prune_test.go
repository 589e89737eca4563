package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// aged makes n records, each with a blob of 1000 bytes, last used n, n-1, ..., 1 hours ago.
func aged(t *testing.T, s *Store, n int) (blobs []digest.Digest) {
	t.Helper()
	for i := range n {
		desc := put(t, s, fmt.Sprintf("%01000d", i))
		key := fmt.Sprintf("step%d", i)
		require.NoError(t, s.PutRecord("cache", key, Record{Data: []byte("{}"), Blobs: []digest.Digest{desc.Digest}}))
		used(t, s.path("cache", key+recordSuffix), time.Duration(n-i)*time.Hour)
		blobs = append(blobs, desc.Digest)
	}
	return blobs
}

func used(t *testing.T, path string, ago time.Duration) {
	t.Helper()
	at := time.Now().Add(-ago)
	require.NoError(t, os.Chtimes(path, at, at))
}

// tree makes a snapshot that says it has size bytes.
func tree(t *testing.T, s *Store, name string, size int64, ago time.Duration) string {
	t.Helper()
	dir := s.path(snapshotsDir, name)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "fs"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, SizeFile), fmt.Appendf(nil, "%d\n", size), 0o644))
	used(t, dir, ago)
	return dir
}

func present(s *Store, blobs []digest.Digest) (n []int) {
	for i, d := range blobs {
		if _, err := os.Lstat(s.Path(d)); err == nil {
			n = append(n, i)
		}
	}
	return n
}

func TestPruneTakesTheLeastRecentlyUsedFirst(t *testing.T) {
	s := fresh(t)
	blobs := aged(t, s, 10)
	s = reopened(t, s)
	_, err := s.GetRecord("cache", "step0") // used now
	require.NoError(t, err)
	s = reopened(t, s)
	u, err := s.Usage(t.Context())
	require.NoError(t, err)
	assert.Zero(t, u.Refs+u.Trees+u.Garbage)

	r, err := s.GC(t.Context(), GCOptions{KeepStorage: u.Total() - 2500})
	require.NoError(t, err)
	assert.Equal(t, 3, r.Records)
	assert.Equal(t, []int{0, 4, 5, 6, 7, 8, 9}, present(s, blobs))
	sound(t, s)
}

func TestPruneByAge(t *testing.T) {
	s := fresh(t)
	blobs := aged(t, s, 10)
	s = reopened(t, s)
	r, err := s.GC(t.Context(), GCOptions{UnusedSince: time.Now().Add(-150 * time.Minute), DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, 8, r.Records)
	assert.Len(t, present(s, blobs), 10)
	_, err = s.GC(t.Context(), GCOptions{UnusedSince: time.Now().Add(-150 * time.Minute)})
	require.NoError(t, err)
	assert.Equal(t, []int{8, 9}, present(s, blobs))
}

func TestPruneKeepsWhatRefsNeedAndFreesNothingForIt(t *testing.T) {
	s := fresh(t)
	blobs := aged(t, s, 4)
	m := manifestOf(t, s, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: blobs[0], Size: 1000})
	require.NoError(t, s.SetRef(t.Context(), "kept", m))
	s = reopened(t, s)
	r, err := s.GC(t.Context(), GCOptions{KeepStorage: 1})
	require.NoError(t, err)
	assert.Equal(t, 4, r.Records)
	assert.Equal(t, 3, r.Blobs)
	assert.Equal(t, []int{0}, present(s, blobs))
	sound(t, s)
}

func TestPruneOfTrees(t *testing.T) {
	s := fresh(t)
	old := tree(t, s, "mode-boot-1/aaaa", 1000, 3*time.Hour)
	young := tree(t, s, "mode-boot-1/bbbb", 1000, time.Hour)
	mount := tree(t, s, "mode-mounts/cccc", 1000, 5*time.Hour)
	require.NoError(t, os.WriteFile(mount+UsedSuffix, nil, 0o644)) // used now
	s = reopened(t, s)

	user := open(t, s.Root())
	user.SnapshotDir()
	r, err := s.GC(t.Context(), GCOptions{KeepStorage: 2500})
	require.NoError(t, err)
	assert.True(t, r.SnapshotsInUse)
	assert.DirExists(t, old)
	require.NoError(t, user.Close())

	r, err = s.GC(t.Context(), GCOptions{KeepStorage: 2500})
	require.NoError(t, err)
	assert.Equal(t, 1, r.Snapshots)
	assert.NoDirExists(t, old)
	assert.DirExists(t, young)
	assert.DirExists(t, mount)
	assert.NoDirExists(t, s.path(snapshotsDir, "mode-boot-1", ".gc-aaaa"))
}

func TestTrim(t *testing.T) {
	s := fresh(t)
	blobs := aged(t, s, 10)
	s = reopened(t, s)
	for _, keep := range []int64{0, 1 << 30} { // no limit; small enough
		_, err := s.Trim(t.Context(), keep, 0, nil)
		require.NoError(t, err)
		assert.Len(t, present(s, blobs), 10)
	}
	_, err := s.Trim(t.Context(), 4500, 0, nil)
	require.NoError(t, err)
	u, err := s.Usage(t.Context())
	require.NoError(t, err)
	assert.LessOrEqual(t, u.Total(), int64(4500))
	assert.Equal(t, []int{7, 8, 9}, present(s, blobs))
}

// A store that is known to be small is not looked through; what tasks say they added counts.
func TestTrim_estimates(t *testing.T) {
	s := fresh(t)
	blobs := aged(t, s, 10)
	s = reopened(t, s)
	trim := func(grown int64) []int {
		_, err := s.Trim(t.Context(), 100_000, grown, nil)
		require.NoError(t, err)
		return present(s, blobs)
	}
	trim(0)
	total, lines, ok := s.estimate()
	require.True(t, ok)
	assert.Equal(t, 1, lines)
	assert.Greater(t, total, int64(10_000))

	big := s.path(snapshotsDir, "mode-boot-1", "aaaa") // nobody says so
	require.NoError(t, os.MkdirAll(big, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(big, SizeFile), []byte("95000\n"), 0o600))
	trim(2000)
	now, _, _ := s.estimate()
	assert.Equal(t, total+2000, now, "not looked through")
	for _, damaged := range []string{"", "12\n", "x 1\n", "-5 1\n", "5 1\n", "10 99999999999999\n"} {
		require.NoError(t, os.WriteFile(s.path(sizeFile), []byte(damaged), 0o600))
		_, _, ok := s.estimate()
		assert.False(t, ok, damaged)
	}
	assert.NotEqual(t, 10, len(trim(0)), "looked through, and over the limit")

	for range maxGrowths {
		trim(1)
	}
	_, lines, ok = s.estimate()
	assert.True(t, ok)
	assert.Less(t, lines, maxGrowths, "looked through again")
}

func TestUsageTellsClassesApart(t *testing.T) {
	s := fresh(t)
	blobs := aged(t, s, 3)
	m := manifestOf(t, s, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: blobs[0], Size: 1000})
	require.NoError(t, s.SetRef(t.Context(), "kept", m))
	put(t, s, "garbage")
	tree(t, s, "mode-boot-1/aaaa", 700, time.Hour)
	s = reopened(t, s)
	u, err := s.Usage(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(700), u.Trees)
	assert.Equal(t, int64(len("garbage")), u.Garbage)
	assert.Greater(t, u.Refs, int64(1000))
	assert.Greater(t, u.Cache, int64(2000))
	require.Len(t, u.Entries, 4)
	assert.Equal(t, "step0", u.Entries[0].Key, "the least recently used first")
}

func TestDefaultKeepStorageOfAStoreThatIsNotMade(t *testing.T) {
	n := DefaultKeepStorage(filepath.Join(t.TempDir(), "not", "made"))
	if _, ok := fileSystemSize(t.TempDir()); !ok {
		t.Skip("the size of a file system is only known on Linux")
	}
	assert.Positive(t, n)
}

//go:build unix

package store

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// replaced puts something else at the place of a file.
func replaced(make func(path string) error) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		require.NoError(t, os.Remove(path))
		require.NoError(t, make(path))
	}
}

func changed(change func([]byte) []byte) func(t *testing.T, path string) {
	return func(t *testing.T, path string) {
		t.Helper()
		damage(t, path, change)
	}
}

func TestD11_DamagedBlob(t *testing.T) {
	const content = "this is what the blob is"
	for name, harm := range map[string]func(t *testing.T, path string){
		"flipped bit":       changed(func(b []byte) []byte { b[7] ^= 4; return b }),
		"truncated":         changed(func(b []byte) []byte { return b[:5] }),
		"longer":            changed(func(b []byte) []byte { return append(b, '!') }),
		"zero length":       changed(func([]byte) []byte { return nil }),
		"fifo":              replaced(func(p string) error { return unix.Mkfifo(p, 0o600) }),
		"symlink":           replaced(func(p string) error { return os.Symlink("/dev/zero", p) }),
		"symlink to a file": replaced(func(p string) error { return os.Symlink("/proc/self/status", p) }),
		"dangling":          replaced(func(p string) error { return os.Symlink("nowhere", p) }),
		"directory": replaced(func(p string) error {
			if err := os.Mkdir(p, 0o700); err != nil {
				return err
			}
			return os.WriteFile(p+"/x", []byte("x"), 0o600)
		}),
	} {
		setup := func(t *testing.T) (*Store, ocispec.Descriptor) {
			s := fresh(t)
			d := put(t, s, content)
			require.NoError(t, s.SetRef(t.Context(), "hello", d))
			require.NoError(t, s.Close())
			harm(t, s.Path(d.Digest))
			return open(t, s.Root()), d
		}
		t.Run("read/"+name, func(t *testing.T) {
			s, d := setup(t)
			if strings.HasPrefix(name, "symlink") || name == "fifo" || name == "directory" {
				_, err := s.OpenAt(d.Digest)
				assert.ErrorIs(t, err, ErrCorrupt)
			}
			for _, desc := range []ocispec.Descriptor{d, {Digest: d.Digest}} {
				done := time.AfterFunc(time.Minute, func() { panic("a read hangs") })
				got, err := get(t.Context(), s, desc)
				done.Stop()
				require.Error(t, err)
				assert.True(t, isOneOf(err, ErrCorrupt, ErrNotFound), "%v", err)
				assert.Contains(t, err.Error(), d.Digest.String())
				assert.NotEqual(t, content, got)
			}
		})
		t.Run("stat/"+name, func(t *testing.T) {
			s, d := setup(t)
			n, err := s.Stat(d.Digest)
			if err != nil {
				assert.ErrorIs(t, err, ErrNotFound)
			} else if name != "flipped bit" {
				assert.NotEqual(t, d.Size, n)
			}
		})
		t.Run("put again/"+name, func(t *testing.T) {
			s, d := setup(t)
			if name == "flipped bit" { // its reader sets it aside
				_, err := get(t.Context(), s, d)
				require.ErrorIs(t, err, ErrCorrupt)
				_, err = s.Stat(d.Digest)
				require.ErrorIs(t, err, ErrNotFound)
			}
			put(t, s, content)
			got, err := get(t.Context(), s, d)
			require.NoError(t, err)
			assert.Equal(t, content, got)
			sound(t, s)
			_, err = s.GC(t.Context(), GCOptions{})
			require.NoError(t, err)
			assert.Empty(t, files(t, s.path(damagedDir)))
			sound(t, s)
		})
		t.Run("check/"+name, func(t *testing.T) {
			s, d := setup(t)
			found, err := s.Check(t.Context(), CheckOptions{ReadData: true})
			require.NoError(t, err)
			assert.Equal(t, []string{"blob " + d.Digest.String(), "ref hello"}, objects(found))
			_, err = os.Lstat(s.Path(d.Digest))
			assert.NoError(t, err, "a check changes nothing")

			found, err = s.Check(t.Context(), CheckOptions{ReadData: true, Repair: true})
			require.NoError(t, err)
			require.Equal(t, []string{"blob " + d.Digest.String(), "ref hello"}, objects(found))
			assert.True(t, found[0].Fixed)
			assert.False(t, found[1].Fixed, "a ref is never lost silently")
			assert.False(t, exists(s, d.Digest))
			_, err = s.GetRef("hello")
			assert.NoError(t, err)

			put(t, s, content)
			sound(t, s)
		})
	}
}

func isOneOf(err error, kinds ...error) bool {
	for _, k := range kinds {
		if assert.ErrorIs(discard{}, err, k) {
			return true
		}
	}
	return false
}

type discard struct{}

func (discard) Errorf(string, ...any) {}

// A reader that finds damage in a file which was replaced meanwhile leaves the new one alone.
func TestD11_ReplacedBlobIsNotSetAside(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "hello")
	damage(t, s.Path(d.Digest), func([]byte) []byte { return []byte("jello") })
	rc, err := s.Open(t.Context(), d)
	require.NoError(t, err)
	defer rc.Close()
	require.NoError(t, os.Rename(s.Path(d.Digest), s.Path(d.Digest)+".old"))
	put(t, s, "hello")
	_, err = rc.Read(make([]byte, 10))
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, os.Remove(s.Path(d.Digest)+".old"))
	sound(t, s)
	assert.True(t, exists(s, d.Digest))
}

func TestD11_DamagedManifestStopsCollections(t *testing.T) {
	s := fresh(t)
	layer := put(t, s, "layer")
	m := manifestOf(t, s, layer)
	require.NoError(t, s.SetRef(t.Context(), "hello", m))
	require.NoError(t, s.Close())
	s = open(t, s.Root())
	damage(t, s.Path(m.Digest), func(b []byte) []byte {
		return []byte(strings.Replace(string(b), layer.Digest.Encoded()[:8], "00000000", 1))
	})
	_, err := s.GC(t.Context(), GCOptions{Cache: true})
	require.ErrorIs(t, err, ErrCorrupt)
	assert.True(t, exists(s, layer.Digest), "D21: never delete on a parse error")

	found, err := s.Check(t.Context(), CheckOptions{Repair: true}) // documents are read without ReadData
	require.NoError(t, err)
	assert.Equal(t, []string{"blob " + m.Digest.String(), "ref hello"}, objects(found))
	r, err := s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Equal(t, 2, r.Blobs, "layer and config")
	_, err = s.GetRef("hello")
	assert.NoError(t, err)
}

func TestD21_CollectionsFailClosed(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, s *Store){
		"empty ref": func(t *testing.T, s *Store) { damage(t, s.path(refsDir, "hello"), func([]byte) []byte { return nil }) },
		"not JSON": func(t *testing.T, s *Store) {
			damage(t, s.path(refsDir, "hello"), func([]byte) []byte { return []byte("{") })
		},
		"other name": func(t *testing.T, s *Store) {
			require.NoError(t, os.Rename(s.path(refsDir, "hello"), s.path(refsDir, "hallo")))
		},
		"unknown file": func(t *testing.T, s *Store) { require.NoError(t, os.WriteFile(s.path(refsDir, "X"), nil, 0o600)) },
		"fifo": func(t *testing.T, s *Store) {
			require.NoError(t, os.Remove(s.path(refsDir, "hello")))
			require.NoError(t, unix.Mkfifo(s.path(refsDir, "hello"), 0o600))
		},
		"directory": func(t *testing.T, s *Store) { require.NoError(t, os.Mkdir(s.path(refsDir, "dir"), 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			d := put(t, s, "hello")
			require.NoError(t, s.SetRef(t.Context(), "hello", d))
			require.NoError(t, s.Close())
			s = open(t, s.Root())
			harm(t, s)
			_, err := s.GC(t.Context(), GCOptions{Cache: true})
			require.ErrorIs(t, err, ErrCorrupt)
			assert.True(t, exists(s, d.Digest))
			_, err = s.Refs()
			require.ErrorIs(t, err, ErrCorrupt)
			other := put(t, s, "other")
			require.NoError(t, s.SetRef(t.Context(), "other", other), "work goes on")

			found, err := s.Check(t.Context(), CheckOptions{Repair: true})
			require.NoError(t, err)
			require.NotEmpty(t, found)
			assert.Contains(t, found[0].Object, "ref file ")
			assert.True(t, found[0].Fixed)
			_, err = s.GC(t.Context(), GCOptions{})
			require.NoError(t, err)
			sound(t, s)
		})
	}
	t.Run("live lease", func(t *testing.T) {
		s := fresh(t)
		d := put(t, s, "hello")
		damage(t, s.lease.Name(), func(b []byte) []byte { return b[:20] })
		_, err := open(t, s.Root()).GC(t.Context(), GCOptions{})
		require.ErrorIs(t, err, ErrInvalid)
		assert.True(t, exists(s, d.Digest))
	})
}

func TestD07_PowerCut(t *testing.T) {
	s := fresh(t)
	ctx := t.Context()
	kept := put(t, s, "durable because a ref was set")
	m := manifestOf(t, s, kept)
	require.NoError(t, s.SetRef(ctx, "hello", m))
	fi, err := os.Stat(s.Path(kept.Digest))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(syncedMode), fi.Mode(), "a ref makes all that it reaches durable")

	var lost []digest.Digest
	for i, harm := range []func([]byte) []byte{
		func([]byte) []byte { return nil },
		func(b []byte) []byte { return b[:3] },
		func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		d := put(t, s, "not synced "+string(rune('0'+i)))
		lost = append(lost, d.Digest)
		damage(t, s.Path(d.Digest), harm)
		require.NoError(t, s.PutRecord("cache", string(rune('a'+i)), Record{Blobs: []digest.Digest{d.Digest}}))
	}
	whole := put(t, s, "not synced, but it made it")
	require.NoError(t, s.PutRecord("cache", "torn", Record{Data: []byte("x")}))
	torn, err := s.recordPath("cache", "torn")
	require.NoError(t, err)
	damage(t, torn, func(b []byte) []byte { return make([]byte, len(b)) })
	damage(t, s.path(indexFile), func([]byte) []byte { return nil })
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(s.path(bootFile), []byte("another boot"), 0o600))

	s = open(t, s.Root())
	for i, d := range lost {
		_, err := s.Stat(d)
		assert.ErrorIs(t, err, ErrNotFound)
		_, err = s.GetRecord("cache", string(rune('a'+i)))
		assert.ErrorIs(t, err, ErrNotFound, "a step whose layer is lost runs again")
	}
	_, err = s.GetRecord("cache", "torn")
	assert.ErrorIs(t, err, ErrNotFound)
	_, err = get(ctx, s, whole)
	assert.NoError(t, err)
	_, err = get(ctx, s, kept)
	assert.NoError(t, err)
	sound(t, s)
}

// What another process left unsynced is synced by whoever sets a ref to it.
func TestD07_RefSyncsWhatOthersPut(t *testing.T) {
	s := fresh(t)
	layer := put(t, s, "layer")
	m := manifestOf(t, s, layer)
	require.NoError(t, s.Close())
	s = open(t, s.Root())
	require.NoError(t, s.SetRef(t.Context(), "hello", m))
	for _, d := range []digest.Digest{m.Digest, layer.Digest} {
		fi, err := os.Stat(s.Path(d))
		require.NoError(t, err)
		assert.True(t, isDurable(fi))
	}
	require.Empty(t, s.dirty)
}

func TestD05_FailedSyncDiscardsTheBlob(t *testing.T) {
	s := fresh(t)
	good, bad := put(t, s, "good"), put(t, s, "bad")
	s.fsync = func(f *os.File) error {
		if f.Name() == s.Path(bad.Digest) {
			return &fs.PathError{Op: "sync", Path: f.Name(), Err: unix.EIO}
		}
		return f.Sync()
	}
	err := s.SetRef(t.Context(), "hello", bad)
	require.ErrorIs(t, err, unix.EIO)
	assert.Contains(t, err.Error(), s.Path(bad.Digest))
	_, err = s.GetRef("hello")
	assert.ErrorIs(t, err, ErrNotFound)
	assert.ErrorIs(t, s.SetRef(t.Context(), "hello", bad), ErrNotFound, "a second try does not believe the kernel")
	_, err = get(t.Context(), s, good)
	assert.NoError(t, err)
	s.fsync = (*os.File).Sync
	put(t, s, "bad")
	require.NoError(t, s.SetRef(t.Context(), "hello", bad))
	sound(t, s)
}

func TestSyncOfManyBlobs(t *testing.T) {
	s := fresh(t)
	for i := range syncfsFrom + 5 {
		put(t, s, strings.Repeat("x", i+1))
	}
	require.NoError(t, s.Sync(t.Context()))
	assert.Empty(t, s.dirty)
	require.NoError(t, s.eachBlob(func(d digest.Digest, fi fs.FileInfo) error {
		assert.True(t, isDurable(fi))
		return nil
	}))
}

// No decision depends on a clock.
func TestD13_TimesOfFilesDoNotMatter(t *testing.T) {
	s := fresh(t)
	d := put(t, s, "hello")
	require.NoError(t, s.SetRef(t.Context(), "hello", d))
	leased := put(t, s, "leased")
	free := digest.FromString("free")
	require.NoError(t, os.WriteFile(s.Path(free), []byte("free"), 0o600))
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(4294967296, 0)} {
		for _, f := range files(t, s.Root()) {
			require.NoError(t, os.Chtimes(s.path(f), at, at))
		}
		_, err := s.GC(t.Context(), GCOptions{})
		require.NoError(t, err)
		assert.True(t, exists(s, d.Digest))
		assert.True(t, exists(s, leased.Digest))
		assert.False(t, exists(s, free))
		sound(t, s)
	}
}

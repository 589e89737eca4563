package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Nothing stays open, whatever fails.
func TestD04_NoDescriptorLeaks(t *testing.T) {
	count := func() int {
		ents, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(ents)
	}
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(dir+"/foreign", 0o700))
	require.NoError(t, os.WriteFile(dir+"/foreign/x", nil, 0o600))
	require.NoError(t, workload(t.Context(), dir+"/store", 1))
	before := count()
	for i := range 5 {
		require.NoError(t, workload(t.Context(), dir+"/store", uint64(i)))
		_, err := Open(t.Context(), dir+"/foreign", Options{})
		require.Error(t, err)
		require.NoError(t, soundChild(t.Context(), dir+"/store"))
		require.NoError(t, os.WriteFile(dir+"/store/"+indexStale, nil, 0o600))
		require.NoError(t, os.Rename(dir+"/store/"+refsDir, dir+"/store/away"))
		require.NoError(t, os.WriteFile(dir+"/store/"+refsDir, nil, 0o600))
		_, err = Open(t.Context(), dir+"/store", Options{})
		require.Error(t, err)
		require.NoError(t, os.Remove(dir+"/store/"+refsDir))
		require.NoError(t, os.Rename(dir+"/store/away", dir+"/store/"+refsDir))
		require.NoError(t, os.Remove(dir+"/store/"+indexFile))
	}
	assert.Equal(t, before, count())
}

// Many goroutines under a low limit of descriptors get errors, not hangs, and the store stays sound.
func TestD04_FewDescriptors(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	run(t, child(t, "few descriptors", root, ""))
	require.NoError(t, soundChild(t.Context(), root))
	s := open(t, root)
	_, err := s.GC(t.Context(), GCOptions{})
	require.NoError(t, err)
	assert.Empty(t, files(t, s.path(ingestDir)))
}

func init() {
	children["few descriptors"] = func(ctx context.Context, root, _ string) error {
		s, err := Open(ctx, root, Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 24, Max: 24}); err != nil {
			return err
		}
		errs := make(chan error)
		for i := range 64 {
			go func() {
				d, err := s.Put(ctx, "x", bytes.NewReader(random(uint64(i), 2<<20)))
				if err == nil {
					err = s.SetRef(ctx, strconv.Itoa(i), d)
				}
				errs <- err
			}()
		}
		for range 64 {
			if err := <-errs; err != nil && !errors.Is(err, unix.EMFILE) {
				return err
			}
		}
		return nil
	}
}

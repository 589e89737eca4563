package local

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Processes make, use and sweep scratch directories at the same time: nobody's is taken while it is in use.
func TestScratch_besideSweeps(t *testing.T) {
	parent := t.TempDir()
	var users, sweepers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					assert.NoError(t, sweepScratch(parent, tmpPrefix, os.RemoveAll))
				}
			}
		})
	}
	for range 4 {
		users.Go(func() {
			for range 100 {
				d, err := newScratch(parent, tmpPrefix)
				if !assert.NoError(t, err) {
					return
				}
				sub, err := d.sub()
				assert.NoError(t, err)
				assert.DirExists(t, sub)
				assert.NoError(t, d.remove(os.RemoveAll))
			}
		})
	}
	users.Wait()
	close(stop)
	sweepers.Wait()
	left, err := os.ReadDir(parent)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestScratch_ofAKilledProcess(t *testing.T) {
	parent := t.TempDir()
	d, err := newScratch(parent, tmpPrefix)
	require.NoError(t, err)
	other, err := newScratch(parent, tmpPrefix)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(d.path, "file"), nil, 0o600))
	require.NoError(t, d.lock.Unlock()) // as its end does

	require.NoError(t, sweepScratch(parent, tmpPrefix, os.RemoveAll))
	assert.NoDirExists(t, d.path)
	assert.NoFileExists(t, d.path+lockSuffix)
	assert.DirExists(t, other.path, "its process lives")
	require.NoError(t, other.remove(os.RemoveAll))
}

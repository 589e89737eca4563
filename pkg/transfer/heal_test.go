package transfer

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
)

// TestAppend_C29_heals: a writer that overwrote another and was killed before it looked again leaves a tag without the
// other's entry: the one window. The next append of anybody, and a rerun of either, mends it.
func TestAppend_C29_heals(t *testing.T) {
	t.Parallel()
	for name, rerun := range map[string]string{"by a third writer": "linux/s390x", "by who was lost": "linux/amd64", "by who was killed": "linux/arm64"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, c := debianRegistry(t) // ours looks at If-Match, and would not let it happen
			env := newEnv(t)
			tag := at(t, "%s/app:1", host)
			images := map[string]testimage.Content{}
			for _, p := range []string{"linux/amd64", "linux/arm64", "linux/s390x"} {
				images[p] = image(p, "x")
				put(t, env, images[p], tag.WithDigest(images[p].Desc.Digest))
			}
			entries := func(p string) []index.Entry { return []index.Entry{entryOf(t, images[p])} }

			// The writer of arm64 has read the tag; before it writes, the one of amd64 comes and ends; then it writes, and is killed.
			victim, kill := context.WithCancel(t.Context())
			defer kill()
			var stopped, written atomic.Bool
			c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut || r.URL.Path != "/v2/app/manifests/1" || !stopped.CompareAndSwap(false, true) {
					return false
				}
				_, err := Append(t.Context(), newEnv(t), tag, entries("linux/amd64"), AppendOptions{})
				assert.NoError(t, err)
				c.Handler.ServeHTTP(w, r)
				written.Store(true)
				kill()
				return true
			})
			_, err := Append(victim, newEnv(t), tag, entries("linux/arm64"), AppendOptions{})
			require.Error(t, err)
			c.setHook(nil)
			require.True(t, written.Load())
			require.Len(t, platformsOf(t, env, tag), 1, "this is the window")

			_, err = Append(t.Context(), env, tag, entries(rerun), AppendOptions{})
			require.NoError(t, err)
			got := platformsOf(t, env, tag)
			assert.Contains(t, got, "linux/amd64")
			assert.Contains(t, got, "linux/arm64")
			assert.Contains(t, got, rerun)
			requireWhole(t, env, tag)
		})
	}
}

package source

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// TestStore_D10_heldWhileRead: an image that was opened by its name is there until its reader ends, though nothing has that name
// by then and a collection comes.
func TestStore_D10_heldWhileRead(t *testing.T) {
	c := testimage.Index(testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "old")).Gzip()))
	for name, o := range map[string]store.Options{"a reader": {ReadOnly: true}, "a writer": {}} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "store")
			process := func(o store.Options, f func(st *store.Store)) { // what one uses is leased until it ends
				st, err := store.Open(t.Context(), root, o)
				require.NoError(t, err)
				f(st)
				require.NoError(t, st.Close())
			}
			process(store.Options{}, func(st *store.Store) { testimage.WriteStore(t, st, "app:1", c) })
			process(o, func(reading *store.Store) {
				img, err := (&Opener{Store: reading}).Open(t.Context(), asRef(t, "store:app:1"))
				require.NoError(t, err)
				process(store.Options{}, func(st *store.Store) {
					require.NoError(t, st.DeleteRef(t.Context(), "app:1"))
					_, err := st.GC(t.Context(), store.GCOptions{Cache: true})
					require.NoError(t, err)
				})
				raw, err := img.Manifest(t.Context(), img.Root())
				require.NoError(t, err)
				idx, err := index.Parse(raw)
				require.NoError(t, err)
				m, _, err := ReadManifest(t.Context(), img, idx.Manifests[0])
				require.NoError(t, err)
				_, err = readAll(t.Context(), img, m.Layers[0])
				require.NoError(t, err)
				require.NoError(t, img.Close())
			})
			process(store.Options{}, func(st *store.Store) {
				_, err := st.GC(t.Context(), store.GCOptions{Cache: true})
				require.NoError(t, err)
				_, err = st.Stat(c.Desc.Digest)
				require.ErrorIs(t, err, store.ErrNotFound, "and not longer")
			})
		})
	}
}

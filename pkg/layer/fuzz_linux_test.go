package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzApply unpacks anything; nothing outside of the root may change, and what ReadTOC refuses is refused.
func FuzzApply(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, uint8(0))
		f.Add(s, uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, mode uint8) {
		b = fixSums(b)
		lim := Limits{Sparse: 1 << 20, Entries: 1000}
		o := ApplyOptions{Ownership: OwnXattr, Overlay: mode&1 != 0, Limits: lim}
		if mode&2 != 0 {
			o.Ownership = OwnIDs
		}
		top := t.TempDir()
		out := filepath.Join(top, "outside")
		require.NoError(t, os.WriteFile(out, []byte("canary"), 0o644))
		root := filepath.Join(top, "root")
		require.NoError(t, os.Mkdir(root, 0o755))
		before, err := os.Lstat(out)
		require.NoError(t, err)

		err = Apply(context.Background(), root, bytes.NewReader(b), o)
		_, tocErr := ReadTOC(context.Background(), bytes.NewReader(b), lim)
		if tocErr != nil {
			require.Error(t, err)
		}
		if err == nil {
			require.NoError(t, Diff(context.Background(), root, &bytes.Buffer{}, DiffOptions{Ownership: o.Ownership}))
		}
		after, err := os.Lstat(out)
		require.NoError(t, err)
		require.Equal(t, []any{before.Mode(), before.Size(), before.ModTime(), before.Sys()}, []any{after.Mode(), after.Size(), after.ModTime(), after.Sys()})
		names, err := os.ReadDir(top)
		require.NoError(t, err)
		for _, n := range names {
			require.Contains(t, []string{"outside", "root", "root.owners"}, n.Name())
		}
		require.NoError(t, RemoveAll(root))
	})
}

// FuzzView merges layers of few names, so that they meet, and holds the View to what is unpacked.
func FuzzView(f *testing.F) {
	f.Add([]byte{0, 3, 0, 2, 4, 1, 9, 0, 0, 6, 0, 0, 2, 3, 1})
	f.Add([]byte{4, 0, 1, 2, 3, 3, 9, 0, 0, 5, 5, 2, 6, 1, 1, 0, 1, 1})
	f.Add([]byte{0, 0, 0, 2, 3, 3, 9, 0, 0, 7, 0, 1, 2, 7, 1, 9, 0, 0, 6, 0, 1, 0, 0, 0, 7, 0, 8})
	f.Fuzz(func(t *testing.T, b []byte) {
		var layers [][]byte
		symlinks := false
		for _, l := range script(b) {
			layers = append(layers, archive(t, l...))
			symlinks = symlinks || slices.ContainsFunc(l, func(m member) bool { return m.typ == tar.TypeSymlink })
		}
		// A layer that goes through symlinks below and changes them too is not the same apart from what is below.
		checkUnpacked(t, !symlinks || len(layers) == 1, layers...) //nolint:errcheck // it checks itself
	})
}

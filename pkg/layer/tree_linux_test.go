package layer

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// canary is a directory with a root to unpack into and files beside it that nothing may change.
type canary struct {
	top, root string
	before    []byte
}

func newCanary(t testing.TB) *canary {
	t.Helper()
	c := &canary{top: t.TempDir()}
	out := filepath.Join(c.top, "outside")
	require.NoError(t, os.MkdirAll(filepath.Join(out, "etc", "cron.d"), 0o755))
	for name, mode := range map[string]os.FileMode{"etc/passwd": 0o644, "etc/shadow": 0o600, "x": 0o755} {
		require.NoError(t, os.WriteFile(filepath.Join(out, name), []byte(name), mode))
	}
	require.NoError(t, os.Symlink("x", filepath.Join(out, "link")))
	c.root = filepath.Join(c.top, "root")
	require.NoError(t, os.Mkdir(c.root, 0o755))
	c.before = c.snapshot(t)
	t.Cleanup(func() { assert.NoError(t, RemoveAll(c.root)) })
	return c
}

func (c *canary) snapshot(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Diff(context.Background(), c.top, &b, DiffOptions{
		Ownership: OwnIDs,
		Skip:      map[string]bool{"root": true, "root.owners": true},
	}))
	return b.Bytes()
}

// check fails when something beside the root changed.
func (c *canary) check(t testing.TB) {
	t.Helper()
	assert.True(t, bytes.Equal(c.before, c.snapshot(t)), "something outside of the root changed")
}

// treeOf reads a directory back.
func treeOf(t testing.TB, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, Diff(context.Background(), dir, &b, DiffOptions{Ownership: OwnXattr}))
	return b.Bytes()
}

// applyChain unpacks layers over each other into one directory.
func applyChain(t testing.TB, layers ...[]byte) ([]string, error) {
	t.Helper()
	c := newCanary(t)
	defer c.check(t)
	for _, l := range layers {
		if err := Apply(context.Background(), c.root, bytes.NewReader(l), ApplyOptions{Ownership: OwnXattr}); err != nil {
			return nil, err
		}
	}
	return list(t, mustView(t, treeOf(t, c.root))), nil
}

// applyOverlay unpacks each layer to an overlay directory of its own, completed by what it needs from
// below, and merges what is read back from them.
func applyOverlay(t testing.TB, layers ...[]byte) ([]string, error) {
	t.Helper()
	var dirs [][]byte
	for i, l := range layers {
		toc, err := ReadTOC(context.Background(), bytes.NewReader(l), Limits{})
		if err != nil {
			return nil, err
		}
		below, err := viewOf(layers[:i]...)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := WriteMembers(context.Background(), &b, below, Missing(toc)); err != nil {
			return nil, err
		}
		b.Write(l)
		c := newCanary(t)
		if err := Apply(context.Background(), c.root, &b, ApplyOptions{Ownership: OwnXattr, Overlay: true}); err != nil {
			c.check(t)
			return nil, err
		}
		c.check(t)
		dirs = append(dirs, treeOf(t, c.root))
	}
	return listLinked(t, mustView(t, dirs...)), nil
}

// refused checks that nothing that reads archives takes b, for the same reason, and that nothing happens outside.
func refused(t testing.TB, kind error, b []byte) {
	t.Helper()
	ctx := context.Background()
	_, err := ReadTOC(ctx, bytes.NewReader(b), Limits{})
	require.ErrorIs(t, err, kind, "ReadTOC")
	for _, o := range []ApplyOptions{
		{Ownership: OwnXattr}, {Ownership: OwnXattr, Overlay: true}, {Ownership: OwnIDs}, {Ownership: OwnIDs, Overlay: true},
	} {
		c := newCanary(t)
		err := Apply(ctx, c.root, bytes.NewReader(b), o)
		if o.Ownership == OwnXattr || os.Geteuid() == 0 {
			require.ErrorIs(t, err, kind, "Apply %v", o)
		}
		require.Error(t, err, "Apply %v", o) // an ordinary user may not get as far as the bad member
		c.check(t)
	}
	builder := NewBuilder(nil, time.Unix(0, 0))
	err = builder.Archive(ctx, "/", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, t.TempDir(), Limits{})
	require.ErrorIs(t, err, kind, "Archive")
	require.NoError(t, builder.Close())
}

// checkChain unpacks layers in each way there is and holds the results to each other. It returns
// the merged tree, or the error that all of them had to report.
func checkChain(t testing.TB, layers ...[]byte) ([]string, error) {
	t.Helper()
	return checkUnpacked(t, true, layers...)
}

func checkUnpacked(t testing.TB, overlayToo bool, layers ...[]byte) ([]string, error) {
	t.Helper()
	v, viewErr := viewOf(layers...)
	chain, chainErr := applyChain(t, layers...)
	if viewErr != nil {
		// For overlayfs a layer is unpacked apart from what is below, so that some of what disagrees with it goes unseen.
		assert.Error(t, chainErr, "Apply takes what a View refuses: %v", viewErr)
		return nil, viewErr
	}
	require.NoError(t, chainErr)
	want := list(t, v)
	assert.Equal(t, want, chain, "unpacked over each other")
	if !overlayToo {
		return want, nil
	}
	overlay, err := applyOverlay(t, layers...)
	require.NoError(t, err)
	assert.Equal(t, listLinked(t, v), overlay, "unpacked for overlayfs")
	return want, nil
}

// raceRounds makes the race of A31 longer: go test -run TestLayerTarget/A31 -layer.rounds 1000000 -timeout 10h.
var raceRounds = flag.Int("layer.rounds", 0, "rounds of the race in A31")

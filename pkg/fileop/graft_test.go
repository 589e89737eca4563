package fileop_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/fileop"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// forest makes entries of a random tree: directories, files, links, odd modes, owners and times.
func forest(r *rand.Rand, names int) (out []testimage.Entry) {
	dirs := []string{""}
	var files []string
	at := func() time.Time { return time.Unix(1_600_000_000+r.Int64N(1000), 0) }
	for i := range names {
		name := path.Join(dirs[r.IntN(len(dirs))], fmt.Sprintf("n%d", i))
		var e testimage.Entry
		switch k := r.IntN(20); {
		case k < 7:
			e = testimage.Dir(name)
			dirs = append(dirs, name)
			if r.IntN(8) == 0 {
				e = e.Mode(0o2750).Owner(0, 9)
			}
		case k == 7:
			e = testimage.Symlink(name, "n1/n2")
		case k == 8 && len(files) > 0:
			e = testimage.Hardlink(name, files[r.IntN(len(files))])
		case k == 9 && r.IntN(4) == 0:
			e = testimage.Fifo(name)
		case k == 10:
			e = testimage.File(name, "x").Owner(5, 6).Mode(0o4711)
		default:
			e = testimage.File(name, fmt.Sprint(i))
			files = append(files, name)
		}
		e.Header.ModTime = at()
		out = append(out, e)
	}
	return out
}

// TestWhatIsCopiedWholeIsWhatIsCopiedOneByOne: a pattern that means nothing makes every file be looked at by itself.
func TestWhatIsCopiedWholeIsWhatIsCopiedOneByOne(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // the same in every run
	for round := range 300 {
		src := view(t, forest(r, 5+r.IntN(40))...)
		base := view(t, forest(r, 1+r.IntN(8))...)
		var now time.Time
		if r.IntN(2) == 0 {
			now = time.Unix(1_700_000_000, 0)
		}
		var actions []graph.FileAction
		for range 1 + r.IntN(4) {
			somewhere := fmt.Sprintf("/n%d/n%d", r.IntN(4), r.IntN(12))
			switch r.IntN(6) {
			case 0:
				actions = append(actions, graph.FileAction{Rm: &graph.FileRm{Path: "/to" + somewhere, MayMiss: true}})
			case 1:
				actions = append(actions, graph.FileAction{Mkdir: &graph.FileMkdir{Path: "/to" + somewhere + "/made", Mode: 0o700, Parents: true}})
			case 2:
				actions = append(actions, graph.FileAction{Copy: &graph.FileCopy{Input: 0, Src: "/to", Dest: "/again", CreateDestPath: true, DirContents: true}})
			default:
				c := &graph.FileCopy{Input: 1, Src: []string{"/", "/n0", "/n1"}[r.IntN(3)], Dest: []string{"/to", "/to/", "/n1/deep/"}[r.IntN(3)], CreateDestPath: true, DirContents: r.IntN(2) == 0, ReplaceExisting: r.IntN(2) == 0}
				if r.IntN(4) == 0 {
					mode := uint32(0o755)
					c.Mode = &mode
				}
				if r.IntN(4) == 0 {
					c.Owner = &graph.Owner{User: &graph.Account{ID: 0}, Group: &graph.Account{ID: 0}}
				}
				actions = append(actions, graph.FileAction{Copy: c})
			}
		}
		apply := func(exclude []string) ([]byte, error) {
			u := layer.NewUpper(base, now)
			for _, a := range actions {
				if a.Copy != nil && a.Copy.Input > 0 {
					a.Copy.Exclude = exclude
				}
			}
			if err := fileop.Apply(t.Context(), u, graph.File{Actions: actions}, fileop.Inputs{base, src}, fileop.Options{}); err != nil {
				return nil, err
			}
			var buf bytes.Buffer
			require.NoError(t, u.WriteTo(t.Context(), &buf))
			return buf.Bytes(), nil
		}
		whole, err := apply(nil)
		single, wantErr := apply([]string{"nothing-is-called-this"})
		if wantErr != nil {
			require.Error(t, err, "round %d", round)
			assert.Equal(t, wantErr.Error(), err.Error())
			continue
		}
		require.NoError(t, err, "round %d", round)
		require.True(t, bytes.Equal(single, whole), "round %d: %+v", round, actions)
	}
}

package layer

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestChain(t *testing.T) {
	for name, tc := range map[string]struct {
		layers [][]byte
		want   []string // names
	}{
		"files over files": {
			layers: [][]byte{
				archive(t, dir("a").moded(0o700).at(7), file("a/x", "1"), file("b", "2")),
				archive(t, file("a/x", "3").owned(5, 6), file("a/y", "4")),
			},
			want: []string{"a", "a/x", "a/y", "b"},
		},
		"whiteouts": {
			layers: [][]byte{
				archive(t, dir("a"), file("a/x", "1"), file("a/y", "1"), dir("b"), file("b/x", "2"), dir("c"), file("c/x", "2")),
				archive(t, file("a/.wh.x", ""), file(".wh.b", ""), file("c/z", "3"), file("c/.wh..wh..opq", "")),
			},
			want: []string{"a", "a/y", "c", "c/z"},
		},
		"whiteout and the same name": {
			layers: [][]byte{
				archive(t, dir("a").moded(0o711).at(3), file("a/x", "1"), file("f", "1"), dir("d").owned(4, 4), file("d/low", "1")),
				archive(t, file(".wh.a", ""), dir("a").moded(0o700), file("a/y", "2"), file("f", "2"), file(".wh.f", ""), file("d/new", "2"), file(".wh.d", "")),
			},
			want: []string{"a", "a/y", "d", "d/new", "f"},
		},
		"directory replaced and back": {
			layers: [][]byte{
				archive(t, dir("a"), file("a/x", "1")),
				archive(t, file("a", "1")),
				archive(t, dir("a"), file("a/y", "1")),
			},
			want: []string{"a", "a/y"},
		},
		"one layer, dir, file, dir": {
			layers: [][]byte{
				archive(t, dir("a"), file("a/x", "1")),
				archive(t, dir("a"), file("a/w", "1"), file("a", "2"), dir("a"), file("a/y", "3")),
			},
			want: []string{"a", "a/y"},
		},
		"symlinked parent of a lower layer": {
			layers: [][]byte{
				archive(t, dir("usr").moded(0o751), dir("usr/lib").moded(0o750).at(9), symlink("lib", "usr/lib"), file("usr/lib/a", "1")),
				archive(t, file("lib/b", "2"), file("lib/.wh.a", "")),
			},
			want: []string{"lib", "usr", "usr/lib", "usr/lib/b"},
		},
		"hard links": {
			layers: [][]byte{
				archive(t, file("a", "1").moded(0o600), hardlink("b", "a"), hardlink("d/c", "/a"), hardlink("e", "later"), file("later", "x")),
				archive(t, hardlink("low", "b"), file("a", "other")),
			},
			want: []string{"a", "b", "d", "d/c", "e", "later", "low"},
		},
		"hard link to what the layer replaces later": {
			layers: [][]byte{archive(t, file("b", "old")), archive(t, hardlink("a", "b"), file("b", "new"))},
			want:   []string{"a", "b"},
		},
		"hard link to a symlink, a fifo and a device": {
			layers: [][]byte{
				archive(t, symlink("s", "nowhere").owned(3, 3), hardlink("t", "s"), fifo("f"), hardlink("g", "f"), char("n", 1, 3), hardlink("o", "n")),
			},
			want: []string{"f", "g", "n", "o", "s", "t"},
		},
		"parents that nobody describes": {
			layers: [][]byte{
				archive(t, file("a/b/c", "1"), symlink("l", "gone/far")),
				archive(t, file("l/x", "1")),
			},
			want: []string{"a", "a/b", "a/b/c", "gone", "gone/far", "gone/far/x", "l"},
		},
		"attributes of a directory change": {
			layers: [][]byte{
				archive(t, dir("a").owned(5, 5).xattr("user.x", "1"), file("a/f", "").xattr("user.overlay.opaque", "y")),
				archive(t, dir("a").moded(0o700)),
			},
			want: []string{"a", "a/f"},
		},
		"everything at the top hidden": {
			layers: [][]byte{
				archive(t, dir("a"), file("a/x", "1"), file("b", "2"), symlink("c", "a")),
				archive(t, file("a/new", "3"), file(".wh..wh..opq", ""), file("d", "4")),
			},
			want: []string{"a", "a/new", "d"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := checkChain(t, tc.layers...)
			require.NoError(t, err)
			assert.Equal(t, tc.want, names(t, mustView(t, tc.layers...)))
		})
	}
}

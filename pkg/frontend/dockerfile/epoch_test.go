package dockerfile_test

import (
	"archive/tar"
	"bytes"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
)

// commit is one as git keeps it.
const commit = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor a <a@e.org> 1600000000 +0200\ncommitter c <c@e.org> 1600000007 -0100\n\nsubject\n"

// archive is a tar of one file of that time.
func archive(t *testing.T, seconds int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := "FROM scratch\nCOPY . /\n"
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(seconds, 0)}))
	_, err := w.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// TestEpochOfASource lets the time of a source be SOURCE_DATE_EPOCH.
func TestEpochOfASource(t *testing.T) {
	modified := time.Unix(1650000000, 0).UTC()
	const text = "FROM scratch\nCOPY . /\n"
	const stage = "FROM scratch AS src\nADD https://e.org/f /\nFROM scratch\nCOPY --from=src / /\n"
	for name, tc := range map[string]struct {
		context string // "": a directory
		text    string
		value   string
		origin  dockerfile.Origin
		file    []byte // what the URL brings
		named   map[string]dockerfile.Context
		want    int64 // 0: none
	}{
		"git":               {context: "https://e.org/r.git#main", value: "context", origin: dockerfile.Origin{Object: []byte(commit)}, want: 1600000007},
		"http":              {context: "https://e.org/r.tar", value: "context", origin: dockerfile.Origin{LastModified: &modified}, file: archive(t, 5), want: 1650000000},
		"http without time": {context: "https://e.org/r.tar", value: "context", file: archive(t, 1500000000), want: 1500000000},
		"directory":         {value: "context"},
		"stage":             {text: stage, value: "src", origin: dockerfile.Origin{LastModified: &modified}, want: 1650000000},
		"named git": {
			value: "other", named: map[string]dockerfile.Context{"other": {Value: "https://e.org/r.git"}},
			origin: dockerfile.Origin{Object: []byte(commit)}, want: 1600000007,
		},
		"number": {value: "7", want: 7},
	} {
		t.Run(name, func(t *testing.T) {
			h := busybox()
			h.origin = tc.origin
			h.files = fstest.MapFS{"Dockerfile": {Data: []byte(text)}, "context": {Data: tc.file}}
			o := dockerfile.Options{Machine: amd64, Host: h, Args: map[string]string{"SOURCE_DATE_EPOCH": tc.value}}
			o.Contexts = tc.named
			if o.Context = tc.context; o.Context == "" {
				if tc.text == "" {
					tc.text = text
				}
				o.Context = write(t, map[string]string{"Dockerfile": tc.text})
			}
			b, err := dockerfile.Build(t.Context(), o)
			require.NoError(t, err)
			epoch := b.Targets[0].Image.Epoch
			if tc.want == 0 {
				assert.Nil(t, epoch)
				return
			}
			require.NotNil(t, epoch)
			assert.Equal(t, tc.want, *epoch)
		})
	}
	t.Run("nothing of that name", func(t *testing.T) {
		_, err := build(t, text, func(o *dockerfile.Options) { o.Args = map[string]string{"SOURCE_DATE_EPOCH": "nowhere"} })
		require.ErrorIs(t, err, dockerfile.ErrInvalid)
	})
}

// TestEpochOfAnArchiveOfThisMachine takes the time of its newest file: nobody else says when it is from.
func TestEpochOfAnArchiveOfThisMachine(t *testing.T) {
	h := busybox()
	raw := archive(t, 1500000000)
	h.files = fstest.MapFS{"Dockerfile": {Data: []byte("FROM scratch\nCOPY . /\n")}}
	dir := write(t, map[string]string{"context": string(raw)})
	o := dockerfile.Options{Machine: amd64, Host: h, Args: map[string]string{"SOURCE_DATE_EPOCH": "context"}}
	o.Archive = dir + "/context"
	b, err := dockerfile.Build(t.Context(), o)
	require.NoError(t, err)
	require.NotNil(t, b.Targets[0].Image.Epoch)
	assert.EqualValues(t, 1500000000, *b.Targets[0].Image.Epoch)
}

package build_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// packing is a project with one large file, built again and again in one store.
type packing struct {
	dir, root string
	from      int64 // build.Options.PackedFrom
}

func newPacking(t *testing.T, from int64) *packing {
	t.Helper()
	p := &packing{dir: t.TempDir(), root: t.TempDir(), from: from}
	require.NoError(t, os.MkdirAll(filepath.Join(p.dir, "context"), 0o755))
	big, at := filepath.Join(p.dir, "context", "big"), time.Unix(1_700_000_000, 0)
	require.NoError(t, os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o644))
	require.NoError(t, os.Chtimes(big, at, at)) // it is in the layer
	return p
}

// build makes an output of a Dockerfile.
func (p *packing) build(t *testing.T, dockerfile, out string) (res build.Result) {
	t.Helper()
	file := filepath.Join(p.dir, "Dockerfile")
	require.NoError(t, os.WriteFile(file, []byte(dockerfile), 0o644))
	st, err := store.Open(t.Context(), p.root, store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	spec, err := output.Parse(out)
	require.NoError(t, err)
	name, err := ref.ParseTag("app:1")
	require.NoError(t, err)
	epoch := int64(0)
	contexts := map[string]string{}
	if strings.Contains(dockerfile, "FROM box") {
		contexts["box"] = "oci-layout://" + filepath.Join(p.dir, "box") + ":latest"
	}
	res, err = build.Run(t.Context(), st, build.Request{
		File: file, ContextDir: filepath.Join(p.dir, "context"), Dockerfile: &build.Dockerfile{}, Epoch: &epoch,
		Platforms: []platform.Platform{{OS: "linux", Arch: runtime.GOARCH}}, Outputs: []output.Spec{spec}, Tags: []ref.Ref{name},
		Contexts: contexts,
	}, build.Options{Path: os.Getenv("PATH"), PackedFrom: p.from})
	require.NoError(t, err)
	return res
}

// has reports whether the store has a blob.
func (p *packing) has(d digest.Digest) bool {
	_, err := os.Stat(filepath.Join(p.root, "blobs", "sha256", d.Encoded()))
	return err == nil
}

// records counts step records.
func (p *packing) records(t *testing.T) (n int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(filepath.Join(p.root, solve.RecordKind), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	}))
	return n
}

// diffID is that of an image's layer.
func diffID(res build.Result, i int) digest.Digest { return res.Images[0].DiffIDs[i] }

const packingFile = "FROM scratch\nCOPY big /data/big\n"

// TestALayerIsReadFromItsCompressedForm: what is built on a layer that the store has in one compression only is what it is on one that
// it has as it is, and the layer is not made again for it.
func TestALayerIsReadFromItsCompressedForm(t *testing.T) {
	small := "COPY big /more\n"
	for name, tc := range map[string]struct {
		file, out string
		read      bool // it is unpacked for that
	}{
		"the same":                {file: packingFile, out: "type=image,compression=zstd"},
		"a step on it":            {file: packingFile + small, out: "type=image,compression=zstd"},
		"gzip":                    {file: packingFile, out: "type=image"},
		"estargz":                 {file: packingFile, out: "type=image,compression=estargz"},
		"uncompressed":            {file: packingFile, out: "type=image,compression=uncompressed", read: true},
		"with other times":        {file: packingFile, out: "type=image,compression=zstd,rewrite-timestamp=true"},
		"an archive":              {file: packingFile, out: "type=oci,compression=zstd,dest=OUT"},
		"docker's archive":        {file: packingFile, out: "type=docker,dest=OUT"},
		"a tar of its files":      {file: packingFile, out: "type=tar,dest=OUT", read: true},
		"files that a step reads": {file: "FROM scratch AS a\nCOPY big /data/big\nFROM scratch\nCOPY --from=a /data /d\n", out: "type=image,compression=zstd", read: true},
	} {
		t.Run(name, func(t *testing.T) {
			var results []build.Result
			var written [][]byte
			for _, from := range []int64{1, 1 << 40} { // packed, and not
				p := newPacking(t, from)
				first := p.build(t, packingFile, "type=image,compression=zstd")
				layer := diffID(first, 0)
				assert.Equal(t, from > 1, p.has(layer))
				assert.True(t, p.has(first.Images[0].Layers[0].Digest))
				before := p.records(t)
				dest := filepath.Join(p.dir, "out")
				results = append(results, p.build(t, tc.file, strings.ReplaceAll(tc.out, "OUT", dest)))
				if data, err := os.ReadFile(dest); err == nil {
					written = append(written, data)
				}
				if tc.file == packingFile {
					assert.Equal(t, before, p.records(t), "the step was not found in the cache")
				}
				assert.Equal(t, from > 1 || tc.read, p.has(layer))
				st, err := store.Open(t.Context(), p.root, store.Options{})
				require.NoError(t, err)
				found, err := st.Check(t.Context(), store.CheckOptions{ReadData: true})
				require.NoError(t, err)
				assert.Empty(t, found)
				require.NoError(t, st.Close())
			}
			assert.Equal(t, results[1].Root.Digest, results[0].Root.Digest)
			if len(written) > 0 {
				require.Len(t, written, 2)
				assert.True(t, bytes.Equal(written[0], written[1]))
			}
		})
	}
}

// TestACollectionKeepsWhatStepsAreOn: the record of a step keeps the form that there is of its layer.
func TestACollectionKeepsWhatStepsAreOn(t *testing.T) {
	p := newPacking(t, 1)
	first := p.build(t, packingFile, "type=oci,compression=zstd,dest="+filepath.Join(p.dir, "out"))
	st, err := store.Open(t.Context(), p.root, store.Options{})
	require.NoError(t, err)
	_, err = st.GC(t.Context(), store.GCOptions{})
	require.NoError(t, err)
	require.NoError(t, st.Close())
	assert.True(t, p.has(first.Images[0].Layers[0].Digest))
	before := p.records(t)
	again := p.build(t, packingFile, "type=image,compression=zstd")
	assert.Equal(t, first.Root.Digest, again.Root.Digest)
	assert.Equal(t, before, p.records(t))

	// What somebody took away is made again.
	require.NoError(t, os.Remove(filepath.Join(p.root, "blobs", "sha256", again.Images[0].Layers[0].Digest.Encoded())))
	again = p.build(t, packingFile, "type=image,compression=zstd")
	assert.Equal(t, first.Root.Digest, again.Root.Digest)
}

// TestAProcessRunsOnALayerThatIsKeptCompressed: it is unpacked from there for a later build's step.
func TestAProcessRunsOnALayerThatIsKeptCompressed(t *testing.T) {
	program, ok := busybox()
	if !ok {
		if os.Getenv("CI") == "true" {
			t.Fatal("this machine lacks Debian's package busybox-static")
		}
		t.Skip("this machine lacks Debian's package busybox-static: make deps")
	}
	p := newPacking(t, 1)
	box := testimage.Layer(testimage.Dir("bin"), testimage.Exec("bin/busybox", program), testimage.Symlink("bin/sh", "busybox")).Gzip()
	testimage.WriteLayout(t, filepath.Join(p.dir, "box"), map[string]testimage.Content{"latest": testimage.Image("linux/"+runtime.GOARCH, box)})
	copied := "FROM box\nCOPY big /big\n"
	first := p.build(t, copied, "type=image,compression=zstd")
	assert.False(t, p.has(diffID(first, 1)))
	run := copied + "RUN /bin/busybox sha256sum /big > /sum\n"
	second := p.build(t, run, "type=tar,dest="+filepath.Join(p.dir, "out"))
	assert.Equal(t, diffID(first, 1), diffID(second, 1))
	data, err := os.ReadFile(filepath.Join(p.dir, "out"))
	require.NoError(t, err)
	sum := digest.FromBytes(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
	assert.True(t, bytes.Contains(data, []byte(sum.Encoded()+"  /big\n")))
}

// TestALayerThatAStepReadsIsKeptAsItIs: where the definition says that it will be read it is not packed.
func TestALayerThatAStepReadsIsKeptAsItIs(t *testing.T) {
	p := newPacking(t, 1)
	two := p.build(t, "FROM scratch AS a\nCOPY big /data/big\nFROM a\nCOPY --from=a /data /d\n", "type=image,compression=zstd")
	assert.True(t, p.has(diffID(two, 0)))
	assert.False(t, p.has(diffID(two, 1)))
}

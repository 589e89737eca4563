package output

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

func readIndex(t testing.TB, dir string) ocispec.Index {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	require.NoError(t, err)
	var idx ocispec.Index
	require.NoError(t, json.Unmarshal(data, &idx))
	return idx
}

func readLayout(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		require.NoError(t, err)
		if e.Type().IsRegular() {
			rel, err := filepath.Rel(dir, p)
			require.NoError(t, err)
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			out[filepath.ToSlash(rel)] = data
		}
		return nil
	}))
	return out
}

func TestOCIArchive(t *testing.T) {
	epoch := int64(1700000000)
	env := Env{Stdout: &bytes.Buffer{}, Dir: t.TempDir()}
	p := productOf(t, []string{"r.example/hello:1.0", "hello"}, amd64(), arm())
	p.Epoch = &epoch
	require.NoError(t, open(t, env, "type=oci,dest=out.tar").Write(t.Context(), p))
	data, err := os.ReadFile(filepath.Join(env.Dir, "out.tar"))
	require.NoError(t, err)
	members := untar(t, data)
	requireBlobs(t, members, p)
	assert.JSONEq(t, `{"imageLayoutVersion":"1.0.0"}`, string(members["oci-layout"]))
	var idx ocispec.Index
	require.NoError(t, json.Unmarshal(members["index.json"], &idx))
	require.Len(t, idx.Manifests, 2)
	assert.Equal(t, map[string]string{
		"io.containerd.image.name": "r.example/hello:1.0", "org.opencontainers.image.ref.name": "1.0",
	}, idx.Manifests[0].Annotations)
	assert.Equal(t, "docker.io/library/hello:latest", idx.Manifests[1].Annotations["io.containerd.image.name"])
	assert.Equal(t, p.Root.Digest, idx.Manifests[1].Digest)

	require.NoError(t, open(t, env, "type=oci,dest=-").Write(t.Context(), p))
	buf, ok := env.Stdout.(*bytes.Buffer)
	require.True(t, ok)
	assert.Equal(t, data, buf.Bytes())
}

func TestOCILayoutKeepsOthers(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	dir := filepath.Join(env.Dir, "out")
	const arg = "type=oci,dest=out,tar=false"
	write := func(p Product) { require.NoError(t, open(t, env, arg).Write(t.Context(), p)) }
	entry := func(e ocispec.Descriptor) string {
		return e.Annotations["io.containerd.image.name"] + " " + e.Annotations["org.opencontainers.image.ref.name"] + " " + e.Digest.Encoded()[:6]
	}
	entries := func() (out []string) {
		for _, e := range readIndex(t, dir).Manifests {
			out = append(out, entry(e))
		}
		return out
	}
	first := productOf(t, []string{"a:1"}, amd64())
	second := productOf(t, []string{"a:2"}, arm())
	other := productOf(t, []string{"b:1"}, testimageOther())
	short := func(p Product) string { return p.Root.Digest.Encoded()[:6] }

	write(first)
	write(second)
	assert.Equal(t, []string{
		"docker.io/library/a:1 1 " + short(first), "docker.io/library/a:2 2 " + short(second),
	}, entries())

	// A name is replaced where it stands.
	again := productOf(t, []string{"a:1"}, arm())
	write(again)
	assert.Equal(t, []string{
		"docker.io/library/a:1 1 " + short(again), "docker.io/library/a:2 2 " + short(second),
	}, entries())

	// A tag belongs to who wrote it last; the older one keeps its full name.
	write(other)
	assert.Equal(t, []string{
		"docker.io/library/a:1 docker.io/library/a:1 " + short(again),
		"docker.io/library/a:2 2 " + short(second),
		"docker.io/library/b:1 1 " + short(other),
	}, entries())
	write(again)
	assert.Equal(t, []string{
		"docker.io/library/a:1 1 " + short(again),
		"docker.io/library/a:2 2 " + short(second),
		"docker.io/library/b:1 docker.io/library/b:1 " + short(other),
	}, entries())

	// Without a name nothing is replaced, and nothing is there twice.
	unnamed := productOf(t, nil, amd64(), arm())
	write(unnamed)
	write(unnamed)
	assert.Len(t, entries(), 4)
	assert.Equal(t, "  "+short(unnamed), entries()[3])
	assert.Empty(t, filesWith(t, dir, tempMark))
}

func filesWith(t testing.TB, dir, part string) (out []string) {
	for name := range readLayout(t, dir) {
		if strings.Contains(name, part) {
			out = append(out, name)
		}
	}
	return out
}

func TestOCILayoutKeepsUnknownFields(t *testing.T) {
	old := `{"schemaVersion":2,"x":{"b":1,"a":2},"manifests":[{"mediaType":"application/x","digest":"sha256:` + strings.Repeat("a", 64) +
		`","size":1,"y":[ ],"annotations":{"org.opencontainers.image.ref.name":"1","z":"ü"}},{"mediaType":"application/x","digest":"sha256:` +
		strings.Repeat("b", 64) + `","size":1}],"w":null}`
	p := productOf(t, []string{"a:1"}, amd64())
	// skopeo writes the tag alone: it is the same name.
	got, err := addToIndex([]byte(old), p.Root, p.Names)
	require.NoError(t, err)
	assert.Contains(t, string(got), `{"schemaVersion":2,"x":{"b":1,"a":2},"manifests":[{"mediaType":"`+ocispec.MediaTypeImageManifest)
	assert.Contains(t, string(got), `{"mediaType":"application/x","digest":"sha256:`+strings.Repeat("b", 64)+`","size":1}],"w":null}`)
	assert.NotContains(t, string(got), strings.Repeat("a", 64))

	p.Names = []ref.Ref{p.Names[0].WithTag("2")}
	got, err = addToIndex([]byte(old), p.Root, p.Names)
	require.NoError(t, err)
	assert.Contains(t, string(got), `"size":1,"y":[],"annotations":{"org.opencontainers.image.ref.name":"1","z":"ü"}}`)
}

// TestOCILayout/D09: writers at the same time each leave their entry.
func TestOCILayout(t *testing.T) {
	t.Run("D09_twenty_writers", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		var g errgroup.Group
		for i := range 20 {
			p := productOf(t, []string{"a:" + strconv.Itoa(i)}, amd64(), arm())
			d := open(t, env, "type=oci,dest=out,tar=false")
			g.Go(func() error { return d.Write(t.Context(), p) })
		}
		require.NoError(t, g.Wait())
		assert.Len(t, readIndex(t, filepath.Join(env.Dir, "out")).Manifests, 20)
		assert.Equal(t, []string{"out"}, files(t, env.Dir))
		assert.Empty(t, filesWith(t, env.Dir, tempMark))
	})
	t.Run("D11_a_blob_that_is_not_what_its_name_says_is_written_again", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		dir := filepath.Join(env.Dir, "out")
		p := productOf(t, []string{"a:1"}, amd64(), arm())
		require.NoError(t, open(t, env, "type=oci,dest=out,tar=false").Write(t.Context(), p))
		c, err := closureOf(t.Context(), p)
		require.NoError(t, err)
		damage := []func(string) error{
			func(f string) error { return os.Truncate(f, 3) },
			func(f string) error { return os.Truncate(f, 0) },
			func(f string) error {
				data, err := os.ReadFile(f)
				data[len(data)-1] ^= 1
				return joinErr(err, os.WriteFile(f, data, 0o644))
			},
			func(f string) error { return joinErr(os.Remove(f), os.Symlink("nowhere", f)) },
		}
		for i, desc := range c.all() {
			require.NoError(t, damage[i%len(damage)](filepath.Join(dir, filepath.FromSlash(blobPath(desc)))))
		}
		require.NoError(t, open(t, env, "type=oci,dest=out,tar=false").Write(t.Context(), p))
		requireBlobs(t, readLayout(t, dir), p)
	})
	t.Run("B01_content_that_is_not_what_its_digest_says", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		p := productOf(t, []string{"a:1"}, amd64())
		p.Images[0].Config = append(bytes.Clone(p.Images[0].Config), ' ')
		require.Error(t, open(t, env, "type=oci,dest=out,tar=false").Write(t.Context(), p))
		assert.Empty(t, files(t, env.Dir))
	})
	t.Run("G11_links_are_not_followed_out", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		dir := filepath.Join(env.Dir, "out")
		p := productOf(t, []string{"a:1"}, amd64())
		require.NoError(t, open(t, env, "type=oci,dest=out,tar=false").Write(t.Context(), p))
		outside := filepath.Join(env.Dir, "outside")
		require.NoError(t, os.Rename(filepath.Join(dir, "blobs"), outside))
		require.NoError(t, os.Symlink("../outside", filepath.Join(dir, "blobs")))
		before := readLayout(t, outside)
		require.Error(t, open(t, env, "type=oci,dest=out,tar=false").Write(t.Context(), productOf(t, []string{"a:2"}, arm())))
		assert.Equal(t, before, readLayout(t, outside))
		assert.Len(t, readIndex(t, dir).Manifests, 1)

		index := filepath.Join(dir, ocispec.ImageIndexFile)
		require.NoError(t, os.Rename(index, filepath.Join(outside, "index")))
		require.NoError(t, os.Symlink("../outside/index", index))
		s, err := Parse("type=oci,dest=out,tar=false")
		require.NoError(t, err)
		_, err = Open(s, env)
		require.ErrorContains(t, err, "not a regular file")
	})
	t.Run("waits_for_the_lock_until_canceled", func(t *testing.T) {
		env := Env{Dir: t.TempDir()}
		p := productOf(t, []string{"a:1"}, amd64())
		require.NoError(t, open(t, env, "type=oci,dest=out,tar=false").Write(t.Context(), p))
		unlock, err := lockDirectory(t.Context(), filepath.Join(env.Dir, "out"))
		require.NoError(t, err)
		defer unlock()
		ctx, cancel := context.WithCancelCause(t.Context())
		other := productOf(t, []string{"a:2"}, arm())
		done := make(chan error, 1)
		d := open(t, env, "type=oci,dest=out,tar=false")
		go func() { done <- d.Write(ctx, other) }()
		cancel(errBroken)
		require.ErrorIs(t, <-done, errBroken)
		assert.Len(t, readIndex(t, filepath.Join(env.Dir, "out")).Manifests, 1)
	})
}

func joinErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// tool finds a program of another project; the image of the CI has all of them.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install --no-install-recommends %[1]s", name)
	}
	return p
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %s\n%s", name, strings.Join(args, " "), stderr.String())
	return string(out)
}

func TestSkopeoReads(t *testing.T) {
	skopeo := tool(t, "skopeo")
	env := Env{Dir: t.TempDir()}
	at := func(name string) string { return filepath.Join(env.Dir, name) }
	p := productOf(t, []string{"r.example/hello:1.0"}, amd64(), arm())
	single := productOf(t, []string{"r.example/hello:1.0"}, amd64())
	require.NoError(t, open(t, env, "type=oci,dest=layout,tar=false").Write(t.Context(), p))
	require.NoError(t, open(t, env, "type=oci,dest=out.tar").Write(t.Context(), p))
	require.NoError(t, open(t, env, "type=docker,dest=docker.tar").Write(t.Context(), single))

	assert.Equal(t, string(p.Raw), run(t, skopeo, "inspect", "--raw", "oci:"+at("layout")+":1.0"))
	assert.Equal(t, string(p.Raw), run(t, skopeo, "inspect", "--raw", "oci-archive:"+at("out.tar")+":1.0"))
	assert.Contains(t, run(t, skopeo, "inspect", "--config", "--override-arch", "arm", "--override-variant", "v7", "oci:"+at("layout")+":1.0"), `"v7"`)
	run(t, skopeo, "copy", "--all", "--preserve-digests", "oci-archive:"+at("out.tar")+":1.0", "oci:"+at("copy")+":x")
	requireBlobs(t, readLayout(t, at("copy")), p)

	// skopeo's own entry stays beside ours.
	run(t, skopeo, "copy", "--all", "oci:"+at("layout")+":1.0", "oci:"+at("skopeo")+":theirs")
	require.NoError(t, open(t, env, "type=oci,dest=skopeo,tar=false").Write(t.Context(), single))
	assert.Equal(t, string(p.Raw), run(t, skopeo, "inspect", "--raw", "oci:"+at("skopeo")+":theirs"))
	assert.Equal(t, string(single.Raw), run(t, skopeo, "inspect", "--raw", "oci:"+at("skopeo")+":1.0"))

	for _, source := range []string{"docker-archive:" + at("docker.tar"), "docker-archive:" + at("docker.tar") + ":r.example/hello:1.0", "oci-archive:" + at("docker.tar")} {
		out := run(t, skopeo, "inspect", "--config", source)
		assert.JSONEq(t, string(single.Images[0].Config), out, source)
		run(t, skopeo, "copy", source, "dir:"+filepath.Join(t.TempDir(), "d"))
	}
}

func TestUmociUnpacks(t *testing.T) {
	umoci := tool(t, "umoci")
	env := Env{Dir: t.TempDir()}
	require.NoError(t, open(t, env, "type=oci,dest=layout,tar=false").Write(t.Context(), productOf(t, []string{"hello:1.0"}, amd64())))
	bundle := filepath.Join(env.Dir, "bundle")
	args := []string{"unpack", "--image", filepath.Join(env.Dir, "layout") + ":1.0"}
	if os.Geteuid() != 0 {
		args = append(args, "--rootless")
	}
	run(t, umoci, append(args, bundle)...)
	got, err := os.ReadFile(filepath.Join(bundle, "rootfs", "etc", "motd"))
	require.NoError(t, err)
	assert.Equal(t, "amd64\n", string(got))
}

func FuzzAddToIndex(f *testing.F) {
	p := productOf(f, []string{"a:1", "b:1", "a:2"}, amd64())
	for _, s := range []string{
		`{"schemaVersion":2,"manifests":[]}`, `{"schemaVersion":2,"manifests":null}`, `{"schemaVersion":2}`, `{}`, `[]`, `null`,
		`{"schemaVersion":2,"manifests":[{"annotations":{"org.opencontainers.image.ref.name":"1"}},{"annotations":null},{"annotations":{"io.containerd.image.name":"x","org.opencontainers.image.ref.name":"2"}}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, old []byte) {
		got, err := addToIndex(old, p.Root, p.Names)
		if err != nil {
			return
		}
		again, err := addToIndex(got, p.Root, p.Names)
		require.NoError(t, err)
		require.Equal(t, string(got), string(again))
		var idx ocispec.Index
		require.NoError(t, json.Unmarshal(got, &idx))
		tags := map[string]int{}
		for _, e := range idx.Manifests {
			tags[e.Annotations[ocispec.AnnotationRefName]]++
		}
		for _, tag := range []string{"1", "2"} {
			require.Equal(t, 1, tags[tag])
		}
	})
}

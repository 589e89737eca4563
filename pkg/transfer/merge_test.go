package transfer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

func sourcesOf(refs ...ref.Ref) []MergeSource {
	var out []MergeSource
	for _, r := range refs {
		out = append(out, MergeSource{Ref: r})
	}
	return out
}

func mustMerge(t testing.TB, env Env, name ref.Ref, o MergeOptions, refs ...ref.Ref) (Merged, *index.Index) {
	t.Helper()
	got, err := Merge(t.Context(), env, []ref.Ref{name}, sourcesOf(refs...), o)
	require.NoError(t, err)
	idx, err := index.Parse(got.Raw)
	require.NoError(t, err)
	require.Equal(t, got.Desc.Digest, digest.FromBytes(got.Raw))
	return got, idx
}

func TestMerge(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	other, _ := serveRegistry(t)
	env := withStore(t, newEnv(t))
	amd, arm, arm2, s390x := image("linux/amd64", "1"), image("linux/arm64", "1"), image("linux/arm64", "2"), image("linux/s390x", "1")
	rAmd, rArm, rArm2 := at(t, "%s/app:amd64", host), at(t, "%s/other/app:arm64", host), at(t, "%s/app:arm64-2", other)
	rStore, rOCI := at(t, "store:app:s390x"), at(t, "oci:app:arm64")
	rIndex, rNested := at(t, "%s/app:index", other), at(t, "oci-archive:nested.tar:1")
	put(t, env, amd, rAmd)
	put(t, env, arm, rArm, rOCI)
	put(t, env, arm2, rArm2)
	put(t, env, s390x, rStore)
	whole := testimage.Index(amd, arm, attestation(amd))
	put(t, env, whole, rIndex)
	put(t, env, testimage.Index(amd, testimage.Index(s390x)), rNested)

	t.Run("from everywhere to everywhere", func(t *testing.T) {
		for i, dst := range []ref.Ref{at(t, "%s/m:1", host), at(t, "%s/m:1", other), at(t, "oci:m:1"), at(t, "oci-archive:m.tar:1"), at(t, "store:m:1")} {
			got, idx := mustMerge(t, env, dst, MergeOptions{}, rAmd, rOCI, rStore)
			require.Len(t, idx.Manifests, 3, i)
			assert.Equal(t, []string{"amd64", "arm64", "s390x"}, architectures(idx))
			assert.Equal(t, got.Desc.Digest, requireWhole(t, env, dst).Digest)
		}
	})
	t.Run("an index is taken apart", func(t *testing.T) {
		_, idx := mustMerge(t, env, at(t, "%s/apart:1", host), MergeOptions{}, rNested, rArm)
		assert.Equal(t, []string{"amd64", "s390x", "arm64"}, architectures(idx))
		_, idx = mustMerge(t, env, at(t, "%s/apart:2", host), MergeOptions{Nested: true}, rNested, rArm)
		require.Len(t, idx.Manifests, 2)
		assert.Equal(t, ocispec.MediaTypeImageIndex, idx.Manifests[0].MediaType)
		requireWhole(t, env, at(t, "%s/apart:2", host))
	})
	t.Run("B14 a lone index keeps its bytes", func(t *testing.T) {
		got, _ := mustMerge(t, env, at(t, "%s/lone:1", host), MergeOptions{}, rIndex)
		assert.Equal(t, whole.Desc.Digest, got.Desc.Digest)
		requireWhole(t, env, at(t, "%s/lone:1", host))
	})
	t.Run("a lone image", func(t *testing.T) {
		_, idx := mustMerge(t, env, at(t, "%s/lone:2", host), MergeOptions{}, rAmd)
		require.Len(t, idx.Manifests, 1)
		got, err := Merge(t.Context(), env, []ref.Ref{at(t, "%s/lone:3", host)}, sourcesOf(rAmd), MergeOptions{Single: true})
		require.NoError(t, err)
		assert.Equal(t, amd.Desc.Digest, got.Desc.Digest)
	})
	t.Run("B11 a platform twice", func(t *testing.T) {
		dst := at(t, "%s/twice:1", host)
		_, err := Merge(t.Context(), env, []ref.Ref{dst}, sourcesOf(rArm, rArm2), MergeOptions{})
		require.ErrorIs(t, err, index.ErrDuplicate)
		for _, want := range []string{"linux/arm64", arm.Desc.Digest.String(), arm2.Desc.Digest.String(), rArm.String(), rArm2.String()} {
			assert.ErrorContains(t, err, want)
		}
		_, err = env.Registry.Resolve(t.Context(), dst)
		require.ErrorIs(t, err, registry.ErrNotFound)
		_, idx := mustMerge(t, env, dst, MergeOptions{Replace: true}, rArm, rArm2)
		assert.Equal(t, arm2.Desc.Digest, idx.Manifests[0].Digest)
		_, idx = mustMerge(t, env, dst, MergeOptions{}, rArm, rOCI)
		assert.Len(t, idx.Manifests, 1, "the same twice is once")
	})
	t.Run("platforms", func(t *testing.T) {
		o := MergeOptions{Options: Options{Platforms: []platform.Platform{parsed(t, "linux/amd64")}}}
		_, idx := mustMerge(t, env, at(t, "%s/platforms:1", host), o, rIndex)
		require.Len(t, idx.Manifests, 2)
		assert.Equal(t, amd.Desc.Digest, index.Attests(idx.Manifests[1]))
		o.Platforms = []platform.Platform{parsed(t, "linux/riscv64")}
		_, err := Merge(t.Context(), env, []ref.Ref{at(t, "%s/platforms:2", host)}, sourcesOf(rIndex), o)
		require.ErrorIs(t, err, source.ErrNotFound)
	})
	t.Run("a platform that is set", func(t *testing.T) {
		v7, armv := "v7", "arm"
		dst := at(t, "%s/set:1", host)
		got, err := Merge(t.Context(), env, []ref.Ref{dst}, []MergeSource{{Ref: rArm, Platform: index.PlatformPatch{Arch: &armv, Variant: &v7}}}, MergeOptions{})
		require.NoError(t, err)
		idx, err := index.Parse(got.Raw)
		require.NoError(t, err)
		assert.Equal(t, ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}, *idx.Manifests[0].Platform)
	})
	t.Run("annotations", func(t *testing.T) {
		var o MergeOptions
		for _, a := range []string{
			"a=index", "index:b=c:d", "manifest-descriptor[linux/arm64]:note=slow", "manifest[linux/amd64]:m=1", "index-descriptor:i=1",
		} {
			list, err := ParseAnnotation(a)
			require.NoError(t, err)
			o.Annotations = append(o.Annotations, list...)
		}
		for _, dst := range []ref.Ref{at(t, "%s/annotated:1", host), at(t, "oci:annotated:1")} {
			_, idx := mustMerge(t, env, dst, o, rIndex)
			requireWhole(t, env, dst)
			assert.Equal(t, map[string]string{"a": "index", "b": "c:d"}, idx.Annotations)
			require.Len(t, idx.Manifests, 3)
			assert.NotEqual(t, amd.Desc.Digest, idx.Manifests[0].Digest)
			assert.Equal(t, map[string]string{"note": "slow"}, idx.Manifests[1].Annotations)
			assert.Equal(t, arm.Desc.Digest, idx.Manifests[1].Digest)
			assert.Equal(t, idx.Manifests[0].Digest, index.Attests(idx.Manifests[2]), "B13 it is about the changed manifest")
			img, err := env.opener().Open(t.Context(), dst)
			require.NoError(t, err)
			m, _, err := source.ReadManifest(t.Context(), img, idx.Manifests[0])
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"m": "1"}, m.Annotations)
			require.NoError(t, img.Close())
		}
	})
	t.Run("docker's types", func(t *testing.T) {
		d := at(t, "%s/docker:amd64", host)
		put(t, env, testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/amd64"), d)
		_, idx := mustMerge(t, env, at(t, "%s/docker:1", host), MergeOptions{}, d)
		assert.Equal(t, index.MediaTypeDockerList, idx.MediaType)
		got, idx := mustMerge(t, env, at(t, "%s/docker:2", host), MergeOptions{Annotations: []Annotation{{Level: LevelIndex, Key: "a", Value: "b"}}}, d)
		assert.Equal(t, ocispec.MediaTypeImageIndex, idx.MediaType)
		assert.Equal(t, "b", idx.Annotations["a"])
		assert.NotEmpty(t, got.Notes, "it says so")
	})
	t.Run("append to a layout and the store", func(t *testing.T) {
		for _, dst := range []ref.Ref{at(t, "oci:appended:1"), at(t, "store:appended:1")} {
			for _, r := range []ref.Ref{rAmd, rArm} {
				_, err := Merge(t.Context(), env, []ref.Ref{dst}, sourcesOf(r), MergeOptions{Append: true})
				require.NoError(t, err)
			}
			_, err := Merge(t.Context(), env, []ref.Ref{dst}, sourcesOf(rArm2), MergeOptions{Append: true})
			require.ErrorIs(t, err, index.ErrDuplicate)
			img, err := env.opener().Open(t.Context(), dst)
			require.NoError(t, err)
			idx, err := source.ReadIndex(t.Context(), img, img.Root())
			require.NoError(t, err)
			require.NoError(t, img.Close())
			assert.Equal(t, []string{"amd64", "arm64"}, architectures(idx))
			requireWhole(t, env, dst)
		}
	})
	t.Run("append to several tags", func(t *testing.T) {
		tags := []ref.Ref{at(t, "%s/several:1", host), at(t, "%s/several:2", host), at(t, "%s/several:1", other)}
		for _, r := range []ref.Ref{rAmd, rStore} {
			_, err := Merge(t.Context(), env, tags, sourcesOf(r), MergeOptions{Append: true})
			require.NoError(t, err)
		}
		for _, tag := range tags {
			assert.Len(t, platformsOf(t, env, tag), 2)
			requireWhole(t, env, tag)
		}
	})
	t.Run("a dry run", func(t *testing.T) {
		dst := at(t, "%s/dry:1", host)
		got, _ := mustMerge(t, env, dst, MergeOptions{Options: Options{DryRun: true}}, rAmd, rArm2)
		_, err := env.Registry.Resolve(t.Context(), dst)
		require.ErrorIs(t, err, registry.ErrNotFound)
		run, _ := mustMerge(t, env, dst, MergeOptions{}, rAmd, rArm2)
		assert.Equal(t, run.Desc, got.Desc)
		more, _ := mustMerge(t, env, dst, MergeOptions{Append: true, Options: Options{DryRun: true}}, rStore)
		assert.Len(t, platformsOf(t, env, dst), 2)
		run, _ = mustMerge(t, env, dst, MergeOptions{Append: true}, rStore)
		assert.Equal(t, run.Desc, more.Desc)
	})
	t.Run("missing sources", func(t *testing.T) {
		none := at(t, "%s/none:1", host)
		_, err := Merge(t.Context(), env, []ref.Ref{at(t, "%s/x:1", host)}, sourcesOf(rAmd, none), MergeOptions{})
		require.ErrorIs(t, err, source.ErrNotFound)
		got, err := Merge(t.Context(), env, []ref.Ref{at(t, "%s/x:1", host)}, []MergeSource{{Ref: rAmd}, {Ref: none, Optional: true}}, MergeOptions{})
		require.NoError(t, err)
		assert.Len(t, got.Notes, 1)
	})
}

func architectures(idx *index.Index) []string {
	var out []string
	for _, m := range idx.Manifests {
		if m.Platform != nil {
			out = append(out, m.Platform.Architecture)
		}
	}
	return out
}

func TestMerge_condition(t *testing.T) {
	t.Parallel()
	for name, start := range registries {
		t.Run("B26 "+name, func(t *testing.T) {
			host, c := start(t)
			env := newEnv(t)
			src, dst := at(t, "%s/app:amd64", host), at(t, "%s/app:1", host)
			put(t, env, image("linux/amd64", "1"), src)
			merge := func(c Condition, key string, appending bool) (Merged, error) {
				return Merge(t.Context(), env, []ref.Ref{dst}, sourcesOf(src), MergeOptions{
					Options: Options{Condition: c}, Append: appending,
					Annotations: []Annotation{{Level: LevelIndex, Key: key, Value: key}},
				})
			}
			first, err := merge(Condition{None: true}, "1", false)
			require.NoError(t, err)
			_, err = merge(Condition{None: true}, "2", false)
			require.ErrorIs(t, err, ErrConflict)
			second, err := merge(Condition{Match: first.Desc.Digest}, "2", false)
			require.NoError(t, err)
			for _, appending := range []bool{false, true} {
				_, err = merge(Condition{Match: first.Desc.Digest}, "3", appending)
				require.ErrorIs(t, err, ErrConflict)
			}
			assert.Equal(t, second.Desc.Digest, requireWhole(t, env, dst).Digest)
			if name != "serve" {
				return
			}
			// Between the look and the push: our own registry refuses.
			var raced atomic.Bool
			c.setHook(func(_ http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPut && raced.CompareAndSwap(false, true) {
					own := newEnv(t)
					_, err := Merge(t.Context(), own, []ref.Ref{dst}, sourcesOf(src), MergeOptions{})
					assert.NoError(t, err)
				}
				return false
			})
			_, err = merge(Condition{Match: second.Desc.Digest}, "4", false)
			require.ErrorIs(t, err, ErrConflict)
		})
	}
}

// TestMerge_requests: an index of N images from one repository takes 2N+1 requests, however many, and not many round trips.
func TestMerge_requests(t *testing.T) {
	for name, start := range registries {
		for _, n := range []int{1, 10, 50} {
			t.Run(fmt.Sprintf("%s %d", name, n), func(t *testing.T) {
				host, c := start(t)
				env := newEnv(t)
				var refs []ref.Ref
				for i := range n {
					r := at(t, "%s/app:%d", host, i)
					put(t, env, image(fmt.Sprintf("linux/arch%d", i), "x"), r)
					refs = append(refs, r)
				}
				env = newEnv(t)
				c.reset()
				c.gather(min(n, 10))
				got, _ := mustMerge(t, env, at(t, "%s/app:all", host), MergeOptions{}, refs...)
				assert.GreaterOrEqual(t, c.atOnce(), min(n, 10), "few round trips: requests at once")
				lines := c.reset()
				assert.Len(t, lines, 2*n+1)
				assert.EqualValues(t, 2*n+1, got.Requests)
				assert.Equal(t, 1, countOf(lines, "PUT manifests"))

				tags := []ref.Ref{at(t, "%s/app:a", host), at(t, "%s/app:b", host), at(t, "%s/app:c", host)}
				_, err := Merge(t.Context(), env, tags, sourcesOf(refs...), MergeOptions{})
				require.NoError(t, err)
				puts := countOf(c.reset(), "PUT manifests")
				if name == "serve" {
					assert.Equal(t, 1, puts, "OCI-Tag: all tags at once")
				} else {
					assert.Equal(t, 4, puts)
				}
				for _, tag := range tags {
					requireWhole(t, env, tag)
				}
			})
		}
	}
}

// TestMerge_peers: skopeo, podman and buildah read what is made.
func TestMerge_peers(t *testing.T) {
	t.Parallel()
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			host, _ := start(t)
			env := newEnv(t)
			dst := at(t, "%s/app:1", host)
			whole := app()
			put(t, env, whole, at(t, "%s/app:whole", host))
			put(t, env, image("linux/ppc64le", "x"), at(t, "%s/app:ppc64le", host))
			_, err := Merge(t.Context(), env, []ref.Ref{dst}, sourcesOf(at(t, "%s/app:whole", host)), MergeOptions{Append: true})
			require.NoError(t, err)
			got, idx := mustMerge(t, env, dst, MergeOptions{Append: true}, at(t, "%s/app:ppc64le", host))
			require.Len(t, idx.Manifests, 6)
			for peer, args := range map[string][]string{
				"skopeo":  {"inspect", "--raw", "--tls-verify=false", "docker://" + dst.String()},
				"podman":  {"manifest", "inspect", dst.String()},
				"buildah": {"manifest", "inspect", dst.String()},
			} {
				t.Run(peer, func(t *testing.T) {
					out := runPeer(t, host, peer, args...)
					var doc ocispec.Index
					require.NoError(t, json.Unmarshal(out, &doc))
					var want, have []digest.Digest
					for i := range idx.Manifests {
						want = append(want, idx.Manifests[i].Digest)
					}
					for _, m := range doc.Manifests {
						have = append(have, m.Digest)
					}
					assert.Equal(t, want, have)
					if peer == "skopeo" {
						assert.Equal(t, got.Raw, out)
					}
				})
			}
			t.Run("skopeo copies all of it", func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "out")
				runPeer(t, host, "skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+dst.String(), "oci:"+dir+":1")
				assert.Equal(t, got.Desc.Digest, requireWhole(t, env, at(t, "oci:%s:1", dir)).Digest)
				_, err := Copy(t.Context(), env, dst, at(t, "oci:%s:1", dir+"2"), Options{})
				require.NoError(t, err)
				runPeer(t, host, "skopeo", "copy", "--all", "--preserve-digests", "oci:"+dir+"2:1", "oci:"+dir+"3:1")
				assert.Equal(t, got.Desc.Digest, requireWhole(t, env, at(t, "oci:%s:1", dir+"3")).Digest)
			})
		})
	}
}

// runPeer runs a tool of Debian's with nothing of the user's.
func runPeer(t *testing.T, host, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("this machine lacks %s: make deps", name)
	}
	home := t.TempDir()
	policy := filepath.Join(home, ".config", "containers", "policy.json")
	require.NoError(t, os.MkdirAll(filepath.Dir(policy), 0o755))
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o644))
	storage := filepath.Join(home, "storage.conf")
	require.NoError(t, os.WriteFile(storage, fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(home, "graph"), filepath.Join(home, "run")), 0o644))
	registries := filepath.Join(home, "registries.conf")
	require.NoError(t, os.WriteFile(registries, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", host), 0o644))
	if name == "buildah" { // it does not look at the variable
		args = append([]string{"--registries-conf", registries}, args...)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+filepath.Join(home, ".config"), "XDG_RUNTIME_DIR="+home,
		"XDG_DATA_HOME="+filepath.Join(home, "data"), "CONTAINERS_STORAGE_CONF="+storage, "CONTAINERS_REGISTRIES_CONF="+registries, "STORAGE_DRIVER=vfs")
	var stderr []byte
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil {
		if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // it is that
			exit, stderr = e, e.Stderr
		}
		require.NoError(t, err, "%v\n%s", exit, stderr)
	}
	return out
}

func TestParseAnnotation(t *testing.T) {
	arm := parsed(t, "linux/arm64")
	for name, tc := range map[string]struct {
		in      string
		want    []Annotation
		wantErr error
	}{
		"bare":           {in: "k=v", want: []Annotation{{Level: LevelIndex, Key: "k", Value: "v"}}},
		"empty value":    {in: "k=", want: []Annotation{{Level: LevelIndex, Key: "k"}}},
		"level":          {in: "manifest:k=v=w", want: []Annotation{{Level: LevelManifest, Key: "k", Value: "v=w"}}},
		"platform":       {in: "manifest-descriptor[linux/arm64]:k=v", want: []Annotation{{LevelManifestDescriptor, &arm, "k", "v"}}},
		"levels":         {in: "index,manifest:k=v", want: []Annotation{{Level: LevelIndex, Key: "k", Value: "v"}, {Level: LevelManifest, Key: "k", Value: "v"}}},
		"key with colon": {in: "a:b=v", want: []Annotation{{Level: LevelIndex, Key: "a:b", Value: "v"}}},
		"no value":       {in: "k", wantErr: ErrInvalid},
		"no key":         {in: "index:=v", wantErr: ErrInvalid},
		"unknown level":  {in: "index,layer:k=v", wantErr: ErrInvalid},
		"index platform": {in: "index[linux/arm64]:k=v", wantErr: ErrInvalid},
		"bad platform":   {in: "manifest[z/z/z/z/z]:k=v", wantErr: platform.ErrInvalid},
		"open bracket":   {in: "manifest[linux/arm64:k=v", want: []Annotation{{Level: LevelIndex, Key: "manifest[linux/arm64:k", Value: "v"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseAnnotation(tc.in)
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestParseMergeFile(t *testing.T) {
	names, sources, err := ParseMergeFile([]byte(`
image: registry.example/app:1.0
tags: ['1', latest]
manifests:
  - image: registry.example/app:ppc64le
    platform: {architecture: ppc64le, os: linux}
  - image: registry.example/app:windows
    platform:
      architecture: amd64
      os: windows
      os.version: 10.0.14393.2189
      os.features: [win32k]
      variant: v2
`))
	require.NoError(t, err)
	assert.Equal(t, []ref.Ref{at(t, "registry.example/app:1.0"), at(t, "registry.example/app:1"), at(t, "registry.example/app:latest")}, names)
	require.Len(t, sources, 2)
	assert.Equal(t, "10.0.14393.2189", *sources[1].Platform.OSVersion)
	assert.Equal(t, []string{"win32k"}, *sources[1].Platform.OSFeatures)
	for name, in := range map[string]string{
		"empty": "", "not yaml": "a: [", "unknown key": "image: a\nfoo: b", "tags alone": "tags: [a]", "no image": "manifests: [{platform: {os: linux}}]",
		"a list": "- a", "bad ref": "image: 'A B'", "bad tag": "image: a\ntags: ['a b']", "bad source": "manifests: [{image: 'A B'}]",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := ParseMergeFile([]byte(in))
			require.Error(t, err)
		})
	}
}

func TestTemplate(t *testing.T) {
	got, err := Template("registry.example/app-OS:1-ARCHVARIANT", []platform.Platform{parsed(t, "linux/arm/v7"), parsed(t, "linux/amd64")})
	require.NoError(t, err)
	require.Len(t, got, 2)
	assert.Equal(t, at(t, "registry.example/app-linux:1-armv7"), got[0].Ref)
	assert.Equal(t, at(t, "registry.example/app-linux:1-amd64"), got[1].Ref)
	_, err = Template("x", nil)
	require.ErrorIs(t, err, ErrInvalid)
}

func FuzzParseAnnotation(f *testing.F) {
	for _, s := range []string{"k=v", "index:k=v", "manifest[linux/arm64],index:k=v", "a:b=c", "manifest[:=]", "=", "index,:k=v"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseAnnotation(s)
		if err != nil {
			return
		}
		require.NotEmpty(t, list)
		for _, a := range list {
			require.NotEmpty(t, a.Key)
			require.Contains(t, levels, a.Level)
		}
	})
}

func FuzzParseMergeFile(f *testing.F) {
	f.Add([]byte("image: a:1\ntags: [b]\nmanifests:\n- image: c\n  platform: {os: linux, architecture: arm, variant: v7}\n"))
	f.Add([]byte("manifests: &a [*a]"))
	f.Add([]byte(`{"image":"x"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		names, sources, err := ParseMergeFile(raw)
		if err != nil {
			return
		}
		for _, n := range names {
			require.NotEmpty(t, n.String())
		}
		for _, s := range sources {
			require.NotEmpty(t, s.Ref.Kind)
		}
	})
}

func FuzzParseMarker(f *testing.F) {
	e, err := index.NewEntry(image("linux/amd64", "x").Desc)
	require.NoError(f, err)
	m, err := newMarker("1.0", noBase, 3, time.Unix(1_700_000_000, 0), []index.Entry{e}, map[string]string{"a": "b"})
	require.NoError(f, err)
	f.Add(m.name, m.raw)
	f.Add("_mctl.x.y.z", []byte(`{"schemaVersion":2,"manifests":[]}`))
	f.Fuzz(func(t *testing.T, name string, raw []byte) {
		m, err := parseMarker(name, digest.FromBytes(raw), raw)
		if err != nil {
			return
		}
		require.True(t, IsMarker(name))
		// Whatever a marker says, the union is an index or an error.
		out, desc, _, err := unite(nil, noBase, []*marker{m})
		if err != nil {
			return
		}
		require.Equal(t, desc.Digest, digest.FromBytes(out))
		again, _, _, err := unite(out, noBase, []*marker{m})
		require.NoError(t, err)
		require.Equal(t, out, again, "nothing is left to do")
	})
}

// TestMerge_annotated: a manifest that an annotation makes another is pushed before the index, by one request, though all it
// names is in the repository; one of Docker's type becomes OCI's for it.
func TestMerge_annotated(t *testing.T) {
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			host, c := start(t)
			env := newEnv(t)
			layer := testimage.Layer(testimage.File("text", "x")).Gzip()
			docker := testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/arm64", layer)
			put(t, env, image("linux/amd64", "x"), at(t, "%s/app:amd64", host))
			put(t, env, docker, at(t, "%s/app:arm64", host))
			annotations, err := ParseAnnotation("manifest:k=v")
			require.NoError(t, err)
			c.reset()
			got, idx := mustMerge(t, env, at(t, "%s/app:all", host), MergeOptions{Annotations: annotations}, at(t, "%s/app:amd64", host), at(t, "%s/app:arm64", host))
			lines := c.reset()
			assert.Equal(t, 3, countOf(lines, "PUT manifests"), "%v", lines)
			assert.Len(t, got.Notes, 1)
			requireWhole(t, env, at(t, "%s/app:all", host))
			assert.Equal(t, ocispec.MediaTypeImageManifest, idx.Manifests[1].MediaType)
		})
	}
}

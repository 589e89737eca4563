package transfer

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

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

// attestation is what BuildKit puts beside an image.
func attestation(of testimage.Content) testimage.Content {
	c := testimage.ImageWith(testimage.ImageOptions{Annotations: map[string]string{"of": of.Desc.Digest.String()}}, "unknown/unknown",
		testimage.RawLayer([]byte("{}")))
	c.Desc.Annotations = map[string]string{
		index.AnnotationReferenceType: "attestation-manifest", index.AnnotationReferenceDigest: of.Desc.Digest.String(),
	}
	return c
}

// app is an index with all that indexes have: attestations, and an index in it.
func app() testimage.Content {
	amd, arm := image("linux/amd64", "app"), image("linux/arm64", "app")
	return testimage.Index(amd, arm, attestation(amd), attestation(arm), testimage.Index(image("linux/s390x", "app")))
}

// referrer is an artifact that refers to another, as oras attaches them.
func referrer(to ocispec.Descriptor, text string) testimage.Content {
	to.Platform = nil
	return testimage.ImageWith(testimage.ImageOptions{
		Subject: &to, Annotations: map[string]string{"text": text},
		Edit: func(i *ocispec.Image) { i.Author = text },
	}, "linux/amd64")
}

// TestCopy_matrix copies between every pair of kinds, and compares every digest.
func TestCopy_matrix(t *testing.T) {
	t.Parallel()
	hosts := map[string]string{}
	for name, start := range registries {
		hosts[name], _ = start(t)
	}
	env := withStore(t, newEnv(t))
	places := map[string]func(what string) ref.Ref{
		"serve":           func(what string) ref.Ref { return at(t, "%s/%s:1.0", hosts["serve"], what) },
		"docker-registry": func(what string) ref.Ref { return at(t, "%s/%s:1.0", hosts["docker-registry"], what) },
		"store":           func(what string) ref.Ref { return at(t, "store:%s:1.0", what) },
		"oci":             func(what string) ref.Ref { return at(t, "oci:%s:1.0", what) },
		"oci-archive":     func(what string) ref.Ref { return at(t, "oci-archive:%s.tar:1.0", what) },
	}
	want := app()
	for from, src := range places {
		put(t, env, want, src("from"))
		for to, dst := range places {
			t.Run(from+" to "+to, func(t *testing.T) {
				out := dst("to-" + from)
				rep, err := Copy(t.Context(), env, src("from"), out, Options{})
				require.NoError(t, err)
				require.Len(t, rep.Roots, 1)
				assert.Equal(t, want.Desc.Digest, rep.Roots[0].Digest)
				assert.Equal(t, want.Desc.Digest, requireWhole(t, env, out).Digest)
			})
		}
		t.Run(from+" to docker-archive", func(t *testing.T) {
			out := at(t, "docker-archive:from-%s.tar", from)
			_, err := Copy(t.Context(), env, src("from"), out, Options{Platforms: []platform.Platform{parsed(t, "linux/arm64")}})
			require.NoError(t, err)
			arm := image("linux/arm64", "app")
			assert.Equal(t, arm.Desc.Digest, requireWhole(t, env, out).Digest)
			back := src("back")
			_, err = Copy(t.Context(), env, out, back, Options{})
			require.NoError(t, err)
			assert.Equal(t, arm.Desc.Digest, requireWhole(t, env, back).Digest)
		})
	}
}

func TestCopy_archivesAreEqual(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := newEnv(t)
	put(t, env, app(), at(t, "%s/app:1", host))
	var sums []digest.Digest
	for i := range 3 {
		name := fmt.Sprintf("a%d.tar", i)
		_, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "oci-archive:%s:1", name), Options{Concurrency: 1 + 15*i})
		require.NoError(t, err)
		sums = append(sums, sumFile(t, filepath.Join(env.Dir, name)))
	}
	assert.Equal(t, sums[0], sums[1])
	assert.Equal(t, sums[0], sums[2])
}

func TestCopy_requests(t *testing.T) {
	host, c := serveRegistry(t)
	other, o := serveRegistry(t)
	env := newEnv(t)
	var images []testimage.Content
	const n = 6
	for i := range n {
		images = append(images, image(fmt.Sprintf("linux/arch%d", i), "x"))
	}
	put(t, env, testimage.Index(images...), at(t, "%s/app:1", host))
	noReferrers := Options{Referrers: NoReferrers}

	t.Run("to another repository", func(t *testing.T) {
		c.reset()
		rep, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "%s/copy:1", host), noReferrers)
		require.NoError(t, err)
		lines := c.reset()
		assert.Equal(t, 2*n, rep.Mounted)
		assert.Zero(t, rep.Blobs)
		assert.EqualValues(t, len(lines), rep.Requests)
		// One for the index, for each image HEAD, GET and PUT, a mount for each blob, and the tag.
		assert.Len(t, lines, 1+3*n+2*n+1)
	})
	t.Run("again", func(t *testing.T) {
		c.reset()
		rep, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "%s/copy:1", host), noReferrers)
		require.NoError(t, err)
		assert.Len(t, c.reset(), 1+n+1)
		assert.Equal(t, n, rep.Skipped)
	})
	t.Run("a tag beside it", func(t *testing.T) {
		c.reset()
		_, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "%s/app:2", host), noReferrers)
		require.NoError(t, err)
		assert.Len(t, c.reset(), 2)
	})
	t.Run("to another registry", func(t *testing.T) {
		c.reset()
		o.reset()
		rep, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "%s/app:1", other), noReferrers)
		require.NoError(t, err)
		assert.Len(t, c.reset(), 1+n+2*n)
		lines := o.reset()
		assert.Len(t, lines, 2*n+3*2*n+1, "%v", lines)
		assert.Equal(t, 2*n, rep.Blobs)
	})
	t.Run("a dry run", func(t *testing.T) {
		o.reset()
		rep, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "%s/dry:1", other), Options{DryRun: true, Referrers: NoReferrers})
		require.NoError(t, err)
		for _, l := range o.reset() {
			assert.True(t, strings.HasPrefix(l, "HEAD") || strings.HasPrefix(l, "GET"), l)
		}
		assert.Equal(t, 2*n, rep.Blobs)
		run, err := Copy(t.Context(), env, at(t, "%s/app:1", host), at(t, "%s/dry:1", other), noReferrers)
		require.NoError(t, err)
		assert.Equal(t, run.Blobs, rep.Blobs)
		assert.Equal(t, run.Bytes, rep.Bytes)
	})
}

func TestCopy_platforms(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := newEnv(t)
	src := at(t, "%s/app:1", host)
	whole := app()
	put(t, env, whole, src)
	arm := []platform.Platform{parsed(t, "linux/arm64")}

	t.Run("B13 the index is rewritten, with the attestation", func(t *testing.T) {
		dst := at(t, "%s/subset:1", host)
		_, err := Copy(t.Context(), env, src, dst, Options{Platforms: arm})
		require.NoError(t, err)
		requireWhole(t, env, dst)
		_, raw, err := env.Registry.Manifest(t.Context(), dst)
		require.NoError(t, err)
		idx, err := index.Parse(raw)
		require.NoError(t, err)
		require.Len(t, idx.Manifests, 2)
		assert.Equal(t, "arm64", idx.Manifests[0].Platform.Architecture)
		assert.Equal(t, idx.Manifests[0].Digest, index.Attests(idx.Manifests[1]))
		assert.Equal(t, whole.Desc.Digest.String(), idx.Annotations[AnnotationOriginal])
	})
	t.Run("nested", func(t *testing.T) {
		dst := at(t, "%s/nested:1", host)
		_, err := Copy(t.Context(), env, src, dst, Options{Platforms: []platform.Platform{parsed(t, "linux/s390x")}})
		require.NoError(t, err)
		assert.Equal(t, map[string]digest.Digest{"linux/s390x": image("linux/s390x", "app").Desc.Digest}, platformsOf(t, env, dst))
	})
	t.Run("sparse", func(t *testing.T) {
		dst := at(t, "oci:sparse:1")
		rep, err := Copy(t.Context(), env, src, dst, Options{Platforms: arm, Sparse: true})
		require.NoError(t, err)
		assert.Equal(t, whole.Desc.Digest, rep.Roots[0].Digest)
		img, err := env.opener().Open(t.Context(), dst)
		require.NoError(t, err)
		defer img.Close()
		_, err = source.Resolve(t.Context(), img, arm[0])
		require.NoError(t, err)
		_, err = source.Resolve(t.Context(), img, parsed(t, "linux/amd64"))
		require.ErrorIs(t, err, source.ErrNotFound)
	})
	t.Run("missing", func(t *testing.T) {
		_, err := Copy(t.Context(), env, src, at(t, "%s/none:1", host), Options{Platforms: []platform.Platform{parsed(t, "linux/riscv64")}})
		require.ErrorIs(t, err, source.ErrNotFound)
		_, err = env.Registry.Resolve(t.Context(), at(t, "%s/none:1", host))
		require.ErrorIs(t, err, registry.ErrNotFound)
	})
}

// TestCopy_related: cosign's tags and referrers go along, in every pair of places that can hold them.
func TestCopy_related(t *testing.T) {
	t.Parallel()
	hosts := map[string]string{}
	for name, start := range registries {
		hosts[name], _ = start(t)
	}
	env := withStore(t, newEnv(t))
	amd := image("linux/amd64", "signed")
	whole := testimage.Index(amd, image("linux/arm64", "signed"))
	signature := testimage.Image("linux/amd64", testimage.Layer(testimage.File("sig", "sig")))
	sbom := referrer(amd.Desc, "sbom")
	scan := referrer(whole.Desc, "scan")
	ofSBOM := referrer(sbom.Desc, "signature of the sbom")
	sigTag := "sha256-" + whole.Desc.Digest.Encoded() + ".sig"

	place := map[string]func(what string) ref.Ref{
		"serve":           func(what string) ref.Ref { return at(t, "%s/%s:1.0", hosts["serve"], what) },
		"docker-registry": func(what string) ref.Ref { return at(t, "%s/%s:1.0", hosts["docker-registry"], what) },
		"oci":             func(what string) ref.Ref { return at(t, "oci:%s:1.0", what) },
		"oci-archive":     func(what string) ref.Ref { return at(t, "oci-archive:%s.tar:1.0", what) },
	}
	for from, src := range place {
		dst := src("signed")
		var roots []Root
		add := func(c testimage.Content, name ref.Ref, subject digest.Digest) {
			d := c.Desc
			d.Platform = nil
			roots = append(roots, Root{Desc: d, From: memory{content: c}, Names: []ref.Ref{name}, Subject: subject})
		}
		add(whole, dst, "")
		add(signature, dst.WithTag(sigTag), "")
		for _, r := range []struct {
			c  testimage.Content
			of digest.Digest
		}{{sbom, amd.Desc.Digest}, {scan, whole.Desc.Digest}, {ofSBOM, sbom.Desc.Digest}} {
			add(r.c, dst.WithDigest(r.c.Desc.Digest), r.of)
		}
		_, err := Move(t.Context(), env, roots, Options{})
		require.NoError(t, err)
		for to, at := range place {
			t.Run("G15 "+from+" to "+to, func(t *testing.T) {
				out := at("got-" + from)
				_, err := Copy(t.Context(), env, dst, out, Options{})
				require.NoError(t, err)
				assert.Equal(t, whole.Desc.Digest, requireWhole(t, env, out).Digest)
				assert.Equal(t, signature.Desc.Digest, requireWhole(t, env, out.WithTag(sigTag)).Digest)
				f := &relatedFinder{m: newMover(env, Options{}), from: out}
				for of, want := range map[digest.Digest]digest.Digest{
					amd.Desc.Digest: sbom.Desc.Digest, whole.Desc.Digest: scan.Desc.Digest, sbom.Desc.Digest: ofSBOM.Desc.Digest,
				} {
					list, err := f.referrers(t.Context(), of)
					require.NoError(t, err)
					require.Len(t, list, 1)
					assert.Equal(t, want, list[0].Digest)
					requireWhole(t, env, out.WithDigest(want))
				}
				_, err = Copy(t.Context(), env, dst, at("bare-"+from), Options{Referrers: NoReferrers})
				require.NoError(t, err)
				_, err = env.opener().Open(t.Context(), at("bare-"+from).WithTag(sigTag))
				require.ErrorIs(t, err, source.ErrNotFound)
			})
		}
	}
}

func TestCopy_allTags(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := withStore(t, newEnv(t))
	src := at(t, "%s/app", host)
	tags := map[string]testimage.Content{"1.0": app(), "1.1": image("linux/amd64", "1.1"), "latest": image("linux/amd64", "1.1")}
	for tag, c := range tags {
		put(t, env, c, src.WithTag(tag))
	}
	for _, dst := range []ref.Ref{at(t, "%s/all", host), at(t, "oci:all"), at(t, "oci-archive:all.tar"), at(t, "store:all")} {
		t.Run(string(dst.Kind), func(t *testing.T) {
			_, err := Copy(t.Context(), env, src, dst, Options{AllTags: true})
			require.NoError(t, err)
			got, err := env.opener().Tags(t.Context(), dst)
			require.NoError(t, err)
			assert.Equal(t, slices.Sorted(maps.Keys(tags)), got)
			for tag, c := range tags {
				r := dst.WithTag(tag)
				assert.Equal(t, c.Desc.Digest, requireWhole(t, env, r).Digest)
			}
		})
	}
}

func TestCopy_faults(t *testing.T) {
	t.Parallel()
	host, c := serveRegistry(t)
	env := newEnv(t)
	src := at(t, "%s/app:1", host)
	put(t, env, app(), src)

	t.Run("B25 a child that is missing", func(t *testing.T) {
		broken := app()
		delete(broken.Blobs, image("linux/arm64", "app").Desc.Digest)
		dst := at(t, "%s/broken:1", host)
		d := broken.Desc
		_, err := Move(t.Context(), env, []Root{{Desc: d, From: memory{content: broken}, Names: []ref.Ref{dst}}}, Options{})
		require.ErrorIs(t, err, source.ErrNotFound)
		_, err = env.Registry.Resolve(t.Context(), dst)
		require.ErrorIs(t, err, registry.ErrNotFound)
		rep, err := Move(t.Context(), env, []Root{{Desc: d, From: memory{content: broken}, Names: []ref.Ref{at(t, "oci:broken:1")}}}, Options{Sparse: true})
		require.NoError(t, err)
		assert.Len(t, rep.Notes, 1)
	})
	t.Run("B01 a blob that is another", func(t *testing.T) {
		for _, dst := range []ref.Ref{at(t, "%s/bad:1", host), at(t, "oci:bad:1"), at(t, "oci-archive:bad.tar:1")} {
			bad := app()
			for d, data := range bad.Blobs {
				if len(data) > 20 && data[0] == 0x1f {
					flipped := slices.Clone(data)
					flipped[15] ^= 1
					bad.Blobs[d] = flipped
				}
			}
			_, err := Move(t.Context(), env, []Root{{Desc: bad.Desc, From: verifying{memory{content: bad}}, Names: []ref.Ref{dst}}}, Options{})
			require.Error(t, err, dst.String())
			_, err = env.opener().Open(t.Context(), dst)
			require.Error(t, err, "%s has no name", dst)
		}
	})
	t.Run("C22 no mounts", func(t *testing.T) {
		c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Has("mount") {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return true
			}
			return false
		})
		defer c.setHook(nil)
		dst := at(t, "%s/mountless:1", host)
		rep, err := Copy(t.Context(), env, src, dst, Options{})
		require.NoError(t, err)
		assert.Zero(t, rep.Mounted)
		assert.Equal(t, requireWhole(t, env, src), requireWhole(t, env, dst))
	})
	t.Run("C20 a blob that is gone after all", func(t *testing.T) {
		lost := image("linux/arm64", "app").Desc.Digest
		var answered atomic.Bool
		c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/lost/manifests/"+lost.String()) && answered.CompareAndSwap(false, true) {
				w.Header().Set("Docker-Content-Digest", lost.String())
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				w.Header().Set("Content-Length", "10")
				w.WriteHeader(http.StatusOK)
				return true
			}
			return false
		})
		defer c.setHook(nil)
		dst := at(t, "%s/lost:1", host)
		_, err := Copy(t.Context(), env, src, dst, Options{})
		require.NoError(t, err)
		requireWhole(t, env, dst)
	})
	t.Run("C29 cut anywhere", func(t *testing.T) {
		dst := at(t, "%s/cut:1", host)
		for n := 1; ; n++ {
			var left atomic.Int64
			left.Store(int64(n))
			c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/cut/") {
					return false
				}
				if left.Add(-1) < 0 {
					w.WriteHeader(http.StatusForbidden)
					return true
				}
				return false
			})
			_, err := Copy(t.Context(), env, src, dst, Options{Concurrency: 1})
			c.setHook(nil)
			if err == nil {
				break
			}
			if _, err := env.Registry.Resolve(t.Context(), dst); err == nil {
				requireWhole(t, env, dst)
			}
			require.Less(t, n, 200)
		}
		assert.Equal(t, requireWhole(t, env, src), requireWhole(t, env, dst))
	})
}

// TestCopy_dockerSave copies from an archive that has no manifest of its own: as docker before 25 wrote it.
func TestCopy_dockerSave(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := newEnv(t)
	img := image("linux/amd64", "x")
	require.NoError(t, os.WriteFile(filepath.Join(env.Dir, "d.tar"), testimage.DockerArchive(map[string]testimage.Content{"app:1": img}), 0o600))
	for _, dst := range []ref.Ref{at(t, "%s/from-docker:1", host), at(t, "oci:from-docker:1")} {
		_, err := Copy(t.Context(), env, at(t, "docker-archive:d.tar:1"), dst, Options{})
		require.NoError(t, err)
		requireWhole(t, env, dst)
	}
}

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// manifestTypes lists the media types of an index, its manifests, configs and layers, by skopeo's reading.
func manifestTypes(t *testing.T, w who, ref string) (index string, types map[string]bool) {
	t.Helper()
	skopeo := func(name string) string {
		return ok(t, w.other(nil, tool(t, "skopeo"), "inspect", "--tls-verify=false", "--raw", name)).stdout
	}
	type desc struct{ MediaType, Digest string }
	var list struct {
		MediaType string
		Manifests []desc
	}
	require.NoError(t, json.Unmarshal([]byte(skopeo("docker://"+ref)), &list))
	types = map[string]bool{}
	for _, m := range list.Manifests {
		types[m.MediaType] = true
		var manifest struct {
			Config desc
			Layers []desc
		}
		repo, _, _ := cutTag(ref)
		require.NoError(t, json.Unmarshal([]byte(skopeo("docker://"+repo+"@"+m.Digest)), &manifest))
		types[manifest.Config.MediaType] = true
		for _, l := range manifest.Layers {
			types[l.MediaType] = true
		}
	}
	return list.MediaType, types
}

func cutTag(ref string) (repo, tag string, ok bool) {
	for i := len(ref) - 1; i >= 0 && ref[i] != '/'; i-- {
		if ref[i] == ':' {
			return ref[:i], ref[i+1:], true
		}
	}
	return ref, "", false
}

func TestOutputForms(t *testing.T) {
	registry := debianRegistry(t)
	w := everybody(t)[0]
	dir := busybox(t, w, "forms", "  - run: uname -m > /machine\n")
	const oci, docker = "application/vnd.oci.image.", "application/vnd.docker."
	for name, tc := range map[string]struct {
		output string
		index  string
		types  []string
	}{
		"default": {"type=registry", oci + "index.v1+json", []string{oci + "manifest.v1+json", oci + "config.v1+json", oci + "layer.v1.tar+gzip"}},
		"zstd":    {"type=image,push=true,compression=zstd,compression-level=10", oci + "index.v1+json", []string{oci + "manifest.v1+json", oci + "config.v1+json", oci + "layer.v1.tar+zstd"}},
		"plain":   {"type=registry,compression=uncompressed", oci + "index.v1+json", []string{oci + "manifest.v1+json", oci + "config.v1+json", oci + "layer.v1.tar"}},
		"docker": {"type=registry,oci-mediatypes=false", docker + "distribution.manifest.list.v2+json", []string{
			docker + "distribution.manifest.v2+json", docker + "container.image.v1+json", docker + "image.rootfs.diff.tar.gzip",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ref := registry + "/forms:" + name
			r := ok(t, w.command(nil, "build", "-o", tc.output+",name="+ref, dir))
			index, types := manifestTypes(t, w, ref)
			assert.Equal(t, tc.index, index)
			for _, want := range tc.types {
				assert.True(t, types[want], "%s in %v", want, types)
			}
			assert.Len(t, types, len(tc.types))
			assert.Contains(t, ok(t, w.command(nil, "inspect", ref)).stdout, digestOf(t, r))
		})
	}
}

func TestOutputsForPeers(t *testing.T) {
	w := everybody(t)[0]
	dir := busybox(t, w, "peers", "  - run: uname -m > /machine\n")
	out := func(name string) string { return filepath.Join(w.home, name) }
	t.Run("docker archive", func(t *testing.T) {
		ok(t, w.command(nil, "build", "--platform", "linux/arm64", "-t", "box:1", "-o", "type=docker,dest="+out("docker.tar"), dir))
		got := ok(t, w.other(nil, tool(t, "skopeo"), "inspect", "docker-archive:"+out("docker.tar")))
		assert.Contains(t, got.stdout, `"Architecture": "arm64"`)
	})
	t.Run("oci layout and archive", func(t *testing.T) {
		r := ok(t, w.command(nil, "build", "-t", "box:1", "-o", "type=oci,dest="+out("oci.tar"), "-o", "type=oci,tar=false,dest="+out("layout"), dir))
		for _, name := range []string{"oci-archive:" + out("oci.tar"), "oci:" + out("layout")} {
			raw := ok(t, w.other(nil, tool(t, "skopeo"), "inspect", "--raw", name))
			ours := ok(t, w.command(nil, "inspect", "--raw", name))
			assert.Equal(t, raw.stdout, ours.stdout, name)
			assert.Contains(t, ok(t, w.command(nil, "inspect", name)).stdout, digestOf(t, r))
		}
	})
	t.Run("from a layout", func(t *testing.T) {
		ok(t, w.command(nil, "build", "-t", "box:1", "-o", "type=oci,tar=false,dest="+out("base"), dir))
		next := w.dir(t, "next")
		require.NoError(t, os.WriteFile(filepath.Join(next, "rootfs.yaml"), []byte("version: 1\nplatforms: [linux/amd64, linux/arm64]\n"+
			"from: oci:"+out("base")+":1\nsteps:\n  - run: cat /machine > /again\n  - remove: [/machine]\n"), 0o644))
		ok(t, w.command(nil, "build", "-o", "type=local,dest="+out("tree"), next))
		for dir, machine := range map[string]string{"linux_amd64": "x86_64\n", "linux_arm64": "aarch64\n"} {
			got, err := os.ReadFile(filepath.Join(out("tree"), dir, "again"))
			require.NoError(t, err)
			assert.Equal(t, machine, string(got))
			assert.NoFileExists(t, filepath.Join(out("tree"), dir, "machine"))
		}
	})
	t.Run("tar on stdout", func(t *testing.T) {
		c := w.command(nil, "build", "--platform", "linux/amd64", "-o", "-", dir)
		f, err := os.Create(out("stdout.tar"))
		require.NoError(t, err)
		defer f.Close()
		c.Stdout = f
		require.NoError(t, c.Run())
		list := ok(t, w.other(nil, "tar", "-tf", out("stdout.tar")))
		assert.Contains(t, list.stdout, "machine\n")
	})
	t.Run("rewrite-timestamp", func(t *testing.T) {
		env := []string{"SOURCE_DATE_EPOCH=86400"}
		ok(t, w.command(env, "build", "-t", "box", "--platform", "linux/amd64", "-o", "type=oci,rewrite-timestamp=true,tar=false,dest="+out("rewritten"), dir))
		unpack := []string{"unpack", "--image", out("rewritten")}
		if os.Getuid() != 0 {
			unpack = append(unpack, "--rootless")
		}
		ok(t, w.other(nil, tool(t, "umoci"), append(unpack, out("bundle"))...))
		for _, name := range []string{"bin/busybox", "machine"} {
			info, err := os.Stat(filepath.Join(out("bundle"), "rootfs", name))
			require.NoError(t, err)
			assert.LessOrEqual(t, info.ModTime().Unix(), int64(86400), name)
		}
	})
	t.Run("metadata and image id", func(t *testing.T) {
		r := ok(t, w.command(nil, "build", "-t", "box:2", "--iidfile", out("iid"), "--metadata-file", out("meta.json"), dir))
		data, err := os.ReadFile(out("meta.json"))
		require.NoError(t, err)
		var meta map[string]any
		require.NoError(t, json.Unmarshal(data, &meta))
		assert.Equal(t, digestOf(t, r), meta["containerimage.digest"])
		assert.Contains(t, meta, "containerimage.descriptor")
		assert.Contains(t, meta["image.name"], "box:2")
		iid, err := os.ReadFile(out("iid"))
		require.NoError(t, err)
		assert.Equal(t, digestOf(t, r), string(iid))
		assert.Contains(t, ok(t, w.command(nil, "store", "ls")).stdout, "box:2")
	})
}

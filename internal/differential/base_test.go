package differential

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

// bases are the images that Dockerfiles may start from, by name, in OCI layouts below dir.
type bases struct {
	dir     string
	digests map[string]digest.Digest
	layers  []digest.Digest // of all of them
}

// makeBases writes the bases: "busybox" of Debian's busybox-static, and "onbuild", the same with triggers.
func makeBases(t *testing.T) *bases {
	t.Helper()
	program, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("busybox-static is not installed: make deps")
		}
		t.Skip("busybox-static is not installed: make deps")
	}
	data, err := os.ReadFile(program)
	require.NoError(t, err)
	list, err := exec.Command(program, "--list").Output()
	require.NoError(t, err)
	entries := []testimage.Entry{testimage.Dir("bin"), testimage.Exec("bin/busybox", string(data))}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" {
			entries = append(entries, testimage.Symlink("bin/"+applet, "busybox"))
		}
	}
	entries = append(entries,
		testimage.Dir("etc"),
		testimage.File("etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\nweb:x:33:\n"),
		testimage.File("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n"),
		testimage.Dir("home"),
		testimage.Dir("home/app").Mode(0o750).Owner(1000, 1000),
		testimage.Symlink("link", "opt/data"),
		testimage.Dir("opt"),
		testimage.Dir("opt/data").Mode(0o2770).Owner(0, 2000),
		testimage.File("opt/data/a", "a of the base\n").Mode(0o640).Owner(1000, 2000),
		testimage.File("opt/data/b", "b of the base\n"),
		testimage.Hardlink("opt/data/c", "opt/data/b"),
		testimage.Dir("opt/data/sub"),
		testimage.File("opt/data/sub/deep", "deep\n"),
		testimage.Symlink("opt/data/up", "../../etc"),
		testimage.Exec("opt/suid", "#!/bin/sh\nid -u\n").Mode(0o4755),
		testimage.Dir("root").Mode(0o700),
		testimage.Dir("tmp").Mode(0o1777),
		testimage.Dir("usr"), testimage.Dir("usr/share"), testimage.Dir("var"),
	)
	layer := testimage.Layer(entries...)
	image := func(edit func(*ocispec.Image)) testimage.Content {
		return testimage.ImageWith(testimage.ImageOptions{Edit: func(c *ocispec.Image) {
			c.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
			c.Config.Cmd = []string{"sh"}
			if edit != nil {
				edit(c)
			}
		}}, "linux/amd64", layer.Gzip())
	}
	b := &bases{dir: t.TempDir(), digests: map[string]digest.Digest{}, layers: []digest.Digest{layer.DiffID()}}
	for name, c := range map[string]testimage.Content{
		"busybox": image(nil),
		"fancy": image(func(c *ocispec.Image) {
			c.Config.Env = append(c.Config.Env, "BASE=1", "SHARED=base")
			c.Config.Labels = map[string]string{"of": "base", "kept": "yes"}
			c.Config.User, c.Config.WorkingDir = "app", "/home/app"
			c.Config.Entrypoint, c.Config.Cmd = []string{"/bin/sh", "-c"}, []string{"id"}
			c.Config.Volumes = map[string]struct{}{"/data": {}}
			c.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}}
			c.Config.StopSignal = "SIGINT"
			c.Author = "somebody"
		}),
	} {
		testimage.WriteLayout(t, filepath.Join(b.dir, name), map[string]testimage.Content{name + ":latest": c})
		b.digests[name] = c.Desc.Digest
	}
	return b
}

// reference is a base as a named context.
func (b *bases) reference(name, store string) string {
	return fmt.Sprintf("oci-layout://%s@%s", store, b.digests[name])
}

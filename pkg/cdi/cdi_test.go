package cdi_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/cdi"
)

const gpus = `{"cdiVersion": "0.6.0", "kind": "vendor.example/gpu", "unknown": 1,
 "containerEdits": {"env": ["ALL=1"], "mounts": [{"hostPath": "/usr/lib/gpu", "containerPath": "/lib/gpu", "options": ["ro", "bind"]}]},
 "devices": [
  {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu", "hostPath": "/dev/gpu0"}], "hooks": [{"hookName": "createContainer", "path": "/bin/hook"}]}},
  {"name": "1", "annotations": {"org.mobyproject.buildkit.device.autoallow": "true", "org.mobyproject.buildkit.device.class": "fast"}, "containerEdits": {"deviceNodes": [{"path": "/dev/gpu1"}]}}
 ]}`

func TestFind(t *testing.T) {
	dir, over := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write(dir, "gpu.json", gpus)
	write(dir, "net.yaml", "cdiVersion: 0.6.0\nkind: vendor.example/net\nannotations: {org.mobyproject.buildkit.device.class: fast}\ndevices:\n- name: eth\n  containerEdits: {env: [A=below]}\n")
	write(dir, "notes.txt", "no")
	write(over, "net.yml", "kind: vendor.example/net\ndevices:\n- name: eth\n  containerEdits: {env: [A=above]}\n")
	d, err := cdi.Load([]string{dir, over, filepath.Join(dir, "missing")})
	require.NoError(t, err)
	for name, want := range map[string][]string{
		"vendor.example/gpu=0": {"vendor.example/gpu=0"}, "vendor.example/gpu": {"vendor.example/gpu=0"},
		"vendor.example/gpu=*": {"vendor.example/gpu=0", "vendor.example/gpu=1"}, "fast": {"vendor.example/gpu=1"},
		"vendor.example/gpu=2": nil, "vendor.example/none": nil, "": nil,
	} {
		var got []string
		for _, dev := range d.Find(name) {
			got = append(got, dev.Name)
		}
		assert.Equal(t, want, got, name)
	}
	assert.Equal(t, cdi.Device{
		Name: "vendor.example/gpu=0", Edits: cdi.Edits{
			Env: []string{"ALL=1"}, Nodes: []cdi.Node{{Path: "/dev/gpu", HostPath: "/dev/gpu0"}},
			Mounts: []cdi.Mount{{HostPath: "/usr/lib/gpu", Path: "/lib/gpu", ReadOnly: true}}, Hooks: []string{"/bin/hook"},
		},
	}, d.Find("vendor.example/gpu=0")[0])
	assert.True(t, d.Find("fast")[0].Allowed)
	assert.Equal(t, []string{"A=above"}, d.Find("vendor.example/net=eth")[0].Edits.Env, "the later directory counts")
}

func TestFilesThatAreWrong(t *testing.T) {
	for name, text := range map[string]string{
		"not YAML": "{", "nothing": "", "no kind": `{"devices": []}`, "half a kind": `{"kind": "gpu"}`,
		"no name":       `{"kind": "v/c", "devices": [{"name": ""}]}`,
		"relative":      `{"kind": "v/c", "devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "dev"}]}}]}`,
		"relative host": `{"kind": "v/c", "devices": [{"name": "a", "containerEdits": {"mounts": [{"hostPath": "x", "containerPath": "/x"}]}}]}`,
		"no variable":   `{"kind": "v/c", "containerEdits": {"env": ["A"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cdi.Parse([]byte(text))
			require.ErrorIs(t, err, cdi.ErrInvalid)
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "a.json"), []byte(text), 0o644))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "b.json"), []byte(gpus), 0o644))
			d, err := cdi.Load([]string{dir})
			require.ErrorIs(t, err, cdi.ErrInvalid)
			assert.NotEmpty(t, d.Find("fast"), "the others are there")
		})
	}
	t.Run("twice", func(t *testing.T) {
		dir := t.TempDir()
		for _, name := range []string{"a.json", "b.json"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(gpus), 0o644))
		}
		d, err := cdi.Load([]string{dir})
		require.ErrorIs(t, err, cdi.ErrInvalid)
		assert.Empty(t, d.Find("vendor.example/gpu"))
	})
}

func FuzzParseDevices(f *testing.F) {
	f.Add([]byte(gpus))
	f.Add([]byte("kind: a/b\ndevices: [{name: x, containerEdits: {env: [A=b]}}]\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := cdi.Parse(raw)
		if err != nil {
			return
		}
		for _, d := range list {
			for _, n := range d.Edits.Nodes {
				if !filepath.IsAbs(n.Path) || !filepath.IsAbs(n.HostPath) {
					t.Fatalf("%q of %q", n, d.Name)
				}
			}
		}
	})
}

func Example() {
	list, err := cdi.Parse([]byte(`{"kind": "vendor.example/gpu", "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/gpu0"}]}}]}`))
	fmt.Println(list[0].Name, list[0].Edits.Nodes[0].HostPath, err)
	// Output: vendor.example/gpu=0 /dev/gpu0 <nil>
}

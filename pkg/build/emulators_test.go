package build

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/packages"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// deb is a Debian package of files, whose data is not compressed.
func deb(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var data bytes.Buffer
	tw := tar.NewWriter(&data)
	for name, text := range files {
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}))
		_, err := tw.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	var b strings.Builder
	b.WriteString("!<arch>\n")
	for _, m := range [][2]string{{"debian-binary", "2.0\n"}, {"control.tar", "\x00\x00"}, {"data.tar", data.String()}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", m[0], 0, 0, 0, 0o100644, len(m[1]), m[1])
	}
	return []byte(b.String())
}

func TestInstallEmulatorsFile(t *testing.T) {
	host := testexe.Exec(runtime.GOARCH)
	good := deb(t, map[string]string{
		"./usr/bin/qemu-s390x-static":   host,
		"./usr/bin/qemu-riscv64-static": testexe.Exec("sparc64"),
		"./usr/bin/qemu-system-ppc64":   host,
		"./usr/share/doc/qemu-arm":      "text",
	})
	for name, tc := range map[string]struct {
		file    string
		data    []byte
		arches  []string
		want    string // architectures
		refused int
		err     error
	}{
		"a package":          {data: good, want: "s390x", refused: 1},
		"some of it":         {data: good, arches: []string{"s390x"}, want: "s390x"},
		"what is not in it":  {data: good, arches: []string{"arm"}, err: ErrNoEmulators},
		"none of it":         {data: deb(t, map[string]string{"./usr/bin/hello": host}), err: ErrNoEmulators},
		"cut off":            {data: good[:len(good)-2000], err: errAny},
		"an emulator":        {file: "qemu-mips64el", data: []byte(host), want: "mips64le"},
		"an unknown program": {file: "hello", data: []byte(host), err: ErrNoEmulators},
		"an ar archive":      {data: []byte("!<arch>\nhello.o"), err: packages.ErrDeb},
		"text":               {data: []byte("hello\n"), err: errAny},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.file == "" {
				tc.file = "qemu.deb"
			}
			dir := t.TempDir()
			file := filepath.Join(dir, tc.file)
			require.NoError(t, os.WriteFile(file, tc.data, 0o644))
			o := EmulatorsFrom{Dir: filepath.Join(dir, "emulators"), Arches: tc.arches}
			got, err := InstallEmulatorsFile(t.Context(), &source.Opener{}, file, o)
			left, _ := filepath.Glob(filepath.Join(o.Dir, ".*"))
			assert.Empty(t, left, "nothing half done")
			if tc.err != nil {
				require.Error(t, err)
				if tc.err != errAny {
					require.ErrorIs(t, err, tc.err)
				}
				whole, _ := filepath.Glob(filepath.Join(o.Dir, "*"))
				assert.Empty(t, whole)
				return
			}
			require.NoError(t, err)
			assert.Len(t, got.Refused, tc.refused)
			var arches []string
			for _, i := range got.Installed {
				arches = append(arches, i.Arch)
				assert.FileExists(t, i.Path)
			}
			assert.Equal(t, tc.want, strings.Join(arches, " "))
		})
	}
	_, err := InstallEmulatorsFile(t.Context(), &source.Opener{}, "/nonexistent", EmulatorsFrom{Dir: t.TempDir()})
	require.ErrorIs(t, err, os.ErrNotExist)
}

var errAny = fmt.Errorf("any")

// TestBadEmulator: what is known against an emulator is said once a platform, before anything runs.
func TestBadEmulator(t *testing.T) {
	foreign := platform.Platform{OS: "linux", Arch: "arm64"}
	if emulate.Machine().Arch == "arm64" || emulate.Machine().OS != "linux" {
		t.Skip("the warning is about arm64, elsewhere")
	}
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	require.NoError(t, os.WriteFile(src, []byte("package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"qemu-aarch64 version 5.2.0\\n\") }\n"), 0o644))
	qemu := filepath.Join(dir, "qemu-aarch64")
	c := exec.CommandContext(t.Context(), "go", "build", "-o", qemu, src)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, string(out))

	run := &graph.Vertex{Op: graph.Exec{Args: []string{"true"}}, Platform: foreign}
	again := &graph.Vertex{Op: graph.Exec{Args: []string{"false"}}, Platform: foreign, Inputs: []*graph.Vertex{run}}
	var said []string
	_, err = canRun(t.Context(), []graph.Target{{Platform: foreign, Root: again}}, emulate.Options{Emulators: map[string]string{"arm64": qemu}},
		func(context.Context) error { return nil }, func(e event.Event) { said = append(said, e.Text) })
	require.NoError(t, err)
	require.Len(t, said, 1)
	assert.Contains(t, said[0], "qemu before 6.0")
	assert.Contains(t, said[0], "(5.2.0)")
}

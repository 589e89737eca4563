package accel

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// tarOf makes a tar: "name/" is a directory, "name -> target" a symlink, "name=content" a file.
func tarOf(t *testing.T, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Mode: 0o755, ModTime: time.Unix(1000, 0), Uid: 3, Gid: 4}
		content := ""
		switch name, target, link := strings.Cut(e, " -> "); {
		case link:
			h.Name, h.Typeflag, h.Linkname = name, tar.TypeSymlink, target
		case strings.HasSuffix(e, "/"):
			h.Name, h.Typeflag = e, tar.TypeDir
		default:
			h.Name, content, _ = strings.Cut(e, "=")
			h.Typeflag, h.Size = tar.TypeReg, int64(len(content))
		}
		require.NoError(t, tw.WriteHeader(h))
		_, err := io.WriteString(tw, content)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	return b.Bytes()
}

// deb writes a package of Debian into dir.
func deb(t *testing.T, dir, name, version, arch string, entries ...string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("!<arch>\n")
	control := tarOf(t, "./control="+fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\n", name, version, arch))
	for _, m := range [][2]string{{"debian-binary", "2.0\n"}, {"control.tar", string(control)}, {"data.tar", string(tarOf(t, entries...))}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8o%-10d`\n%s", m[0], 0, 0, 0, 0o100644, len(m[1]), m[1])
		if len(m[1])%2 == 1 {
			b.WriteByte('\n')
		}
	}
	file := filepath.Join(dir, name+"_"+arch+".deb")
	require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
	return file
}

type bytesAt struct{ *bytes.Reader }

func (bytesAt) Close() error { return nil }

// view is an image of one layer.
func view(t *testing.T, data []byte) (*layer.View, *layer.TOC) {
	t.Helper()
	toc, err := layer.ReadTOC(context.Background(), bytes.NewReader(data), layer.Limits{})
	require.NoError(t, err)
	v, err := layer.NewView([]layer.Source{{TOC: toc, Open: func() (layer.ReaderAtCloser, error) { return bytesAt{bytes.NewReader(data)}, nil }}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, v.Close()) })
	return v, toc
}

const loader = "/lib64/ld-test.so.1"

// program is one of this machine.
func program(seed string, needed ...string) string {
	return string(testexe.ELF{Arch: runtime.GOARCH, Interp: loader, Needed: needed, RunPath: "/" + seed}.Bytes())
}

func sources(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	lib := "./usr/lib/x-linux-gnu/"
	deb(t, dir, "libc6", "1", debArch(), lib+"libc.so.6="+program("c"), "./usr/lib64/ld-test.so.1 -> "+"/usr/lib/x-linux-gnu/ld-test.so.1", lib+"ld-test.so.1="+testexe.Exec(runtime.GOARCH))
	deb(t, dir, "libtwo", "1", debArch(), lib+"libtwo.so.2 -> libtwo.so.2.1", lib+"libtwo.so.2.1="+program("two", "libc.so.6"))
	deb(t, dir, "dash", "0.5-2+b1", debArch(), "./bin/dash="+program("dash", "libc.so.6"), "./usr/share/doc/dash=x")
	deb(t, dir, "coreutils", "9", debArch(), "./bin/ls="+program("ls", "libtwo.so.2"), "./bin/uname="+program("uname", "libc.so.6"), "./bin/cat="+program("cat", "libabsent.so.1"))
	deb(t, dir, "tar", "1.34", debArch(), "./bin/tar="+program("tar", "libc.so.6"))
	deb(t, dir, "sed", "4", "z80", "./bin/sed=foreign")
	return []string{dir}
}

const status = "Package: dash\nStatus: install ok installed\nVersion: 0.5-2+b7\nArchitecture: arm64\n\n" +
	"Package: coreutils\nStatus: install ok installed\nVersion: 9\nArchitecture: arm64\n\n" +
	"Package: tar\nStatus: install ok installed\nVersion: 1.35\nArchitecture: arm64\n\n"

func base() []string {
	return []string{
		"bin -> usr/bin", "lib -> usr/lib", "usr/", "usr/bin/", "usr/lib/", "usr/bin/dash=arm", "usr/bin/sh -> dash", "usr/bin/ls=arm", "usr/bin/uname=arm",
		"usr/bin/cat=arm", "usr/bin/tar=arm", "var/", "var/lib/", "var/lib/dpkg/", "var/lib/dpkg/status=" + status,
	}
}

func TestFit(t *testing.T) {
	tools, err := Load(t.Context(), sources(t))
	require.NoError(t, err)
	v, _ := view(t, tarOf(t, base()...))
	o, err := tools.Fit(v)
	require.NoError(t, err)
	require.NotNil(t, o)
	assert.Equal(t, []string{"/usr/bin/dash", "/usr/bin/ls"}, o.Programs, "of the same version, whatever the rebuild; not uname")
	assert.Equal(t, []string{"/bin/cat: it needs libabsent.so.1, which is in none of the packages", "tar: the image has version 1.35, not 1.34"}, o.Left)

	var b bytes.Buffer
	require.NoError(t, o.WriteTar(&b))
	var got []string
	for tr := tar.NewReader(&b); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		got = append(got, fmt.Sprintf("%s %o %d:%d %d%s", h.Name, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), map[bool]string{true: " " + h.Linkname}[h.Linkname != ""]))
	}
	assert.Equal(t, []string{
		"./ 755 0:0 0", "lib64/ 755 0:0 0", "lib64/ld-test.so.1 777 0:0 0 /usr/lib/x-linux-gnu/ld-test.so.1",
		"usr/ 755 3:4 1000", "usr/bin/ 755 3:4 1000", "usr/bin/dash 755 3:4 1000", "usr/bin/ls 755 3:4 1000",
		"usr/lib/ 755 3:4 1000", "usr/lib/x-linux-gnu/ 755 0:0 0", "usr/lib/x-linux-gnu/ld-test.so.1 755 0:0 0",
		"usr/lib/x-linux-gnu/libc.so.6 755 0:0 0", "usr/lib/x-linux-gnu/libtwo.so.2 777 0:0 0 libtwo.so.2.1", "usr/lib/x-linux-gnu/libtwo.so.2.1 755 0:0 0",
	}, got)
	again, err := Load(t.Context(), sources(t))
	require.NoError(t, err)
	assert.Equal(t, tools.Digest(), again.Digest())
}

func TestFitNothing(t *testing.T) {
	tools, err := Load(t.Context(), sources(t))
	require.NoError(t, err)
	for name, entries := range map[string][]string{
		"no database":      {"bin/", "bin/dash=arm"},
		"a broken one":     {"bin/", "bin/dash=arm", "var/lib/dpkg/status=\x00\xff: nonsense"},
		"no program":       {"var/lib/dpkg/status=" + status},
		"a link for it":    {"bin/dash -> busybox", "bin/busybox/", "var/lib/dpkg/status=" + status},
		"libraries of its": append(base(), "usr/lib64/", "lib64 -> usr/lib64", "usr/lib64/ld-test.so.1=the image's own"),
	} {
		t.Run(name, func(t *testing.T) {
			v, _ := view(t, tarOf(t, entries...))
			o, err := tools.Fit(v)
			require.NoError(t, err)
			assert.Empty(t, o.Programs)
		})
	}
}

// TestNative: whatever way a native program takes into a layer, it is found.
func TestNative(t *testing.T) {
	tools, err := Load(t.Context(), sources(t))
	require.NoError(t, err)
	v, _ := view(t, tarOf(t, base()...))
	o, err := tools.Fit(v)
	require.NoError(t, err)
	dash := program("dash", "libc.so.6")
	for name, tc := range map[string]struct {
		entries []string
		want    string
	}{
		"nothing":             {[]string{"etc/", "etc/x=y"}, ""},
		"changed":             {[]string{"usr/bin/dash=" + dash}, "usr/bin/dash"},
		"copied":              {[]string{"opt/", "opt/busybox=" + dash}, "opt/busybox"},
		"a library":           {[]string{"opt/libc.so.6=" + program("c")}, "opt/libc.so.6"},
		"the same size":       {[]string{"opt/other=" + strings.Repeat("x", len(dash))}, ""},
		"upgraded":            {[]string{"usr/bin/dash=a newer one for arm"}, ""},
		"deleted":             {[]string{"usr/bin/.wh.dash="}, ""},
		"deleted what is not": {[]string{".wh.lib64="}, "lib64"},
	} {
		t.Run(name, func(t *testing.T) {
			data := tarOf(t, tc.entries...)
			_, toc := view(t, data)
			got, err := o.Native(toc, func() (layer.ReaderAtCloser, error) { return bytesAt{bytes.NewReader(data)}, nil })
			require.NoError(t, err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	foreign := deb(t, dir, "dash", "1", "z80", "./bin/dash=x")
	broken := filepath.Join(dir, "broken.deb")
	require.NoError(t, os.WriteFile(broken, []byte("!<arch>\nnonsense"), 0o644))
	for name, source := range map[string]string{
		"absent": filepath.Join(dir, "absent"), "empty": t.TempDir(), "of another machine": foreign,
	} {
		_, err := Load(t.Context(), []string{source})
		require.ErrorIs(t, err, ErrSource, name)
	}
	_, err := Load(t.Context(), []string{broken})
	require.Error(t, err)

	// A machine's own packages.
	root := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(content), 0o755))
	}
	write("var/lib/dpkg/status", "Package: dash\nStatus: install ok installed\nVersion: 0.5-2\nArchitecture: "+debArch()+"\n\nPackage: libc6\nStatus: install ok installed\nVersion: 1\nArchitecture: "+debArch()+"\n\nPackage: libunused\nStatus: install ok installed\nVersion: 1\nArchitecture: "+debArch()+"\n")
	write("var/lib/dpkg/info/dash.list", "/.\n/bin\n/bin/dash\n/usr/share/doc/dash")
	write("var/lib/dpkg/info/libc6:"+debArch()+".list", "/lib/x-linux-gnu/libc.so.6\n"+loader)
	write("var/lib/dpkg/info/libunused.list", "/usr/lib/libunused.so.1")
	write("bin/dash", program("dash", "libc.so.6"))
	write("lib/x-linux-gnu/libc.so.6", program("c"))
	write(loader, testexe.Exec(runtime.GOARCH))
	write("usr/lib/libunused.so.1", "x")
	tools := &Tools{}
	require.NoError(t, tools.host(root))
	var got []string
	for _, p := range tools.packs {
		for name := range p.files {
			got = append(got, name)
		}
	}
	assert.ElementsMatch(t, []string{"/bin/dash", "/lib/x-linux-gnu/libc.so.6", loader}, got)
	v, _ := view(t, tarOf(t, base()...))
	o, err := tools.Fit(v)
	require.NoError(t, err)
	require.NotNil(t, o)
	assert.Equal(t, []string{"/usr/bin/dash"}, o.Programs)
}

func TestUpstream(t *testing.T) {
	for in, want := range map[string]string{
		"0.5.12-2": "0.5.12-2", "0.5.12-2+b1": "0.5.12-2", "1+b12": "1", "1+b": "1+b", "1+beta1": "1+beta1", "5.2.15-2+b7": "5.2.15-2",
	} {
		assert.Equal(t, want, upstream(in), in)
	}
}

//go:build unix

package spec_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/graph"
)

// What is wrong with the context itself, or with the spec as a file.
func TestFiles(t *testing.T) {
	secret := tree(t, map[string]string{"secret": "TOP SECRET: [\n"})
	for name, tc := range map[string]struct {
		files   map[string]string
		prepare func(t *testing.T, dir string)
		file    string // beneath the directory; "" is rootfs.yaml
		want    string // in the error; "" is success
		is      error
	}{
		"no spec":                          {want: "rootfs.yaml: no such file\n", is: fs.ErrNotExist},
		"the spec is a directory":          {files: map[string]string{"rootfs.yaml/": ""}, want: "is a directory"},
		"E18 the spec is a symlink out":    {files: map[string]string{"rootfs.yaml@": filepath.Join(secret, "secret")}, want: "escapes"},
		"E18 the spec is a dangling link":  {files: map[string]string{"rootfs.yaml@": "nowhere"}, want: "no such file"},
		"E18 the spec is a link inside":    {files: map[string]string{"rootfs.yaml@": "x/y", "x/y": "version: 1\nfrom: scratch\n"}},
		"E18 the spec is a fifo":           {prepare: fifo("rootfs.yaml"), want: "is a fifo"},
		"the spec is too large":            {files: map[string]string{"rootfs.yaml": strings.Repeat("#\n", 4<<19) + "#"}, want: "larger than 4 MiB"},
		"the spec is not UTF-8":            {files: map[string]string{"rootfs.yaml": "version: 1\nfrom: a\xff\n"}, want: "rootfs.yaml:2:8: byte 0xff is not UTF-8"},
		"the spec is UTF-16":               {files: map[string]string{"rootfs.yaml": "\xff\xfev\x00"}, want: "rootfs.yaml:1:1: byte 0xff"},
		"the spec holds NUL":               {files: map[string]string{"rootfs.yaml": "version: 1\nfr\x00om: a\n"}, want: "rootfs.yaml:2:3: the file holds a NUL byte"},
		"E18 .dockerignore is a link out":  {files: map[string]string{"rootfs.yaml": head + "[]", ".dockerignore@": filepath.Join(secret, "secret")}, want: ".dockerignore: "},
		"E18 .dockerignore dangles":        {files: map[string]string{"rootfs.yaml": head + "[]", ".dockerignore@": "nowhere"}, want: "a symbolic link to what does not exist"},
		"E18 .dockerignore is a fifo":      {files: map[string]string{"rootfs.yaml": head + "[]"}, prepare: fifo(".dockerignore"), want: "a fifo, not a regular file"},
		"E18 .dockerignore is a directory": {files: map[string]string{"rootfs.yaml": head + "[]", ".dockerignore/": ""}, want: "a directory, not a regular file"},
		"E19 .dockerignore is a link inside": {
			files: map[string]string{"rootfs.yaml": head + "[{path: /x, source: x}]", ".dockerignore@": "ignore", "ignore": "x\n", "x": ""},
			want:  "left out by .dockerignore",
		},
		"E19 a bad pattern":           {files: map[string]string{"rootfs.yaml": head + "[]", ".dockerignore": "ok\n\n[a\n"}, want: ".dockerignore:3:1: \"[a\" is not a pattern"},
		"E18 a fifo as source":        {files: map[string]string{"rootfs.yaml": head + "[{path: /x, source: x}]"}, prepare: fifo("x"), want: `source "x" is a fifo`},
		"E18 a fifo in a source":      {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/": ""}, prepare: fifo("d/x"), want: `"d/x" is a fifo; leave it out with .dockerignore`},
		"E18 an ignored fifo":         {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/y": "", ".dockerignore": "d/x\n"}, prepare: fifo("d/x")},
		"E18 a fifo beside a pattern": {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: \"d/*.y\"}]", "d/a.y": ""}, prepare: fifo("d/x")},
		"E18 a socket in a source":    {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/": ""}, prepare: socket("d/s"), want: `"d/s" is a socket`},
		"a name that is not UTF-8":    {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/": ""}, prepare: rawName("d/\xff"), want: `"d/\xff" is not UTF-8`},
		"a name with a line break":    {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/a\nb": ""}},
		"deep directories":            {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/" + strings.Repeat("a/", 100): ""}},
		"a directory replaced by a link": {
			files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d/sub/file}]", "d/sub@": "/etc", "etc/file": ""},
			want:  "leaves the context through a symbolic link",
		},
		"a link inside the context": {files: map[string]string{"rootfs.yaml": head + "[{path: /d, source: d/sub/file}]", "d/sub@": "../real/dir", "real/dir/file": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, tc.files)
			if tc.prepare != nil {
				tc.prepare(t, dir)
			}
			_, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
			if tc.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, spec.ErrInvalid)
			assert.Contains(t, err.Error(), tc.want)
			assert.NotContains(t, err.Error(), "TOP SECRET", "a file outside of the context is shown")
			if tc.is != nil {
				assert.ErrorIs(t, err, tc.is)
			}
		})
	}
}

func TestContextDirectory(t *testing.T) {
	dir := tree(t, map[string]string{"elsewhere.yaml": head + "[{path: /x, source: x}]", "file": "", "ctx/x": ""})
	_, err := load(t, filepath.Join(dir, "none"), filepath.Join(dir, "elsewhere.yaml"))
	require.ErrorIs(t, err, spec.ErrInvalid)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.Contains(t, err.Error(), "none: opening the context directory")
	_, err = load(t, filepath.Join(dir, "file"), filepath.Join(dir, "elsewhere.yaml"))
	require.ErrorIs(t, err, spec.ErrInvalid)
	b, err := load(t, filepath.Join(dir, "ctx"), filepath.Join(dir, "elsewhere.yaml"))
	require.NoError(t, err, "the spec may lie outside of the context")
	assert.Equal(t, []string{"/x"}, paths(b))
	b, err = load(t, filepath.Join(dir, "ctx"), filepath.Join(dir, "ctx/../elsewhere.yaml"))
	require.NoError(t, err)
	assert.Equal(t, []string{"/x"}, paths(b))
}

func TestUnreadableDirectory(t *testing.T) {
	dir := tree(t, map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/no/x": ""})
	require.NoError(t, os.Chmod(filepath.Join(dir, "d/no"), 0))
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "d/no"), 0o755) })
	_, readable := os.ReadDir(filepath.Join(dir, "d/no"))
	_, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
	if readable == nil { // root reads everything
		require.NoError(t, err)
		return
	}
	require.ErrorIs(t, err, fs.ErrPermission)
	assert.Contains(t, err.Error(), `"d/no" cannot be read`)
}

// TestIgnore holds .dockerignore to Docker's rules, for a directory source of everything.
func TestIgnore(t *testing.T) {
	all := map[string]string{
		"a.txt": "", "b.md": "", "README.md": "", "src/a.txt": "", "src/deep/b.md": "", "src/deep/README.md": "", "tmp/x": "", "tmp/keep/y": "", "Case": "",
	}
	for name, tc := range map[string]struct {
		ignore string
		want   []string // files, without directories and .dockerignore
	}{
		"E19 nothing":             {"", []string{"/Case", "/README.md", "/a.txt", "/b.md", "/src/a.txt", "/src/deep/README.md", "/src/deep/b.md", "/tmp/keep/y", "/tmp/x"}},
		"E19 top only":            {"*.md\n", []string{"/Case", "/a.txt", "/src/a.txt", "/src/deep/README.md", "/src/deep/b.md", "/tmp/keep/y", "/tmp/x"}},
		"E19 any depth":           {"**/*.md\n", []string{"/Case", "/a.txt", "/src/a.txt", "/tmp/keep/y", "/tmp/x"}},
		"E19 exception":           {"**/*.md\n!**/README.md\n", []string{"/Case", "/README.md", "/a.txt", "/src/a.txt", "/src/deep/README.md", "/tmp/keep/y", "/tmp/x"}},
		"E19 last one wins":       {"!README.md\n*.md\n", []string{"/Case", "/a.txt", "/src/a.txt", "/src/deep/README.md", "/src/deep/b.md", "/tmp/keep/y", "/tmp/x"}},
		"E19 directory":           {"tmp\nsrc/\n", []string{"/Case", "/README.md", "/a.txt", "/b.md"}},
		"E19 below a directory":   {"tmp\n!tmp/keep\n", []string{"/Case", "/README.md", "/a.txt", "/b.md", "/src/a.txt", "/src/deep/README.md", "/src/deep/b.md", "/tmp/keep/y"}},
		"E19 all but":             {"*\n!src/deep\n", []string{"/src/deep/README.md", "/src/deep/b.md"}},
		"E19 leading slash":       {"/a.txt\n", []string{"/Case", "/README.md", "/b.md", "/src/a.txt", "/src/deep/README.md", "/src/deep/b.md", "/tmp/keep/y", "/tmp/x"}},
		"E19 spaces and comments": {"# all\n  tmp  \n\tsrc\t\n\n#*\n*.md\r\n", []string{"/Case", "/a.txt"}},
		"E19 case":                {"case\nA.TXT\nsrc\ntmp\n**/*.md\n", []string{"/Case", "/a.txt"}},
		"E19 one character":       {"?.txt\nsrc\ntmp\n?.md\n", []string{"/Case", "/README.md"}},
		"E19 dot segments":        {"./src/../tmp\nsrc/./deep\n", []string{"/Case", "/README.md", "/a.txt", "/b.md", "/src/a.txt"}},
		"E19 byte order mark":     {"\ufeffsrc\ntmp\n*.md\n", []string{"/Case", "/a.txt"}},
	} {
		t.Run(name, func(t *testing.T) {
			all[".dockerignore"] = tc.ignore
			dir := tree(t, all)
			file := filepath.Join(t.TempDir(), "rootfs.yaml")
			require.NoError(t, os.WriteFile(file, []byte(head+"[{path: /, source: .}]"), 0o644))
			b, err := load(t, dir, file)
			require.NoError(t, err)
			var got []string
			for _, e := range b.Targets[0].Root.Op.(graph.Layer).Entries {
				if e.Type != graph.TypeDirectory && e.Path != "/.dockerignore" {
					got = append(got, e.Path)
				}
			}
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestIgnoreManyPatterns(t *testing.T) { // E19
	var ignore strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&ignore, "dir%d/*.tmp\n", i)
	}
	dir := tree(t, map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/x": "", ".dockerignore": ignore.String()})
	b, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
	require.NoError(t, err)
	assert.Equal(t, []string{"/d", "/d/x"}, paths(b))
}

// Modes of the host's files do not get into the graph, but for whether a file is executable.
func TestModesAreNormalised(t *testing.T) {
	dir := tree(t, map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/plain": "", "d/exec": "", "d/sub/": ""})
	digest := func(plain, exec, sub os.FileMode) string {
		require.NoError(t, os.Chmod(filepath.Join(dir, "d/plain"), plain))
		require.NoError(t, os.Chmod(filepath.Join(dir, "d/exec"), exec))
		require.NoError(t, os.Chmod(filepath.Join(dir, "d/sub"), sub))
		b, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
		require.NoError(t, err)
		return b.Targets[0].Root.Digest().String()
	}
	want := digest(0o644, 0o755, 0o755)
	assert.Equal(t, want, digest(0o600, 0o700, 0o700))
	assert.Equal(t, want, digest(0o666, 0o777|os.ModeSetuid, 0o777|os.ModeSticky))
	assert.NotEqual(t, want, digest(0o755, 0o755, 0o755))
}

// The graph is the same wherever the checkout is and however often it is made.
func TestLoadIsDeterministic(t *testing.T) {
	text := "version: 1\nplatforms: [linux/amd64, linux/arm64]\nargs: {A: 1, B: 2, C: 3}\nfrom: debian\nsteps:\n" +
		"  - run: x\n    env: {Z: 1, Y: 2, X: 3}\n    mounts: [{type: bind, source: d, target: /d}]\n" +
		"  - files: [{path: /d, source: d, xattrs: {user.b: x, user.a: y}}]\n"
	var want []string
	for range 3 {
		files := map[string]string{"rootfs.yaml": text, ".dockerignore": "*.x\n"}
		for i := range 20 {
			files[fmt.Sprintf("d/%d/f", i)] = ""
		}
		dir := tree(t, files)
		t.Chdir(dir)
		b, err := load(t, ".", "rootfs.yaml")
		require.NoError(t, err)
		var got []string
		for _, target := range b.Targets {
			got = append(got, target.Root.Digest().String())
		}
		if want == nil {
			want = got
		}
		assert.Equal(t, want, got)
	}
}

func TestCancel(t *testing.T) {
	dir := tree(t, map[string]string{"rootfs.yaml": head + "[{path: /d, source: d}]", "d/x": ""})
	ctx, cancel := context.WithCancelCause(context.Background())
	why := fmt.Errorf("told to stop")
	cancel(why)
	_, err := spec.Load(ctx, filepath.Join(dir, "rootfs.yaml"), dir, spec.Options{Machine: amd64})
	assert.ErrorIs(t, err, why)
}

func TestCheck(t *testing.T) {
	dir := tree(t, map[string]string{"rootfs.yaml": "version: 1\nfrom: scratch\nstages: {a: {from: scratch}}\n", "bad.yaml": "version: 1\n"})
	warnings, err := spec.Check(context.Background(), filepath.Join(dir, "rootfs.yaml"), dir, spec.Options{Machine: amd64})
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	assert.Contains(t, warnings[0], "rootfs.yaml:3:10: stage a is not used")
	_, err = spec.Check(context.Background(), filepath.Join(dir, "bad.yaml"), dir, spec.Options{Machine: amd64})
	assert.ErrorIs(t, err, spec.ErrInvalid)
}

// Secrets are in the graph by name only.
func TestSecretsAreNames(t *testing.T) { // E16
	dir := tree(t, map[string]string{"rootfs.yaml": "version: 1\nfrom: debian\nsteps:\n  - run: x\n    mounts: [{type: secret, id: tok, required: true}, {type: secret, id: tok, env: TOK}]\n"})
	b, err := load(t, dir, filepath.Join(dir, "rootfs.yaml"))
	require.NoError(t, err)
	op := b.Targets[0].Root.Op.(graph.Exec)
	assert.Equal(t, []graph.Mount{
		{Type: graph.MountSecret, Target: "/run/secrets/tok", ID: "tok", Required: true},
		{Type: graph.MountSecret, ID: "tok", Env: "TOK"},
	}, op.Mounts)
	assert.NotContains(t, strings.Join(op.Env, " "), "TOK")
}

func socket(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		t.Chdir(dir) // the path of a socket is short
		l, err := net.Listen("unix", name)
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
	}
}

func rawName(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
}

func fifo(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		require.NoError(t, unix.Mkfifo(filepath.Join(dir, name), 0o600))
	}
}

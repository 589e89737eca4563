package spec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

var update = flag.Bool("update", false, "write the golden parts of testdata")

var amd64 = platform.Platform{OS: "linux", Arch: "amd64"}

// tree makes files in a fresh directory: "NAME" → content, "NAME/" → directory, "NAME@" → symlink to the value.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(strings.TrimRight(name, "@/")))
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		switch {
		case strings.HasSuffix(name, "@"):
			require.NoError(t, os.Symlink(content, p))
		case strings.HasSuffix(name, "/"):
			require.NoError(t, os.MkdirAll(p, 0o755))
		default:
			require.NoError(t, os.WriteFile(p, []byte(content), 0o644))
		}
	}
	return dir
}

func load(t testing.TB, dir, file string) (*graph.Build, error) {
	t.Helper()
	type result struct {
		b   *graph.Build
		err error
	}
	done := make(chan result, 1)
	go func() {
		b, err := spec.Load(context.Background(), file, dir, spec.Options{Machine: amd64})
		done <- result{b, err}
	}()
	select {
	case r := <-done:
		return r.b, r.err
	case <-time.After(2 * time.Minute):
		t.Fatal("Load hangs")
		return nil, nil
	}
}

const head = "version: 1\nfrom: scratch\nsteps:\n  - files: "

func paths(b *graph.Build) []string {
	var out []string
	for _, e := range b.Targets[0].Root.Op.(graph.Layer).Entries {
		out = append(out, e.Path)
	}
	return out
}

// testCase is a txtar of testdata: options in the comment, the spec as rootfs.yaml, "want", and the context's
// other files. A name that ends in * is executable, "NAME -> TARGET" is a symlink, "NAME/" an empty directory.
type testCase struct {
	file    string
	archive *txtar.Archive
	options spec.Options
	want    []byte
}

func readCase(t testing.TB, file string) testCase {
	t.Helper()
	a, err := txtar.ParseFile(file)
	require.NoError(t, err)
	c := testCase{file: file, archive: a, options: spec.Options{Machine: amd64, Args: map[string]string{}}}
	for line := range strings.Lines(string(a.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "platforms":
			c.options.Platforms, err = platform.ParseList(value)
			require.NoError(t, err)
		case "machine":
			c.options.Machine, err = platform.Parse(value)
			require.NoError(t, err)
		case "arg":
			k, v, _ := strings.Cut(value, "=")
			c.options.Args[k] = v
		case "epoch":
			n, err := strconv.ParseInt(value, 10, 64)
			require.NoError(t, err)
			c.options.Epoch = &n
		case "context":
			k, v, _ := strings.Cut(value, "=")
			if c.options.Contexts == nil {
				c.options.Contexts = map[string]string{}
			}
			c.options.Contexts[k] = v
		}
	}
	for _, f := range a.Files {
		if f.Name == "want" {
			c.want = f.Data
		}
	}
	return c
}

// run loads the case in a fresh directory, which is the working directory.
func (c testCase) run(t testing.TB, change func(text []byte) []byte) (*graph.Build, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, f := range c.archive.Files {
		switch {
		case f.Name == "want":
			continue
		case strings.Contains(f.Name, " -> "):
			name, target, _ := strings.Cut(f.Name, " -> ")
			require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
			require.NoError(t, os.Symlink(target, name))
			continue
		case strings.HasSuffix(f.Name, "/"):
			require.NoError(t, os.MkdirAll(f.Name, 0o755))
			continue
		}
		mode := os.FileMode(0o644)
		name, exec := strings.CutSuffix(f.Name, "*")
		if exec {
			mode = 0o755
		}
		data := f.Data
		if name == "rootfs.yaml" {
			data = change(data)
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, data, mode))
	}
	return spec.Load(context.Background(), "rootfs.yaml", ".", c.options)
}

func same(b []byte) []byte { return b }

func cases(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for i := range files {
		files[i], err = filepath.Abs(files[i])
		require.NoError(t, err)
	}
	return files
}

func golden(t *testing.T, c testCase, got string) {
	t.Helper()
	if *update {
		c.archive.Files = slices.DeleteFunc(c.archive.Files, func(f txtar.File) bool { return f.Name == "want" })
		c.archive.Files = append(c.archive.Files, txtar.File{Name: "want", Data: []byte(got)})
		require.NoError(t, os.WriteFile(c.file, txtar.Format(c.archive), 0o644))
		return
	}
	assert.Equal(t, string(c.want), got)
}

// TestInvalid holds the text of every mistake to its golden: the place, the caret, the hint.
func TestInvalid(t *testing.T) {
	for _, file := range cases(t, "invalid") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			c := readCase(t, file)
			_, err := c.run(t, same)
			require.ErrorIs(t, err, spec.ErrInvalid)
			for _, e := range all(err) {
				assert.True(t, e.Line > 0 && e.Column > 0, "no place: %v", e)
			}
			golden(t, c, err.Error()+"\n")
		})
	}
}

// all returns the single mistakes of an error.
func all(err error) []*spec.Error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if _, ok := err.(*spec.Error); !ok {
			var out []*spec.Error
			for _, e := range joined.Unwrap() {
				out = append(out, all(e)...)
			}
			return out
		}
	}
	var e *spec.Error
	if errors.As(err, &e) {
		return []*spec.Error{e}
	}
	return nil
}

// TestValid holds the graph of good specs to its golden.
func TestValid(t *testing.T) {
	for _, file := range cases(t, "valid") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			c := readCase(t, file)
			b, err := c.run(t, same)
			require.NoError(t, err)
			golden(t, c, dump(t, b))
		})
	}
}

// dump prints a build, each vertex once, inputs before what uses them.
func dump(t testing.TB, b *graph.Build) string {
	t.Helper()
	var out bytes.Buffer
	names := map[*graph.Vertex]string{nil: "scratch"}
	var walk func(v *graph.Vertex)
	walk = func(v *graph.Vertex) {
		if _, ok := names[v]; ok {
			return
		}
		var inputs []string
		for _, in := range v.Inputs {
			walk(in)
			inputs = append(inputs, names[in])
		}
		names[v] = fmt.Sprintf("v%d", len(names))
		m := v.Meta
		fmt.Fprintf(&out, "%s = %s(%s)", names[v], v.Op.Kind(), strings.Join(inputs, ", "))
		if !v.Platform.IsZero() {
			fmt.Fprintf(&out, " on %s", v.Platform)
		}
		fmt.Fprintf(&out, "\n  %s [%s %d/%d %s]\n", m.Name, m.Source, m.Step, m.Steps, m.For)
		if m.History != m.Name {
			fmt.Fprintf(&out, "  history: %s\n", strings.ReplaceAll(m.History, "\n", "\n  | "))
		}
		body, err := json.Marshal(v.Op)
		require.NoError(t, err)
		if l, ok := v.Op.(graph.Layer); ok {
			for _, e := range l.Entries {
				body, err = json.Marshal(e)
				require.NoError(t, err)
				fmt.Fprintf(&out, "  %s @%s\n", body, e.At)
			}
			return
		}
		fmt.Fprintf(&out, "  %s\n", body)
	}
	for _, target := range b.Targets {
		fmt.Fprintf(&out, "# %s created %d\n", target.Platform, target.Created)
		walk(target.Root)
		fmt.Fprintf(&out, "root %s\n", names[target.Root])
		config, err := json.Marshal(target.Config)
		require.NoError(t, err)
		fmt.Fprintf(&out, "config %s\n", config)
		if target.Annotations != nil {
			fmt.Fprintf(&out, "annotations %v\n", target.Annotations)
		}
	}
	if b.IndexAnnotations != nil {
		fmt.Fprintf(&out, "index annotations %v\n", b.IndexAnnotations)
	}
	fmt.Fprintf(&out, "contexts %v\n", b.Contexts)
	for _, w := range b.Warnings {
		fmt.Fprintf(&out, "warning: %s\n", w)
	}
	return out.String()
}

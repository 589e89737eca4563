package output

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// place is a kind of destination as the conformance suite sees it.
type place struct {
	arg    string
	single bool // holds one platform only
	// read returns everything that is at the place, for comparing.
	read func(t *testing.T, env Env) map[string][]byte
}

func places() map[string]place {
	readFile := func(name string) func(*testing.T, Env) map[string][]byte {
		return func(t *testing.T, env Env) map[string][]byte {
			data, err := os.ReadFile(filepath.Join(env.Dir, name))
			require.NoError(t, err)
			return map[string][]byte{name: data}
		}
	}
	readTree := func(name string) func(*testing.T, Env) map[string][]byte {
		return func(t *testing.T, env Env) map[string][]byte {
			out := map[string][]byte{}
			dir := filepath.Join(env.Dir, name)
			require.NoError(t, filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
				require.NoError(t, err)
				rel, err := filepath.Rel(dir, p)
				require.NoError(t, err)
				info, err := e.Info()
				require.NoError(t, err)
				out[rel] = []byte(info.Mode().String())
				if info.Mode().IsRegular() {
					data, err := os.ReadFile(p)
					require.NoError(t, err)
					out[rel] = append(out[rel], data...)
				}
				return nil
			}))
			return out
		}
	}
	return map[string]place{
		"oci":        {arg: "type=oci,dest=out.tar", read: readFile("out.tar")},
		"oci layout": {arg: "type=oci,dest=out,tar=false", read: readTree("out")},
		"docker":     {arg: "type=docker,dest=out.tar", single: true, read: readFile("out.tar")},
		"tar":        {arg: "type=tar,dest=out.tar", read: readFile("out.tar")},
		"local":      {arg: "type=local,dest=out", read: readTree("out")},
		"stdout": {arg: "type=oci,dest=-", read: func(t *testing.T, env Env) map[string][]byte {
			buf, ok := env.Stdout.(*bytes.Buffer)
			require.True(t, ok)
			return map[string][]byte{"-": buf.Bytes()}
		}},
		"image": {arg: "type=image", read: func(t *testing.T, env Env) map[string][]byte {
			out := map[string][]byte{}
			refs, err := env.Store.Refs()
			require.NoError(t, err)
			for _, r := range refs {
				out[r.Name] = []byte(r.Desc.Digest)
			}
			return out
		}},
	}
}

// TestConformance holds every kind of destination to the same rules.
func TestConformance(t *testing.T) {
	for name, pl := range places() {
		t.Run(name, func(t *testing.T) {
			images := []struct {
				name string
				p    func(t *testing.T) Product
			}{
				{"one platform", func(t *testing.T) Product { return productOf(t, []string{"hello:1.0"}, amd64()) }},
				{"two platforms", func(t *testing.T) Product { return productOf(t, []string{"hello:1.0"}, amd64(), arm()) }},
			}
			newEnv := func(t *testing.T) Env {
				return Env{Store: openStore(t), Stdout: &bytes.Buffer{}, Dir: t.TempDir()}
			}
			for _, img := range images {
				if pl.single && img.name == "two platforms" {
					continue
				}
				t.Run(img.name, func(t *testing.T) {
					t.Run("equal products give equal bytes", func(t *testing.T) {
						first, second := newEnv(t), newEnv(t)
						require.NoError(t, open(t, first, pl.arg).Write(t.Context(), img.p(t)))
						require.NoError(t, open(t, second, pl.arg).Write(t.Context(), img.p(t)))
						got := pl.read(t, first)
						assert.NotEmpty(t, got)
						assert.Equal(t, got, pl.read(t, second))
					})
					t.Run("written again", func(t *testing.T) {
						if name == "stdout" {
							return // there is no second time
						}
						env := newEnv(t)
						require.NoError(t, open(t, env, pl.arg).Write(t.Context(), img.p(t)))
						got := pl.read(t, env)
						require.NoError(t, open(t, env, pl.arg).Write(t.Context(), img.p(t)))
						assert.Equal(t, got, pl.read(t, env))
					})
					t.Run("an error leaves nothing", func(t *testing.T) {
						env := newEnv(t)
						p := img.p(t)
						breakContent(&p, errBroken)
						require.ErrorIs(t, open(t, env, pl.arg).Write(t.Context(), p), errBroken)
						assert.Empty(t, files(t, env.Dir))
						refs, err := env.Store.Refs()
						require.NoError(t, err)
						assert.Empty(t, refs)
					})
					t.Run("an error leaves what was there", func(t *testing.T) {
						if name == "stdout" || name == "local" { // local writes over a tree file by file
							return
						}
						env := newEnv(t)
						require.NoError(t, open(t, env, pl.arg).Write(t.Context(), img.p(t)))
						old := pl.read(t, env)
						p := productOf(t, []string{"hello:1.0"}, testimageOther())
						breakContent(&p, errBroken)
						require.ErrorIs(t, open(t, env, pl.arg).Write(t.Context(), p), errBroken)
						assert.Equal(t, old, pl.read(t, env))
					})
					t.Run("canceled", func(t *testing.T) {
						env := newEnv(t)
						ctx, cancel := context.WithCancelCause(t.Context())
						cancel(errBroken)
						err := open(t, env, pl.arg).Write(ctx, img.p(t))
						require.ErrorIs(t, err, errBroken)
						assert.Empty(t, files(t, env.Dir))
					})
					t.Run("a missing blob is said before anything is written", func(t *testing.T) {
						if name == "tar" || name == "local" {
							return // they read no blobs
						}
						env := newEnv(t)
						p := img.p(t)
						p.Raw = append(bytes.Clone(p.Raw), ' ')
						require.Error(t, open(t, env, pl.arg).Write(t.Context(), p))
						assert.Empty(t, files(t, env.Dir))
					})
				})
			}
			t.Run("progress", func(t *testing.T) {
				env := newEnv(t)
				var mu sync.Mutex
				var events []event.Event
				env.Events = func(e event.Event) {
					mu.Lock()
					defer mu.Unlock()
					events = append(events, e)
				}
				require.NoError(t, open(t, env, pl.arg).Write(t.Context(), productOf(t, []string{"hello:1.0"}, amd64())))
				if name == "image" {
					return
				}
				require.NotEmpty(t, events)
				last := events[len(events)-1]
				assert.Equal(t, event.Progress, last.Kind)
				assert.Positive(t, last.Current)
				assert.Equal(t, last.Total, last.Current, "bytes of content are counted, not those of the archive")
				assert.Contains(t, last.ID, "exporting to ")
			})
			if pl.single {
				t.Run("several platforms are refused", func(t *testing.T) {
					env := newEnv(t)
					d := open(t, env, pl.arg)
					p := productOf(t, nil, amd64(), arm())
					require.ErrorIs(t, d.Write(t.Context(), p), ErrInvalid)
					assert.Empty(t, files(t, env.Dir))
					checker, ok := d.(PlatformChecker)
					require.True(t, ok)
					require.ErrorIs(t, checker.CheckPlatforms([]platform.Platform{p.Images[0].Platform, p.Images[1].Platform}), ErrInvalid)
					require.NoError(t, checker.CheckPlatforms([]platform.Platform{p.Images[0].Platform}))
				})
			}
		})
	}
}

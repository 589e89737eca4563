package dockerfile_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

var (
	amd64 = platform.Platform{OS: "linux", Arch: "amd64"}
	arm64 = platform.Platform{OS: "linux", Arch: "arm64"}
	armv7 = platform.Platform{OS: "linux", Arch: "arm", Variant: "v7"}
)

var errNoImage = errors.New("no such image")

// host knows images by name, with their configs, and files of remote contexts.
type host struct {
	images map[string]ocispec.Image
	raw    map[string]json.RawMessage // members of configs that image-spec's type has not
	files  fs.FS
	origin dockerfile.Origin

	mu     sync.Mutex // guards asked and opened
	asked  []string
	opened []*graph.Vertex
}

func (h *host) Image(_ context.Context, ref string, p platform.Platform, pull bool) (digest.Digest, []byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	line := ref + " " + p.String()
	if pull {
		line += " pull"
	}
	h.asked = append(h.asked, line)
	img, ok := h.images[ref]
	if !ok {
		return "", nil, errNoImage
	}
	img.OS, img.Architecture, img.Variant = p.OS, p.Arch, p.Variant
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromString("layer")}}
	img.History = []ocispec.History{{CreatedBy: "base"}}
	raw, err := json.Marshal(img)
	if more, ok := h.raw[ref]; ok && err == nil {
		tree := map[string]any{}
		if err = errors.Join(json.Unmarshal(raw, &tree), json.Unmarshal(more, &tree)); err == nil {
			raw, err = json.Marshal(tree)
		}
	}
	return digest.FromString(ref), raw, err
}

func (h *host) Origin(_ context.Context, v *graph.Vertex) (dockerfile.Origin, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, v.Op.Kind())
	return h.origin, nil
}

func (h *host) Open(_ context.Context, v *graph.Vertex, _ map[string]string) (fs.FS, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened = append(h.opened, v)
	return h.files, nil
}

// busybox is a host with that image.
func busybox() *host {
	return &host{images: map[string]ocispec.Image{
		"docker.io/library/busybox:latest": {Config: ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}},
	}}
}

// write writes files, by name, to a new directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

// build builds a Dockerfile in a context of its own.
func build(t *testing.T, text string, change func(*dockerfile.Options)) (*graph.Build, error) {
	t.Helper()
	o := dockerfile.Options{Machine: amd64, Host: busybox()}
	o.Context = write(t, map[string]string{"Dockerfile": text})
	if change != nil {
		change(&o)
	}
	return dockerfile.Build(t.Context(), o)
}

// names are the names of all vertices that v needs, inputs first.
func names(v *graph.Vertex) []string {
	var out []string
	for each := range vertices(v) {
		out = append(out, each.Meta.Name)
	}
	return out
}

func vertices(roots ...*graph.Vertex) func(yield func(*graph.Vertex) bool) {
	return func(yield func(*graph.Vertex) bool) {
		seen := map[digest.Digest]bool{}
		var visit func(v *graph.Vertex) bool
		visit = func(v *graph.Vertex) bool {
			if v == nil || seen[v.Digest()] {
				return true
			}
			seen[v.Digest()] = true
			for _, in := range v.Inputs {
				if !visit(in) {
					return false
				}
			}
			return yield(v)
		}
		for _, r := range roots {
			if !visit(r) {
				return
			}
		}
	}
}

func find[T graph.Op](t *testing.T, v *graph.Vertex) T {
	t.Helper()
	for each := range vertices(v) {
		if op, ok := each.Op.(T); ok {
			return op
		}
	}
	var none T
	require.Failf(t, "missing", "no %T in %v", none, names(v))
	return none
}

func TestBuild(t *testing.T) {
	b, err := build(t, "FROM busybox\nCOPY . /src\nRUN make\nCMD [\"x\"]\n", nil)
	require.NoError(t, err)
	require.Len(t, b.Targets, 1)
	target := b.Targets[0]
	assert.Equal(t, amd64, target.Platform)
	assert.Equal(t, []string{
		"[1/3] FROM docker.io/library/busybox:latest@" + digest.FromString("docker.io/library/busybox:latest").String(),
		"[internal] load build context", "[2/3] COPY . /src", "[3/3] RUN make",
	}, names(target.Root))
	assert.Equal(t, "Dockerfile:3", target.Root.Meta.Source)
	assert.Equal(t, []string{"/bin/sh", "-c", "make"}, find[graph.Exec](t, target.Root).Args)

	var config ocispec.Image
	require.NoError(t, json.Unmarshal(target.Image.Raw, &config))
	assert.Equal(t, []string{"x"}, config.Config.Cmd)
	assert.Equal(t, []string{"PATH=/bin"}, config.Config.Env)
	var by []string
	for _, h := range config.History {
		by = append(by, h.CreatedBy)
	}
	assert.Equal(t, []string{"base", "COPY . /src # buildkit", "RUN /bin/sh -c make # buildkit", `CMD ["x"]`}, by)
	assert.NotEmpty(t, target.Image.Base)
}

func TestPlatformsShareWhatDoesNotDependOnThem(t *testing.T) {
	b, err := build(t, "FROM --platform=$BUILDPLATFORM busybox AS make\nARG X\nRUN make\nFROM busybox\nCOPY --from=make /x /\nRUN y\n",
		func(o *dockerfile.Options) { o.Platforms = []platform.Platform{amd64, arm64, armv7} })
	require.NoError(t, err)
	require.Len(t, b.Targets, 3)
	makes := map[digest.Digest]bool{}
	runs := map[digest.Digest]bool{}
	for i, p := range []platform.Platform{amd64, arm64, armv7} {
		assert.Equal(t, p, b.Targets[i].Platform)
		for v := range vertices(b.Targets[i].Root) {
			if strings.HasSuffix(v.Meta.Name, "RUN make") {
				makes[v.Digest()] = true
				assert.Equal(t, amd64, v.Platform)
			}
			if strings.HasSuffix(v.Meta.Name, "RUN y") {
				runs[v.Digest()] = true
				assert.Equal(t, p, v.Platform)
			}
		}
	}
	assert.Len(t, makes, 1, "the stage of the build platform is one for all")
	assert.Len(t, runs, 3)
}

func TestOptions(t *testing.T) {
	const text = "ARG BASE=busybox\nFROM $BASE AS one\nARG V=0\nRUN echo $V\nFROM one AS two\nRUN two\n"
	for name, tc := range map[string]struct {
		change func(*dockerfile.Options)
		check  func(t *testing.T, root *graph.Vertex)
	}{
		"target": {
			func(o *dockerfile.Options) { o.Target = "one" },
			func(t *testing.T, root *graph.Vertex) { assert.Equal(t, "[one 2/2] RUN echo 0", root.Meta.Name) },
		},
		"argument": {
			func(o *dockerfile.Options) { o.Args = map[string]string{"V": "7"} },
			func(t *testing.T, root *graph.Vertex) {
				assert.Contains(t, find[graph.Exec](t, root).Env, "V=7")
			},
		},
		"no cache": {
			func(o *dockerfile.Options) { o.NoCache = true },
			func(t *testing.T, root *graph.Vertex) {
				assert.True(t, root.Meta.NoCache)
				assert.True(t, root.Inputs[0].Meta.NoCache)
			},
		},
		"no cache of a stage": {
			func(o *dockerfile.Options) { o.NoCacheFilter = []string{"two"} },
			func(t *testing.T, root *graph.Vertex) {
				assert.True(t, root.Meta.NoCache)
				assert.False(t, root.Inputs[0].Meta.NoCache)
			},
		},
		"hosts": {
			func(o *dockerfile.Options) { o.Hosts = []string{"db=10.0.0.1"} },
			func(t *testing.T, root *graph.Vertex) {
				assert.Equal(t, []graph.Host{{Name: "db", IP: "10.0.0.1"}}, find[graph.Exec](t, root).Hosts)
			},
		},
		"limits": {
			func(o *dockerfile.Options) { o.Ulimits = []string{"nofile=1:2", "core=0"} },
			func(t *testing.T, root *graph.Vertex) {
				assert.ElementsMatch(t, []graph.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}, {Name: "core"}}, find[graph.Exec](t, root).Ulimits)
			},
		},
		"shared memory": {
			func(o *dockerfile.Options) { o.ShmSize = 1 << 20 },
			func(t *testing.T, root *graph.Vertex) {
				assert.Contains(t, find[graph.Exec](t, root).Mounts, graph.Mount{Type: graph.MountTmpfs, Target: "/dev/shm", Size: 1 << 20})
			},
		},
		"no network": {
			func(o *dockerfile.Options) { o.Network = "none" },
			func(t *testing.T, root *graph.Vertex) {
				assert.Equal(t, graph.NetworkNone, find[graph.Exec](t, root).Network)
			},
		},
		"the host's network": {
			func(o *dockerfile.Options) { o.Network, o.Allow.NetworkHost = "host", true },
			func(t *testing.T, root *graph.Vertex) {
				assert.Equal(t, graph.NetworkHost, find[graph.Exec](t, root).Network)
			},
		},
		"proxy of an argument": {
			func(o *dockerfile.Options) {
				o.Args, o.Proxy = map[string]string{"http_proxy": "http://arg"}, &graph.Proxy{HTTP: "http://caller"}
			},
			func(t *testing.T, root *graph.Vertex) {
				assert.Equal(t, &graph.Proxy{HTTP: "http://arg"}, find[graph.Exec](t, root).Proxy)
			},
		},
		"proxy of the caller": {
			func(o *dockerfile.Options) { o.Proxy = &graph.Proxy{HTTP: "http://caller"} },
			func(t *testing.T, root *graph.Vertex) {
				assert.Equal(t, &graph.Proxy{HTTP: "http://caller"}, find[graph.Exec](t, root).Proxy)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := build(t, text, tc.change)
			require.NoError(t, err)
			tc.check(t, b.Targets[0].Root)
		})
	}
}

func TestPullReachesTheRegistry(t *testing.T) {
	h := busybox()
	_, err := build(t, "FROM busybox\n", func(o *dockerfile.Options) { o.Host, o.Pull = h, true })
	require.NoError(t, err)
	assert.Equal(t, []string{"docker.io/library/busybox:latest linux/amd64 pull"}, h.asked)
}

func TestLabels(t *testing.T) {
	b, err := build(t, "FROM scratch\nLABEL a=1\n", func(o *dockerfile.Options) { o.Labels = map[string]string{"b": "2"} })
	require.NoError(t, err)
	var config ocispec.Image
	require.NoError(t, json.Unmarshal(b.Targets[0].Image.Raw, &config))
	assert.Equal(t, map[string]string{"a": "1", "b": "2"}, config.Config.Labels)
	assert.Nil(t, b.Targets[0].Root)
}

func TestMistakesHaveTheirLines(t *testing.T) {
	for name, tc := range map[string]struct {
		text   string
		source string
		kind   error
		want   string
	}{
		"unknown instruction": {"FROM busybox\nRUNN x\n", "Dockerfile:2", dockerfile.ErrInvalid, "unknown instruction: RUNN"},
		"no image":            {"FROM busybox AS a\nFROM nowhere.io/x\n", "Dockerfile:2", errNoImage, "no such image"},
		"unknown stage flag":  {"FROM busybox\nCOPY --fromm=a x y\n", "Dockerfile:2", dockerfile.ErrInvalid, "unknown flag: --fromm"},
		"empty":               {"", "Dockerfile", dockerfile.ErrInvalid, "cannot be empty"},
		"host network":        {"FROM busybox\n\nRUN --network=host x\n", "Dockerfile:3", llb.ErrNotAllowed, "--allow network.host"},
		"continued lines":     {"FROM busybox\nRUN --security=insecure a \\\n  b\n", "Dockerfile:2", llb.ErrNotAllowed, "security.insecure"},
		"other frontend":      {"# syntax=example.org/mine:1\nFROM busybox\n", "Dockerfile:1", llb.ErrUnsupported, `"example.org/mine:1"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := build(t, tc.text, nil)
			require.ErrorIs(t, err, tc.kind)
			assert.ErrorContains(t, err, tc.want)
			assert.True(t, strings.HasPrefix(err.Error(), tc.source+": "), "%s", err)
			var at interface{ Lines() *graph.Excerpt }
			require.ErrorAs(t, err, &at)
			if strings.Contains(tc.source, ":") {
				assert.Contains(t, at.Lines().String(), ">>> ")
			}
		})
	}
}

func TestUnknownTargetSuggestsOne(t *testing.T) {
	_, err := build(t, "FROM busybox AS release\n", func(o *dockerfile.Options) { o.Target = "relase" })
	require.ErrorIs(t, err, dockerfile.ErrInvalid)
	assert.ErrorContains(t, err, "did you mean release?")
}

func TestWarnings(t *testing.T) {
	b, err := build(t, "FROM busybox as x\nENV a b\nMAINTAINER me\n", func(o *dockerfile.Options) {
		o.Platforms = []platform.Platform{amd64, arm64}
	})
	require.NoError(t, err)
	require.Len(t, b.Warnings, 3, "each once: %q", b.Warnings)
	for i, start := range []string{"Dockerfile:1: FromAsCasing: ", "Dockerfile:2: LegacyKeyValueFormat: ", "Dockerfile:3: MaintainerDeprecated: "} {
		assert.True(t, strings.HasPrefix(b.Warnings[i], start), b.Warnings[i])
		assert.Contains(t, b.Warnings[i], "https://")
	}
}

func TestSyntaxLineOfTheBuiltInFrontend(t *testing.T) {
	for _, ref := range []string{"docker/dockerfile:1", "docker/dockerfile-upstream:master", "docker.io/docker/dockerfile:1.7-labs", "mirror.example:5000/docker/dockerfile@sha256:" + strings.Repeat("a", 64)} {
		t.Run(ref, func(t *testing.T) {
			b, err := build(t, "# syntax="+ref+"\nFROM busybox as x\nRUN <<EOF\nhi\nEOF\n", nil)
			require.NoError(t, err)
			assert.Equal(t, "hi\n", find[graph.Exec](t, b.Targets[0].Root).Args[2])
			assert.Len(t, b.Warnings, 1)
		})
	}
}

func TestOnbuildOfTheBase(t *testing.T) {
	h := busybox()
	b, err := build(t, "FROM busybox AS base\nONBUILD RUN later\nFROM base\nRUN now\n", func(o *dockerfile.Options) { o.Host = h })
	require.NoError(t, err)
	all := names(b.Targets[0].Root)
	assert.True(t, slices.ContainsFunc(all, func(s string) bool { return strings.HasSuffix(s, "RUN later") }), "%q", all)
}

func TestEpoch(t *testing.T) {
	b, err := build(t, "FROM scratch\nWORKDIR /x\n", func(o *dockerfile.Options) { o.Args = map[string]string{"SOURCE_DATE_EPOCH": "1700000000"} })
	require.NoError(t, err)
	require.NotNil(t, b.Targets[0].Image.Epoch)
	assert.EqualValues(t, 1700000000, *b.Targets[0].Image.Epoch)
	mkdir := find[graph.File](t, b.Targets[0].Root).Actions[0].Mkdir
	require.NotNil(t, mkdir.Time)
	assert.EqualValues(t, 1700000000_000000000, *mkdir.Time)
}

func TestFilesOfTheContext(t *testing.T) {
	const text = "FROM scratch\nCOPY . /\n"
	for name, tc := range map[string]struct {
		files map[string]string
		file  string // -f
		want  []string
	}{
		"none":                  {files: map[string]string{"Dockerfile": text}},
		"dockerignore":          {files: map[string]string{"Dockerfile": text, ".dockerignore": "# no\n*.o\n!a.o\n"}, want: []string{"*.o", "!a.o"}},
		"of the Dockerfile":     {files: map[string]string{"Dockerfile": text, ".dockerignore": "x", "Dockerfile.dockerignore": "y"}, want: []string{"y"}},
		"of another Dockerfile": {files: map[string]string{"sub/D": text, "sub/D.dockerignore": "z", ".dockerignore": "x"}, file: "sub/D", want: []string{"z"}},
		"lower case":            {files: map[string]string{"dockerfile": text, ".dockerignore": "x"}, want: []string{"x"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, tc.files)
			o := dockerfile.Options{Machine: amd64, Host: busybox()}
			o.Context = dir
			if tc.file != "" {
				o.File = filepath.Join(dir, tc.file)
			}
			b, err := dockerfile.Build(t.Context(), o)
			require.NoError(t, err)
			local := find[graph.Local](t, b.Targets[0].Root)
			assert.Equal(t, graph.Local{Context: "context", Exclude: tc.want, Raw: true}, local)
			assert.Equal(t, dir, b.Contexts["context"])
		})
	}
}

func TestDockerfileOutsideOfTheContextIsNotRead(t *testing.T) {
	outside := write(t, map[string]string{"Dockerfile": "FROM scratch\n"})
	dir := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(outside, "Dockerfile"), filepath.Join(dir, "Dockerfile")))
	o := dockerfile.Options{Machine: amd64, Host: busybox()}
	o.Context = dir
	_, err := dockerfile.Build(t.Context(), o)
	require.ErrorIs(t, err, dockerfile.ErrInvalid)
}

func TestNamedContexts(t *testing.T) {
	dir := write(t, map[string]string{"f": "", ".dockerignore": "no"})
	layout := digest.FromString("layout")
	h := busybox()
	h.images["docker.io/library/alpine:latest"] = ocispec.Image{}
	h.images["oci:/l@"+layout.String()] = ocispec.Image{}
	for name, tc := range map[string]struct {
		text string
		c    dockerfile.Context
		want string
	}{
		"directory":  {"FROM scratch\nCOPY --from=other . /\n", dockerfile.Context{Value: dir}, `local{"context":"other","exclude":["no"],"raw":true}`},
		"image":      {"FROM other\nRUN x\n", dockerfile.Context{Value: "docker-image://alpine"}, `image{"ref":"docker.io/library/alpine:latest@` + digest.FromString("docker.io/library/alpine:latest").String() + `","filesOnly":true}`},
		"layout":     {"FROM other\nRUN x\n", dockerfile.Context{Value: "oci-layout://l", Ref: "oci:/l", Digest: layout}, `image{"ref":"oci:/l@` + layout.String() + `","filesOnly":true}`},
		"git":        {"FROM scratch\nCOPY --from=other . /\n", dockerfile.Context{Value: "https://e.org/r.git#main"}, `git{"remote":"https://e.org/r.git","ref":"main","tokenSecret":"GIT_AUTH_TOKEN","headerSecret":"GIT_AUTH_HEADER"}`},
		"http":       {"FROM scratch\nCOPY --from=other . /\n", dockerfile.Context{Value: "https://e.org/f"}, `http{"url":"https://e.org/f","filename":"context","mode":384}`},
		"of a stage": {"FROM busybox AS other\nRUN no\nFROM other\nRUN x\n", dockerfile.Context{Value: "docker-image://alpine"}, `image{"ref":"docker.io/library/alpine:latest@` + digest.FromString("docker.io/library/alpine:latest").String() + `","filesOnly":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := build(t, tc.text, func(o *dockerfile.Options) {
				o.Host, o.Contexts = h, map[string]dockerfile.Context{"other": tc.c}
			})
			require.NoError(t, err)
			var got []string
			for v := range vertices(b.Targets[0].Root) {
				if len(v.Inputs) == 0 {
					raw, err := json.Marshal(v.Op)
					require.NoError(t, err)
					got = append(got, v.Op.Kind()+string(raw))
				}
			}
			assert.Contains(t, got, tc.want)
		})
	}
	for name, value := range map[string]string{"missing": filepath.Join(dir, "missing"), "a file": filepath.Join(dir, "f"), "target": "target:x"} {
		t.Run(name, func(t *testing.T) {
			_, err := build(t, "FROM scratch\n", func(o *dockerfile.Options) {
				o.Contexts = map[string]dockerfile.Context{"other": {Value: value}}
			})
			require.ErrorIs(t, err, dockerfile.ErrInput)
		})
	}
}

func TestRemoteContexts(t *testing.T) {
	const text = "FROM busybox\nCOPY a /\n"
	for name, tc := range map[string]struct {
		context string
		files   fstest.MapFS
		want    string // kind of what was opened
	}{
		"git":        {"https://e.org/r.git#main:sub", fstest.MapFS{"Dockerfile": {Data: []byte(text)}}, "git"},
		"archive":    {"https://e.org/r.tar.gz", fstest.MapFS{"context": {Data: []byte("\x1f\x8b\x08")}, "Dockerfile": {Data: []byte(text)}}, "http"},
		"Dockerfile": {"https://e.org/Dockerfile", fstest.MapFS{"context": {Data: []byte("FROM busybox\nRUN x\n")}}, "http"},
	} {
		t.Run(name, func(t *testing.T) {
			h := busybox()
			h.files = tc.files
			o := dockerfile.Options{Machine: amd64, Host: h}
			o.Context = tc.context
			b, err := dockerfile.Build(t.Context(), o)
			require.NoError(t, err)
			require.NotEmpty(t, h.opened)
			assert.Equal(t, tc.want, h.opened[0].Op.Kind())
			assert.NotNil(t, b.Targets[0].Root)
		})
	}
}

func TestArchiveAsContext(t *testing.T) {
	h := busybox()
	h.files = fstest.MapFS{"Dockerfile": {Data: []byte("FROM scratch\nCOPY a /\n")}}
	dir := write(t, map[string]string{"context": "\x1f\x8b\x08"})
	o := dockerfile.Options{Machine: amd64, Host: h}
	o.Archive = filepath.Join(dir, "context")
	b, err := dockerfile.Build(t.Context(), o)
	require.NoError(t, err)
	assert.Equal(t, graph.Local{Context: "archive", Raw: true, Include: []string{"context"}}, find[graph.Local](t, b.Targets[0].Root))
	assert.Equal(t, dir, b.Contexts["archive"])
}

func TestDescribe(t *testing.T) {
	const text = "FROM busybox as make\nARG V=1\nRUN --mount=type=secret,id=s echo $V\nFROM make AS last\n"
	for method, tc := range map[dockerfile.Method]struct {
		findings int
		want     []string
	}{
		dockerfile.Check:   {1, []string{"FromAsCasing", "Dockerfile:1"}},
		dockerfile.Outline: {0, []string{"TARGET:", "last", "V", "s"}},
		dockerfile.Targets: {0, []string{"make", "last (default)"}},
	} {
		t.Run(string(method), func(t *testing.T) {
			o := dockerfile.Options{Machine: amd64, Host: busybox()}
			o.Context = write(t, map[string]string{"Dockerfile": text})
			d, err := dockerfile.Describe(t.Context(), o, method)
			require.NoError(t, err)
			assert.Equal(t, tc.findings, d.Findings)
			for _, w := range tc.want {
				assert.Contains(t, d.Text, w)
			}
			assert.True(t, json.Valid(d.JSON))
		})
	}
	t.Run("a mistake is a finding", func(t *testing.T) {
		o := dockerfile.Options{Machine: amd64, Host: busybox()}
		o.Context = write(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY --from=nothere x y\n"})
		d, err := dockerfile.Describe(t.Context(), o, dockerfile.Check)
		require.NoError(t, err)
		assert.Positive(t, d.Findings)
		assert.Contains(t, d.Text, "Dockerfile:2")
	})
}

func TestEvents(t *testing.T) {
	var seen []string
	_, err := build(t, "FROM busybox\n", func(o *dockerfile.Options) {
		o.Events = event.Serial(func(e event.Event) {
			if e.Kind == event.VertexDone {
				seen = append(seen, e.Name)
			}
		})
	})
	require.NoError(t, err)
	assert.Equal(t, []string{
		"[internal] load build definition from Dockerfile", "[internal] load metadata for docker.io/library/busybox:latest", "[internal] load .dockerignore",
	}, seen)
}

func TestCapture(t *testing.T) {
	var got []*llb.Definition
	_, err := build(t, "FROM busybox\nRUN x\n", func(o *dockerfile.Options) {
		o.Platforms = []platform.Platform{amd64, arm64}
		o.Capture = func(d *llb.Definition) { got = append(got, d) }
	})
	require.NoError(t, err)
	assert.Len(t, got, 2)
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	o := dockerfile.Options{Machine: amd64, Host: busybox()}
	o.Context = write(t, map[string]string{"Dockerfile": "FROM busybox\n"})
	_, err := dockerfile.Build(ctx, o)
	require.ErrorIs(t, err, stop)
}

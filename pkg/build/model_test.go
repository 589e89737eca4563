package build_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func TestMain(m *testing.M) {
	build.AgentMain()
	os.Exit(m.Run())
}

// model is a project that is changed a little from build to build.
type model struct {
	dir       string
	random    *rand.Rand
	files     map[string]string // of the context
	steps     []string          // of the Dockerfile's last stage
	stage     []string          // of the one before
	args      map[string]string
	base      int // which of the base images
	platforms []platform.Platform
	run       bool // steps may run processes
	output    string
}

var (
	modelFiles = []string{"a", "b.txt", "c.txt", "sub/d", "sub/e.txt", "sub/deep/f", ".hidden", "g h"}
	modelLines = []string{
		"COPY a /one", "COPY *.txt /texts/", "COPY sub /sub", "COPY sub/ /sub/", "COPY --chmod=640 a /mode", "COPY --chown=3:4 b.txt /owned",
		"COPY --from=stage /made /made", "COPY --from=stage / /stage/", "ADD c.txt /added", "WORKDIR /work", "ENV E=$A", "LABEL l=$B", "COPY --exclude=*.txt sub /ex",
		"COPY . /all", "USER 5", "COPY --link a /linked", "COPY <<EOT /here\n$A\nEOT", "ENV F=\"$E-f\"",
	}
	modelRuns = []string{
		"RUN echo $A > /run-a", "RUN cat /one > /run-one 2>/dev/null || echo none > /run-one", "RUN rm -rf /texts /sub", "RUN --mount=type=bind,target=/ctx cat /ctx/a > /run-ctx || true",
		"RUN --mount=type=cache,target=/cache echo $B > /run-b", "RUN env | sort > /run-env", "RUN --mount=type=bind,from=stage,source=/made,target=/m cat /m > /run-m", "RUN ls -R /sub > /run-ls || true",
	}
)

// modelOutputs are of all forms: those that keep layers compressed only, and those that want them uncompressed again.
var modelOutputs = []string{"type=image", "type=image,compression=zstd", "type=image,compression=uncompressed", "type=image,compression=estargz", "type=image,rewrite-timestamp=true"}

// change changes one thing and says what.
func (m *model) change(t *testing.T) string {
	t.Helper()
	pick := func(of []string) string { return of[m.random.IntN(len(of))] }
	lines := modelLines
	if m.run {
		lines = append(slices.Clone(lines), modelRuns...)
	}
	edit := func(steps []string) []string {
		i := m.random.IntN(len(steps) + 1)
		switch {
		case len(steps) > 7 || i < len(steps) && m.random.IntN(3) == 0:
			return slices.Delete(slices.Clone(steps), min(i, len(steps)-1), min(i, len(steps)-1)+1)
		default:
			return slices.Insert(slices.Clone(steps), i, pick(lines))
		}
	}
	switch m.random.IntN(8) {
	case 0, 1:
		name := pick(modelFiles)
		m.files[name] = fmt.Sprint(m.random.IntN(3))
		return "file " + name
	case 2:
		name := pick(modelFiles)
		if name == "a" || name == "b.txt" || name == "c.txt" || strings.HasPrefix(name, "sub") {
			return "nothing"
		}
		delete(m.files, name)
		return "no file " + name
	case 3:
		m.args[pick([]string{"A", "B"})] = fmt.Sprint(m.random.IntN(3))
		return "arg"
	case 4:
		m.base = m.random.IntN(2)
		return fmt.Sprintf("base %d", m.base)
	case 5:
		m.stage = edit(m.stage)
		m.stage = slices.DeleteFunc(m.stage, func(s string) bool { return strings.Contains(s, "stage") })
		return "stage"
	case 6:
		if len(m.platforms) == 1 {
			m.platforms = append(m.platforms, platform.Platform{OS: "linux", Arch: "arm64"})
		} else {
			m.platforms = m.platforms[:1]
		}
		return "platforms"
	default:
		m.steps = edit(m.steps)
		return "steps"
	}
}

func (m *model) dockerfile() string {
	args := "ARG A\nARG B\n"
	return "FROM base" + fmt.Sprint(m.base) + " AS stage\n" + args + strings.Join(m.stage, "\n") + "\nCOPY a /made\n" +
		"FROM base" + fmt.Sprint(m.base) + "\n" + args + strings.Join(m.steps, "\n") + "\n"
}

// write makes the project what it is now. What did not change stays as it is on disk, so that what is remembered of it counts; what
// changed keeps its size and gets its time back. Times of files are fixed: as with BuildKit they are in layers and in no key.
func (m *model) write(t *testing.T) {
	t.Helper()
	ctx := filepath.Join(m.dir, "context")
	require.NoError(t, os.MkdirAll(ctx, 0o755))
	at := time.Unix(1_700_000_000, 0)
	for name, content := range m.files {
		path := filepath.Join(ctx, filepath.FromSlash(name))
		if now, err := os.ReadFile(path); err == nil && string(now) == content {
			continue
		}
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		require.NoError(t, os.Chtimes(path, at, at))
	}
	require.NoError(t, filepath.WalkDir(ctx, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		name, err := filepath.Rel(ctx, path)
		if _, ok := m.files[filepath.ToSlash(name)]; !ok {
			err = errors.Join(err, os.Remove(path))
		}
		return err
	}))
	require.NoError(t, filepath.WalkDir(ctx, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chtimes(path, at, at)
		}
		return err
	}))
	require.NoError(t, os.WriteFile(filepath.Join(m.dir, "Dockerfile"), []byte(m.dockerfile()), 0o644))
}

// build builds the project in a store, which keeps layers of so many bytes compressed only.
func (m *model) build(t *testing.T, root string, packedFrom int64) (digest.Digest, error) {
	t.Helper()
	st, err := store.Open(t.Context(), root, store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	epoch := int64(0)
	out, err := output.Parse(m.output)
	require.NoError(t, err)
	contexts := map[string]string{}
	for i := range 2 {
		name := fmt.Sprint("base", i)
		contexts[name] = "oci-layout://" + filepath.Join(m.dir, name) + ":latest"
	}
	res, err := build.Run(t.Context(), st, build.Request{
		File: filepath.Join(m.dir, "Dockerfile"), ContextDir: filepath.Join(m.dir, "context"), Dockerfile: &build.Dockerfile{},
		Platforms: m.platforms, Args: m.args, Contexts: contexts, Epoch: &epoch, Outputs: []output.Spec{out},
	}, build.Options{Path: os.Getenv("PATH"), Verify: build.VerifyOff, PackedFrom: packedFrom})
	return res.Root.Digest, err
}

// busybox is the static program of Debian's package, for bases whose steps run something.
func busybox() (string, bool) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return "", false
	}
	raw, err := os.ReadFile(path)
	return string(raw), err == nil
}

// TestACachedBuildEqualsOneFromNothing edits a project at random and builds it with everything that was built before in the
// cache, and from nothing.
func TestACachedBuildEqualsOneFromNothing(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 25
	}
	for name, run := range map[string]bool{"files": false, "processes": true} {
		t.Run(name, func(t *testing.T) {
			program, ok := busybox()
			if run && !ok {
				if os.Getenv("CI") == "true" {
					t.Fatal("this machine lacks Debian's package busybox-static")
				}
				t.Skip("this machine lacks Debian's package busybox-static: make deps")
			}
			rounds := rounds
			if run {
				rounds /= 4
			}
			seed := uint64(20261127)
			m := &model{
				dir: t.TempDir(), random: rand.New(rand.NewPCG(seed, 1)), args: map[string]string{"SOURCE_DATE_EPOCH": "0"}, run: run,
				files: map[string]string{}, platforms: []platform.Platform{{OS: "linux", Arch: "amd64"}},
			}
			for _, f := range modelFiles {
				m.files[f] = f
			}
			if run { // one platform: the point is what keys hold, not how foreign programs run
				m.platforms = m.platforms[:1]
			}
			for i := range 2 {
				entries := []testimage.Entry{testimage.Dir("etc"), testimage.File("etc/base", fmt.Sprint(i)), testimage.Symlink("link", "etc")}
				if run {
					entries = append(entries, testimage.Dir("bin"), testimage.Exec("bin/busybox", program))
					for _, applet := range []string{"sh", "cat", "rm", "env", "sort", "ls"} {
						entries = append(entries, testimage.Symlink("bin/"+applet, "busybox"))
					}
				}
				l := testimage.Layer(entries...).Gzip()
				testimage.WriteLayout(t, filepath.Join(m.dir, fmt.Sprint("base", i)), map[string]testimage.Content{
					"latest": testimage.Index(testimage.Image("linux/amd64", l), testimage.Image("linux/arm64", l)),
				})
			}
			kept := t.TempDir()
			var edits []string
			built := 0
			for range rounds {
				what := m.change(t)
				if run && what == "platforms" {
					m.platforms = m.platforms[:1]
				}
				edits = append(edits, what)
				m.write(t)
				m.output = "type=image,rewrite-timestamp=true" // processes write files now
				if !run {
					m.output = modelOutputs[m.random.IntN(len(modelOutputs))]
				}
				cached, err := m.build(t, kept, m.random.Int64N(2))
				fresh, freshErr := m.build(t, t.TempDir(), 0)
				if freshErr != nil {
					require.Error(t, err, "%v\n%s", edits, m.dockerfile())
					continue
				}
				require.NoError(t, err, "%v\n%s", edits, m.dockerfile())
				require.Equal(t, fresh, cached, "after %v (seed %d)\n%s", edits, seed, m.dockerfile())
				built++
			}
			require.Greater(t, built, rounds/2, "most rounds must build")
		})
	}
}

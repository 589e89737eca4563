package differential

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// exceptions are the cases whose outcome differs from BuildKit's on purpose, with the reason.
var exceptions = map[string]string{
	"copy/from_stage_special": "BuildKit's COPY makes a character device of a block device; here it stays one",
	"errors/run_killed":       "a step is no pid 1 here: an init of ours reaps what it leaves behind, so it can kill itself",
}

const confirmDir = "testdata/confirm"

// TestConfirmed compares with BuildKit's recorded answers.
func TestConfirmed(t *testing.T) {
	if testing.Short() {
		t.Skip("minutes of builds")
	}
	cases := loadCases(t)
	recorded := readConfirmed(t)
	bs := makeBases(t)
	b := &ours{bin: program(t), bases: bs}
	compare(t, cases, bs, b, func(_ *testing.T, c *testCase) (string, string) {
		want, ok := recorded[c.String()]
		require.True(t, ok, "%s is not recorded: make differential", c)
		return want, "recorded"
	}, equal)
}

// TestDifferential asks a real BuildKit and, with MANIFESTCTL_DIFFERENTIAL=record, records its answers.
func TestDifferential(t *testing.T) {
	mode := os.Getenv("MANIFESTCTL_DIFFERENTIAL")
	if mode == "" {
		t.Skip("it builds and runs a BuildKit: make differential")
	}
	cases := loadCases(t)
	bs := makeBases(t)
	theirs := startBuildKit(t, bs)

	var mu sync.Mutex // guards answers
	answers := map[string]string{}
	ask := func(t *testing.T, c *testCase) (string, string) {
		text, out := answer(t, theirs, bs, c)
		mu.Lock()
		defer mu.Unlock()
		answers[c.String()] = text
		return text, out
	}
	if mode == "record" {
		t.Run("cases", func(t *testing.T) {
			for _, c := range cases {
				t.Run(c.String(), func(t *testing.T) {
					t.Parallel()
					text, out := ask(t, c)
					if strings.HasPrefix(text, "fails") {
						t.Logf("BuildKit printed:\n%s", out)
					}
				})
			}
		})
		all := map[string]string{}
		recorded := readConfirmed(t)
		for _, c := range cases { // those that were not asked keep their record, those that are gone lose it
			if text, ok := answers[c.String()]; ok {
				all[c.String()] = text
			} else if text, ok := recorded[c.String()]; ok {
				all[c.String()] = text
			}
		}
		writeConfirmed(t, all)
		return
	}
	compare(t, cases, bs, &ours{bin: program(t), bases: bs}, ask, equal)
	recorded := readConfirmed(t)
	for name, text := range answers {
		assert.Equal(t, recorded[name], text, "%s: the record is not what BuildKit answers now: MANIFESTCTL_DIFFERENTIAL=record", name)
	}
}

// startBuildKit starts as many daemons as there are processors.
func startBuildKit(t *testing.T, bs *bases) *buildkit {
	t.Helper()
	require.NoError(t, oracle.Available())
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	bin, err := oracle.Binaries(t.Context(), root)
	require.NoError(t, err)
	b := &buildkit{idle: make(chan *oracle.Daemon, runtime.NumCPU()), bases: bs}
	for range cap(b.idle) {
		daemon, err := oracle.Start(t.Context(), bin, t.TempDir())
		require.NoError(t, err)
		t.Cleanup(func() { _ = daemon.Close() })
		b.idle <- daemon
	}
	return b
}

// compare builds every case with b and compares with what want gives, then prints how many were equal.
func compare(t *testing.T, cases []*testCase, bs *bases, b builder, want func(*testing.T, *testCase) (text, output string), equal func(theirs, ours string) bool) {
	t.Helper()
	var mu sync.Mutex // guards same and images
	same, images := 0, 0
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.String(), func(t *testing.T) {
				t.Parallel()
				theirs, theirOut := want(t, c)
				text, out := answer(t, b, bs, c)
				if !equal(theirs, text) {
					if why, ok := exceptions[c.String()]; ok {
						t.Logf("differs: %s", why)
						return
					}
					assert.Equal(t, theirs, text)
					t.Logf("BuildKit printed:\n%s\nmanifestctl printed:\n%s", theirOut, out)
					return
				}
				assert.NotContains(t, exceptions, c.String(), "the exception is not needed any more")
				mu.Lock()
				defer mu.Unlock()
				same++
				if !strings.HasPrefix(text, "fails") {
					images++
				}
			})
		}
	})
	fmt.Printf("differential: %d of %d Dockerfiles equal (%d images, %d failures at the same line), %d exceptions\n",
		same, len(cases), images, same-images, len(exceptions))
	for name, why := range exceptions {
		fmt.Printf("differential: exception: %s: %s\n", name, why)
	}
}

// equal compares two outcomes. Where BuildKit fails and names no line, ours may name one.
func equal(theirs, ours string) bool {
	return theirs == ours || theirs == "fails\n" && strings.HasPrefix(ours, "fails at line ")
}

// program builds manifestctl.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "manifestctl")
	c := exec.Command("go", "build", "-trimpath", "-o", bin, "../../cmd/manifestctl")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := c.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

func readConfirmed(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(confirmDir + "/*.txtar")
	require.NoError(t, err)
	out := map[string]string{}
	for _, f := range files {
		a, err := txtar.ParseFile(f)
		require.NoError(t, err)
		topic := strings.TrimSuffix(filepath.Base(f), ".txtar")
		for _, c := range a.Files {
			out[topic+"/"+c.Name] = string(c.Data)
		}
	}
	return out
}

func writeConfirmed(t *testing.T, answers map[string]string) {
	t.Helper()
	topics := map[string]*txtar.Archive{}
	var names []string
	for name := range answers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, full := range names {
		topic, name, _ := strings.Cut(full, "/")
		if topics[topic] == nil {
			topics[topic] = &txtar.Archive{Comment: []byte("What BuildKit makes of the cases of this topic; make differential-record writes it.\n")}
		}
		topics[topic].Files = append(topics[topic].Files, txtar.File{Name: name, Data: []byte(answers[full])})
	}
	require.NoError(t, os.MkdirAll(confirmDir, 0o755))
	for topic, a := range topics {
		require.NoError(t, os.WriteFile(filepath.Join(confirmDir, topic+".txtar"), txtar.Format(a), 0o644))
	}
}

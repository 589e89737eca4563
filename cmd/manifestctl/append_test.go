package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
)

// TestMergeAppend_C29_processes: processes append to one tag at the same time, are killed at any moment and run again.
// Nobody's image is lost, and whatever a reader sees is whole. MANIFESTCTL_SOAK=1 is the long form.
func TestMergeAppend_C29_processes(t *testing.T) {
	for name, start := range map[string]func(*testing.T) http.Handler{"serve": servedRegistry, "docker-registry": debianHandler} {
		t.Run(name, func(t *testing.T) {
			h := start(t)
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(rand.N(10 * time.Millisecond))
				// As registries do that do not know conditions.
				r.Header.Del("If-Match")
				r.Header.Del("If-None-Match")
				h.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context()))) // also when who asked was killed
			}))
			conns := testregistry.CountConnections(srv.Config)
			srv.Start()
			defer srv.Close()
			appendByProcesses(t, strings.TrimPrefix(srv.URL, "http://"), conns)
		})
	}
}

func servedRegistry(t *testing.T) http.Handler {
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

// debianHandler is Debian's docker-registry.
func debianHandler(t *testing.T) http.Handler { return testregistry.DebianHandler(t) }

func appendByProcesses(t *testing.T, host string, conns *testregistry.Connections) {
	t.Helper()
	writers, rounds := 6, 1
	if n := soakRounds(); n > 0 {
		writers, rounds = 50, n
	}
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	dir := t.TempDir()
	images := map[string]testimage.Content{}
	for i := range writers {
		p := fmt.Sprintf("arch%02d", i)
		images[p] = testimage.Image("linux/"+p, testimage.Layer(testimage.File("a", p)).Gzip())
	}
	testimage.WriteLayout(t, filepath.Join(dir, "layout"), images)
	var killed atomic.Int64
	for round := range rounds {
		tag := fmt.Sprintf("%s/app:r%d", host, round)
		appending := func(p string) *exec.Cmd {
			return exec.Command(path, "--root", filepath.Join(dir, "store"), "merge", "--append", "-t", tag, "oci:"+filepath.Join(dir, "layout")+":"+p)
		}
		stop := watchTag(t, tag)
		var g errgroup.Group
		for p := range images {
			g.Go(func() error {
				for n := 0; ; n++ {
					cmd := appending(p)
					var stderr strings.Builder
					cmd.Stderr = &stderr
					if err := cmd.Start(); err != nil {
						return err
					}
					kill := time.AfterFunc(rand.N(250*time.Millisecond), func() { _ = cmd.Process.Kill() })
					if n >= 3 {
						kill.Stop()
					}
					err := cmd.Wait()
					kill.Stop()
					var exit *exec.ExitError
					switch {
					case err == nil:
						return nil
					case !errors.As(err, &exit) || exit.ExitCode() != -1: // -1: killed
						return fmt.Errorf("%w: %s", err, stderr.String())
					}
					killed.Add(1)
				}
			})
		}
		require.NoError(t, g.Wait())
		seen := stop()
		conns.Gone(t) // what a killed process wrote may arrive after its next run: the next append, of anybody, mends that
		out, err := appending("arch00").CombinedOutput()
		require.NoError(t, err, "%s", out)
		out, err = exec.Command(path, "inspect", "--raw", tag).Output()
		require.NoError(t, err)
		var idx ocispec.Index
		require.NoError(t, json.Unmarshal(out, &idx))
		got := map[string]string{}
		for _, m := range idx.Manifests {
			got[m.Platform.Architecture] = m.Digest.String()
		}
		for p, c := range images {
			assert.Equal(t, c.Desc.Digest.String(), got[p], p)
		}
		assert.Len(t, got, writers)
		t.Logf("round %d: %d writers, %d killed so far, %d states of the tag seen, all whole", round, writers, killed.Load(), seen)
	}
}

// watchTag reads a tag all the time, and requires of every state that all it names is there. stop tells how many there were.
func watchTag(t *testing.T, tag string) (stop func() int) {
	t.Helper()
	client := registry.New(registry.Options{})
	r, err := ref.Parse(tag)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	seen := map[string]bool{}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			desc, raw, err := client.Manifest(ctx, r)
			if err != nil || seen[desc.Digest.String()] {
				if err != nil && !errors.Is(err, registry.ErrNotFound) && ctx.Err() == nil {
					t.Errorf("reading %s: %v", tag, err)
				}
				time.Sleep(5 * time.Millisecond)
				continue
			}
			seen[desc.Digest.String()] = true
			idx, err := index.Parse(raw)
			if err != nil {
				t.Errorf("%s: %v", desc.Digest, err)
				continue
			}
			for _, m := range idx.Manifests {
				if has, err := client.HasManifest(ctx, r.WithDigest(m.Digest)); (!has || err != nil) && ctx.Err() == nil {
					t.Errorf("%s was %s, which lacks %s: %v", tag, desc.Digest, m.Digest, err)
				}
			}
		}
	}()
	end := func() {
		cancel()
		<-done
		client.Close()
	}
	t.Cleanup(end) // of a test that failed before: it must not be told of more
	return func() int {
		end()
		return len(seen)
	}
}

// soakRounds is how many rounds MANIFESTCTL_SOAK asks for: 20, or as many as it says; 0 is the short form.
func soakRounds() int {
	n, err := strconv.Atoi(os.Getenv("MANIFESTCTL_SOAK"))
	switch {
	case err != nil:
		return 0
	case n == 1:
		return 20
	}
	return n
}

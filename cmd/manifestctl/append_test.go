package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/serve"
)

// TestMergeAppend_C29_processes: processes append to one tag at the same time, are killed at any moment and run again.
// Nobody's image is lost. MANIFESTCTL_SOAK=1 is the long form.
func TestMergeAppend_C29_processes(t *testing.T) {
	writers, rounds := 6, 1
	if os.Getenv("MANIFESTCTL_SOAK") != "" {
		writers, rounds = 50, 20
	}
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(rand.N(10 * time.Millisecond))
		// As registries do that do not know conditions.
		r.Header.Del("If-Match")
		r.Header.Del("If-None-Match")
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, h.Close())
	})
	host := strings.TrimPrefix(srv.URL, "http://")
	dir := t.TempDir()
	images := map[string]testimage.Content{}
	for i := range writers {
		p := fmt.Sprintf("arch%02d", i)
		images[p] = testimage.Image("linux/"+p, testimage.Layer(testimage.File("a", p)).Gzip())
	}
	testimage.WriteLayout(t, filepath.Join(dir, "layout"), images)
	for round := range rounds {
		tag := fmt.Sprintf("%s/app:r%d", host, round)
		var g errgroup.Group
		for p := range images {
			g.Go(func() error {
				for n := 0; ; n++ {
					cmd := exec.Command(path, "--root", filepath.Join(dir, "store"), "merge", "--append", "-t", tag, "oci:"+filepath.Join(dir, "layout")+":"+p)
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
				}
			})
		}
		require.NoError(t, g.Wait())
		out, err := exec.Command(path, "inspect", "--raw", tag).Output()
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
	}
}

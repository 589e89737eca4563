package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// The test program serves a directory ("dir") or a store ("store") when this is set.
const (
	childEnv = "MANIFESTCTL_TEST_SERVE"
	diskEnv  = "MANIFESTCTL_TEST_DISK" // options of a tmpfs to be mounted there first
)

func TestMain(m *testing.M) {
	if kind, dir, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		if err := child(kind, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(kind, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if options := os.Getenv(diskEnv); options != "" {
		if err := smallDisk(dir, options); err != nil {
			return err
		}
	}
	o := serve.Options{Listen: "127.0.0.1:0", Dir: dir, Ready: func(addr string) { fmt.Println(addr) }}
	if kind == "store" {
		s, err := store.Open(ctx, dir, store.Options{})
		if err != nil {
			return err
		}
		defer s.Close()
		o.Dir, o.Store = "", s
	}
	return serve.Run(ctx, o)
}

// spawn starts a registry in a process of its own.
func spawn(t *testing.T, kind, dir string) (*exec.Cmd, api) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"="+kind+":"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "the registry did not start")
	return cmd, api{t, "http://" + strings.TrimSpace(line)}
}

// acknowledged is what the registry has promised to keep.
type acknowledged struct {
	mu    sync.Mutex
	blobs map[string][]byte          // REPO@DIGEST
	tags  map[string]map[string]bool // REPO:TAG: the last manifest that was acknowledged, and any on its way since
}

// any reports whether there is a promise.
func (k *acknowledged) any() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.blobs) > 0
}

// pushAll pushes images until the registry is gone.
func (k *acknowledged) pushAll(a api, repo string, round int) {
	try := func(method, path string, body []byte, header ...string) (int, http.Header) {
		url := path
		if strings.HasPrefix(path, "/") {
			url = a.base + path
		}
		req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(string(body)))
		if err != nil {
			return 0, nil
		}
		if len(header) > 0 {
			req.Header.Set("Content-Type", header[0])
		}
		resp, err := plainClient.Do(req)
		if err != nil {
			return 0, nil
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	for n := 0; ; n++ {
		im := newImage(a.t, "arm64", 1+rand.IntN(60_000))
		for _, b := range [][]byte{im.layer, im.config} {
			status, h := try("POST", "/v2/"+repo+"/blobs/uploads/", nil)
			if status != 202 {
				return
			}
			loc := h.Get("Location")
			half := len(b) / 2
			if status, _ = try("PATCH", loc, b[:half]); status != 202 {
				return
			}
			d := digest.FromBytes(b)
			if status, _ = try("PUT", loc+"?digest="+d.String(), b[half:]); status != 201 {
				return
			}
			k.mu.Lock()
			k.blobs[repo+"@"+d.String()] = b
			k.mu.Unlock()
		}
		key := fmt.Sprintf("%s:t%d", repo, n%3)
		k.mu.Lock()
		if k.tags[key] == nil {
			k.tags[key] = map[string]bool{"": true} // nothing may be there
		}
		k.tags[key][string(im.raw)] = true // on its way: this or what was before
		k.mu.Unlock()
		if status, _ := try("PUT", fmt.Sprintf("/v2/%s/manifests/t%d", repo, n%3), im.raw, im.desc.MediaType); status != 201 {
			return
		}
		k.mu.Lock()
		k.tags[key] = map[string]bool{string(im.raw): true}
		k.mu.Unlock()
	}
}

// check holds a registry that was started again to its promises.
func (k *acknowledged) check(t *testing.T, a api) {
	for key, b := range k.blobs {
		repo, d, _ := strings.Cut(key, "@")
		res := a.call("GET", "/v2/"+repo+"/blobs/"+d, nil)
		require.Equal(t, 200, res.status, "blob %s was acknowledged", key)
		require.Equal(t, b, res.body)
	}
	for key, may := range k.tags {
		repo, tag, _ := strings.Cut(key, ":")
		res := a.call("GET", "/v2/"+repo+"/manifests/"+tag, nil)
		now := string(res.body)
		if res.status == 404 {
			now = ""
		}
		require.True(t, may[now], "tag %s is neither what was acknowledged nor what was on its way: %d %s", key, res.status, res.body)
		k.tags[key] = map[string]bool{now: true}
	}
}

// TestCrash_F19_D06 kills the registry at random moments of pushes, and holds it
// to everything it had answered with 201.
func TestCrash_F19_D06_kill9(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for _, kind := range []string{"dir", "store"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "r")
			k := &acknowledged{blobs: map[string][]byte{}, tags: map[string]map[string]bool{}}
			for round := range rounds {
				cmd, a := spawn(t, kind, dir)
				k.check(t, a)
				var wg sync.WaitGroup
				for _, repo := range []string{"one", "two/three"} {
					wg.Go(func() { k.pushAll(a, repo, round) })
				}
				time.Sleep(time.Duration(20+rand.IntN(250)) * time.Millisecond)
				if round == rounds-1 {
					require.Eventually(t, k.any, time.Minute, 10*time.Millisecond, "nothing is pushed")
				}
				require.NoError(t, cmd.Process.Kill())
				wg.Wait()
				_ = cmd.Wait()
			}
			require.NotEmpty(t, k.blobs, "nothing was pushed between the kills")
			cmd, a := spawn(t, kind, dir)
			k.check(t, a)
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
			require.NoError(t, cmd.Wait(), "it ends when it is told to")
			if kind == "dir" {
				entries, err := os.ReadDir(filepath.Join(dir, "uploads"))
				require.NoError(t, err)
				assert.Empty(t, entries)
				checkDirectory(t, dir)
			} else {
				s, err := store.Open(t.Context(), dir, store.Options{})
				require.NoError(t, err)
				defer s.Close()
				findings, err := s.Check(t.Context(), store.CheckOptions{ReadData: true})
				require.NoError(t, err)
				for _, f := range findings {
					assert.NotContains(t, f.Text, "corrupt", "%s", f)
				}
			}
		})
	}
}

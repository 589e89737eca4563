package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// reopen opens and closes a registry's directory.
func reopen(t *testing.T, dir string) error {
	t.Helper()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: dir})
	if err == nil {
		require.NoError(t, h.Close())
	}
	return err
}

func TestDir_refused(t *testing.T) {
	t.Run("something else", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("x"), 0o600))
		before := tree(t, dir)
		require.ErrorIs(t, reopen(t, dir), serve.ErrNotRegistry)
		assert.Equal(t, before, tree(t, dir), "and left as it is")
	})
	for name, mark := range map[string]string{"D18 a newer version": `{"layout":"manifestctl registry","version":2}`, "another layout": `{"layout":"x","version":1}`, "damage": `{`} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "registry.json"), []byte(mark), 0o600))
			require.ErrorIs(t, reopen(t, dir), serve.ErrNotRegistry)
		})
	}
	t.Run("a file", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(name, nil, 0o600))
		require.Error(t, reopen(t, name))
	})
	t.Run("in use", func(t *testing.T) {
		dir := t.TempDir()
		h, err := serve.Handler(t.Context(), serve.Options{Dir: dir})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = serve.Handler(ctx, serve.Options{Dir: dir})
		require.ErrorIs(t, err, serve.ErrInUse)
		ro, err := serve.Handler(t.Context(), serve.Options{Dir: dir, ReadOnly: true})
		require.NoError(t, err, "readers may come beside")
		require.NoError(t, ro.Close())
		require.NoError(t, h.Close())
		require.NoError(t, reopen(t, dir))
	})
	t.Run("read-only, and not there", func(t *testing.T) {
		_, err := serve.Handler(t.Context(), serve.Options{Dir: filepath.Join(t.TempDir(), "x"), ReadOnly: true})
		require.ErrorIs(t, err, os.ErrNotExist)
	})
	t.Run("nothing or both", func(t *testing.T) {
		_, err := serve.Handler(t.Context(), serve.Options{})
		require.ErrorIs(t, err, serve.ErrInvalid)
		s, err := store.Open(t.Context(), t.TempDir(), store.Options{})
		require.NoError(t, err)
		defer s.Close()
		_, err = serve.Handler(t.Context(), serve.Options{Store: s, Dir: t.TempDir()})
		require.ErrorIs(t, err, serve.ErrInvalid)
	})
	t.Run("made with its parents", func(t *testing.T) {
		require.NoError(t, reopen(t, filepath.Join(t.TempDir(), "a", "b", "c")))
	})
}

func TestDir_persists(t *testing.T) {
	dir := t.TempDir()
	im := newImage(t, "arm64", 1000)
	h, err := serve.Handler(t.Context(), serve.Options{Dir: dir})
	require.NoError(t, err)
	a, closeServer := listen(t, h)
	a.putImage("team/app", "Tag", im)
	a.putImage("team/app", "tag", newImage(t, "arm64", 10))
	a.put("team/app", []byte("unused by any manifest"))
	gone := []byte("to be deleted")
	a.put("team/app", gone)
	require.Equal(t, 202, a.call("DELETE", "/v2/team/app/blobs/"+describe(gone).Digest.String(), nil).status)
	a.begin("team/app")
	closeServer()
	require.NoError(t, h.Close())
	names := strings.Join(keys(tree(t, filepath.Join(dir, "repos"))), "\n")
	assert.Contains(t, names, "_tags/!tag", "names that fold together are kept apart on every file system")
	// What crashes leave behind.
	blob := func(name string) string { return filepath.Join(dir, "blobs/sha256", name) }
	require.NoError(t, os.WriteFile(blob(strings.Repeat("ab", 32)), []byte("orphan"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "repos/team/app/_tags/.tmp-123"), []byte("half"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "uploads/upload-1"), []byte("half"), 0o600))

	h, err = serve.Handler(t.Context(), serve.Options{Dir: dir})
	require.NoError(t, err)
	a, closeServer = listen(t, h)
	defer func() { closeServer(); require.NoError(t, h.Close()) }()
	assert.JSONEq(t, `{"name":"team/app","tags":["Tag","tag"]}`, string(a.call("GET", "/v2/team/app/tags/list", nil).body))
	assert.Equal(t, im.raw, a.call("GET", "/v2/team/app/manifests/Tag", nil).body)
	assert.Equal(t, im.layer, a.call("GET", "/v2/team/app/blobs/"+describe(im.layer).Digest.String(), nil).body)
	assert.Equal(t, 200, a.call("HEAD", "/v2/team/app/blobs/"+describe([]byte("unused by any manifest")).Digest.String(), nil).status)
	for _, left := range []string{blob(strings.Repeat("ab", 32)), blob(describe(gone).Digest.Encoded()), filepath.Join(dir, "repos/team/app/_tags/.tmp-123"), filepath.Join(dir, "uploads/upload-1")} {
		assert.NoFileExists(t, left)
	}
}

func keys(m map[string]int64) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	return out
}

// listen serves a handler that the test opens and closes itself.
func listen(t *testing.T, h http.Handler) (api, func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return api{t, "http://" + l.Addr().String()}, func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-done, http.ErrServerClosed)
	}
}

// TestDir_D11 damages what is stored.
func TestDir_D11_damage(t *testing.T) {
	dir := t.TempDir()
	a := api{t, "http://" + start(t, serve.Options{Dir: dir})}
	im := newImage(t, "arm64", 1000)
	a.putImage("app", "1", im)
	name := filepath.Join(dir, "blobs/sha256", im.desc.Digest.Encoded())
	flipped := bytes.Replace(im.raw, []byte("layers"), []byte("lapers"), 1)
	require.NoError(t, os.WriteFile(name, flipped, 0o600))
	assert.Equal(t, 500, a.call("GET", "/v2/app/manifests/1", nil).status, "a damaged manifest is not served")
	a.putImage("app", "1", im)
	assert.Equal(t, 200, a.call("GET", "/v2/app/manifests/1", nil).status, "pushing it again mends it")

	layer := filepath.Join(dir, "blobs/sha256", describe(im.layer).Digest.Encoded())
	require.NoError(t, os.WriteFile(layer, im.layer[:500], 0o600))
	_, err := pull(t, a, "app", im)
	require.ErrorIs(t, err, registry.ErrCorrupt, "a client notices a damaged blob")
	a.put("app", im.layer)
	_, err = pull(t, a, "app", im)
	require.NoError(t, err)

	tag := filepath.Join(dir, "repos/app/_tags/1")
	require.NoError(t, os.WriteFile(tag, []byte("{"), 0o600))
	assert.Equal(t, 500, a.call("GET", "/v2/app/manifests/1", nil).status)
	require.NoError(t, os.Remove(layer))
	assert.Equal(t, 404, a.call("GET", "/v2/app/blobs/"+describe(im.layer).Digest.String(), nil).status)
}

func pull(t *testing.T, a api, repo string, im image) ([]byte, error) {
	t.Helper()
	rc, err := registry.New(registry.Options{}).Blob(t.Context(), mustParse(t, strings.TrimPrefix(a.base, "http://")+"/"+repo), describe(im.layer))
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func TestStore_names(t *testing.T) {
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer s.Close()
	a := api{t, "http://" + start(t, serve.Options{Store: s})}
	one, two := newImage(t, "arm64", 10), newImage(t, "amd64", 20)
	for _, im := range []image{one, two} {
		for _, b := range [][]byte{im.layer, im.config, im.raw} {
			_, err := s.Put(t.Context(), "", bytes.NewReader(b))
			require.NoError(t, err)
		}
	}
	for name, im := range map[string]image{"hello:1.0": one, "ghcr.io/o/app:v1": one, "registry.example:5000/team/app:v1": two, "debian:12": one, "hello:2.0": two, "other.example/hello:1.0": two, "a note": one} {
		require.NoError(t, s.SetRef(t.Context(), name, im.desc))
	}
	for path, want := range map[string]*image{
		"hello/manifests/1.0":                         &one,
		"hello/manifests/2.0":                         &two,
		"library/hello/manifests/1.0":                 &one,
		"docker.io/library/hello/manifests/1.0":       &one,
		"other.example/hello/manifests/1.0":           &two,
		"o/app/manifests/v1":                          &one,
		"ghcr.io/o/app/manifests/v1":                  &one,
		"team/app/manifests/v1":                       &two, // its host has a port, which no path can hold
		"app/manifests/v1":                            nil,
		"debian/manifests/12":                         &one,
		"debian/manifests/latest":                     nil,
		"hello/manifests/" + one.desc.Digest.String(): &one,
	} {
		res := a.call("GET", "/v2/"+path, nil)
		if want == nil {
			assert.Equal(t, 404, res.status, path)
			continue
		}
		assert.Equal(t, 200, res.status, path)
		assert.Equal(t, want.raw, res.body, path)
	}
	assert.JSONEq(t, `{"name":"hello","tags":["1.0","2.0"]}`, string(a.call("GET", "/v2/hello/tags/list", nil).body))
	assert.JSONEq(t, `{"repositories":["debian","ghcr.io/o/app","hello","other.example/hello","team/app"]}`, string(a.call("GET", "/v2/_catalog", nil).body))

	// A push sets the ref of the same name.
	a.putImage("new/app", "x", one)
	desc, err := s.GetRef("new/app:x")
	require.NoError(t, err)
	assert.Equal(t, one.desc, desc)
	a.putImage("library/deb", "x", one)
	_, err = s.GetRef("deb:x")
	require.NoError(t, err)
	a.putImage("ghcr.io/o/app", "v2", one)
	_, err = s.GetRef("ghcr.io/o/app:v2")
	require.NoError(t, err)
	assert.Equal(t, 202, a.call("DELETE", "/v2/new/app/manifests/x", nil).status)
	_, err = s.GetRef("new/app:x")
	require.ErrorIs(t, err, store.ErrNotFound)
	assert.Equal(t, 405, a.call("DELETE", "/v2/hello/blobs/"+describe(one.layer).Digest.String(), nil).status)
	assert.Equal(t, 404, a.call("GET", "/v2/hello/manifests/"+describe(one.layer).Digest.String(), nil).status, "a blob is no manifest")
	assert.Equal(t, 404, a.call("GET", "/v2/hello/manifests/"+describe(one.config).Digest.String(), nil).status, "nor is a config")
}

func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan string, 1), make(chan error, 1)
	var log bytes.Buffer
	run := &instance{}
	o := serve.Options{Listen: "127.0.0.1:0", Dir: t.TempDir(), MetricsListen: "127.0.0.1:0", ReadyMetrics: func(addr string) { run.metrics = addr }, Ready: func(addr string) { ready <- addr }, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	go func() { done <- serve.Run(ctx, o) }()
	addr := <-ready
	assert.True(t, serve.IsLoopback(addr))
	a := api{t, "http://" + addr}
	a.putImage("app", "1", newImage(t, "arm64", 100))
	assert.Contains(t, []int{400, 404}, a.call("GET", "/v2/a%0alevel=ERROR%1b[31m/manifests/x", nil).status)

	second := o
	second.Listen, second.MetricsListen, second.Dir = addr, "", t.TempDir()
	err := serve.Run(t.Context(), second)
	require.ErrorIs(t, err, serve.ErrInUse)
	assert.Contains(t, err.Error(), addr)

	// F24: an upload that runs when the end comes is let finish.
	pr, pw := io.Pipe()
	loc := a.begin("app")
	uploaded := make(chan int, 1)
	go func() {
		req, _ := http.NewRequestWithContext(context.Background(), "PUT", a.base+loc+"?digest="+describe([]byte("hello")).Digest.String(), pr)
		resp, err := plainClient.Do(req)
		if err != nil {
			uploaded <- 0
			return
		}
		_ = resp.Body.Close()
		uploaded <- resp.StatusCode
	}()
	_, err = pw.Write([]byte("hel"))
	require.NoError(t, err)
	run.inFlight(t)
	cancel()
	_, err = pw.Write([]byte("lo"))
	require.NoError(t, err)
	require.NoError(t, pw.Close())
	assert.Equal(t, 201, <-uploaded)
	require.NoError(t, <-done)
	require.NoError(t, reopen(t, o.Dir), "the directory is free")
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		assert.True(t, strings.HasPrefix(line, "time="), "F23: one line an event: %q", line)
		assert.NotContains(t, line, "\x1b")
	}
	assert.Contains(t, log.String(), "/v2/app/manifests/1")
}

func TestIsLoopback_F18(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:5000": true, "localhost:5000": true, "[::1]:5000": true, "127.8.8.8:1": true, "LOCALHOST:1": true,
		"0.0.0.0:5000": false, "[::]:5000": false, ":5000": false, "192.168.1.1:5000": false, "registry.example:5000": false, "localhost.evil:5000": false,
	} {
		assert.Equal(t, want, serve.IsLoopback(addr), addr)
	}
}

func ExampleRun() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "registry")
	if err != nil {
		return
	}
	defer os.RemoveAll(dir)
	err = serve.Run(ctx, serve.Options{
		Listen: "127.0.0.1:0",
		Dir:    dir,
		Ready: func(addr string) {
			fmt.Println(serve.IsLoopback(addr))
			cancel()
		},
	})
	fmt.Println(errors.Is(err, serve.ErrInUse))
	// Output:
	// true
	// false
}

package testregistry

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// debianWait is how long a registry may take to start, on a machine that does much else.
const debianWait = 30 * time.Second

// Debian starts Debian's docker-registry (distribution 2.8) with a directory of its own and returns its HOST:PORT. It ends with
// the test. Without the package the test is skipped; in CI it fails.
func Debian(tb testing.TB) string {
	tb.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		bin = "/usr/bin/docker-registry" // whatever PATH the test has
		if _, err := os.Stat(bin); err != nil {
			if os.Getenv("CI") == "true" { //nolint:forbidigo // of the test run
				tb.Fatal("this machine lacks Debian's package docker-registry")
			}
			tb.Skip("this machine lacks Debian's package docker-registry: make deps")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // it does not say which port it got: one that was free this moment
	if err != nil {
		tb.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	dir := tb.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n",
		filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(bin, "serve", config)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // says that it was killed
		if tb.Failed() {
			tb.Logf("docker-registry said:\n%s", said.String())
		}
	})
	for end := time.Now().Add(debianWait); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK {
			return addr
		}
		if time.Now().After(end) {
			tb.Fatalf("docker-registry does not answer on %s", addr)
		}
	}
}

// DebianHandler is [Debian] as a handler, for tests that look at requests or lose them.
func DebianHandler(tb testing.TB) http.Handler {
	tb.Helper()
	addr := Debian(tb)
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	tb.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // tests cut connections
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.Out.Host = r.In.Host // what it makes its addresses of
		},
	}
}

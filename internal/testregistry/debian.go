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
const debianWait = 2 * time.Minute

// Debian starts Debian's docker-registry (distribution 2.8) with a directory of its own and returns its HOST:PORT. It ends with
// the test. Without the package the test is skipped; in CI it fails.
func Debian(tb testing.TB) string {
	tb.Helper()
	return DebianWith(tb, "", "", "")
}

// DebianWith is [Debian] with more lines of configuration, over TLS when there is a certificate and its key.
//
// The program cannot say which port it got, and one that is free now may be another test's when it has started: it listens on
// a socket of the file system, and what is asked on a port of ours is passed on to that.
func DebianWith(tb testing.TB, more, cert, key string) string {
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
	dir := tb.TempDir()
	short, err := os.MkdirTemp("", "reg") // the name of a socket has room for a hundred bytes
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	tls := ""
	if cert != "" {
		tls = fmt.Sprintf(", tls: {certificate: %q, key: %q}", cert, key)
	}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {net: unix, addr: %q%s}\n%s",
		filepath.Join(dir, "data"), socket, tls, more)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(bin, "serve", config)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // says that it was killed
		close(ended)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
		if tb.Failed() {
			tb.Logf("docker-registry said:\n%s", said.String())
		}
	})
	for end := time.After(debianWait); ; {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
			return (&Proxy{}).start(tb, "unix", socket)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ended:
			tb.Fatal("docker-registry has ended")
		case <-end:
			tb.Fatalf("docker-registry does not listen: %v", err)
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

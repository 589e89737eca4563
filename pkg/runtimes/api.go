package runtimes

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// dialTimeout is how long an engine has to take a connection, and askTimeout to answer a question.
const (
	dialTimeout = 10 * time.Second
	askTimeout  = 60 * time.Second
)

// api is an HTTP API of an engine.
type api struct {
	name   string // for people
	base   string // "http://engine"
	client *http.Client
}

// errStatus is an answer that is no success.
type errStatus struct {
	status int
	text   string
}

func (e *errStatus) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.text) }

// dockerEndpoint is where docker's command finds its engine: $DOCKER_HOST, the context, else the usual sockets.
func dockerEndpoint(env Env) (*api, error) {
	host, certs, err := dockerHost(env)
	if err != nil {
		return nil, err
	}
	if host != "" {
		return dial(host, certs, env)
	}
	sockets := []string{filepath.Join(env.Root, "/var/run/docker.sock")}
	if dir := env.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		sockets = append(sockets, filepath.Join(dir, "docker.sock"))
	}
	return socket(sockets, env)
}

// socket is the first of some sockets that is there.
func socket(paths []string, env Env) (*api, error) {
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && info.Mode()&os.ModeSocket != 0 {
			return dial("unix://"+p, "", env)
		}
	}
	return nil, fmt.Errorf("%w: there is no socket %s", ErrNone, strings.Join(paths, " and no "))
}

// dockerHost is what the environment and docker's configuration say about the engine; certs is a directory, or "".
func dockerHost(env Env) (host, certs string, err error) {
	if host = env.Getenv("DOCKER_HOST"); host != "" {
		if env.Getenv("DOCKER_TLS_VERIFY") != "" || env.Getenv("DOCKER_TLS") != "" {
			if certs = env.Getenv("DOCKER_CERT_PATH"); certs == "" {
				certs = configDir(env)
			}
		}
		return host, certs, nil
	}
	dir := configDir(env)
	name := env.Getenv("DOCKER_CONTEXT")
	if name == "" && dir != "" {
		var config struct{ CurrentContext string }
		if raw, err := os.ReadFile(filepath.Join(dir, "config.json")); err == nil && json.Unmarshal(raw, &config) == nil {
			name = config.CurrentContext
		}
	}
	if name == "" || name == "default" || dir == "" {
		return "", "", nil
	}
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	raw, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", id, "meta.json"))
	if err != nil {
		return "", "", fmt.Errorf("%w: docker's context %q: %w", ErrNone, name, err)
	}
	var meta struct {
		Endpoints map[string]struct{ Host string }
	}
	if err := json.Unmarshal(raw, &meta); err != nil {
		return "", "", fmt.Errorf("%w: docker's context %q: %w", ErrNone, name, err)
	}
	host = meta.Endpoints["docker"].Host
	if host == "" {
		return "", "", fmt.Errorf("%w: docker's context %q has no engine", ErrNone, name)
	}
	certs = filepath.Join(dir, "contexts", "tls", id, "docker")
	if _, err := os.Stat(certs); err != nil {
		certs = ""
	}
	return host, certs, nil
}

func configDir(env Env) string {
	if dir := env.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	if home := env.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".docker")
	}
	return ""
}

// dial makes the client of an endpoint: unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST[:PORT].
func dial(host, certs string, env Env) (*api, error) {
	scheme, rest, ok := strings.Cut(host, "://")
	if !ok {
		return nil, fmt.Errorf("%w: %q is no address of an engine: want unix://, tcp:// or ssh://", ErrInvalid, host)
	}
	t := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second}
	a := &api{name: host, base: "http://engine", client: &http.Client{Transport: t}}
	dialer := &net.Dialer{Timeout: dialTimeout}
	switch scheme {
	case "unix":
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", rest) }
	case "tcp", "http", "https":
		address, _, _ := strings.Cut(rest, "/")
		a.base = "http://" + address
		t.DialContext = dialer.DialContext
		if certs != "" || scheme == "https" {
			config, err := clientTLS(certs)
			if err != nil {
				return nil, err
			}
			a.base, t.TLSClientConfig = "https://"+address, config
		}
	case "ssh":
		ssh, err := env.look("ssh")
		if err != nil {
			return nil, err
		}
		u, err := url.Parse(host)
		if err != nil || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") {
			return nil, fmt.Errorf("%w: %q is no address of an engine", ErrInvalid, host)
		}
		t.DialContext = func(context.Context, string, string) (net.Conn, error) { return dialSSH(ssh, u) }
	default:
		return nil, fmt.Errorf("%w: an engine at %s:// cannot be reached: want unix://, tcp:// or ssh://", ErrInvalid, scheme)
	}
	return a, nil
}

// clientTLS reads ca.pem, cert.pem and key.pem as docker's command does.
func clientTLS(dir string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if dir == "" {
		return config, nil
	}
	if ca, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err == nil {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%w: %s holds no certificate", ErrInvalid, filepath.Join(dir, "ca.pem"))
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	switch {
	case err == nil:
		config.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, dir, err)
	}
	return config, nil
}

// get asks for JSON.
func (a *api) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := a.do(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return err
	}
	return decode(resp, into)
}

func decode(resp *http.Response, into any) (err error) {
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("reading the engine's answer: %w", err)
	}
	return nil
}

// post sends an archive while it is written. An error of the writer ends the request.
func (a *api) post(ctx context.Context, path string, write func(ctx context.Context, w io.Writer) error) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(ctx, w)
		w.CloseWithError(err)
		written <- err
	}()
	resp, err := a.do(ctx, http.MethodPost, path, r, "application/x-tar")
	r.CloseWithError(io.ErrClosedPipe) // an engine that has answered reads no more
	werr := <-written
	if err == nil {
		resp.Body = &canceling{resp.Body, cancel}
		return resp, nil
	}
	cancel(nil)
	var status *errStatus
	if werr != nil && !errors.As(err, &status) && !errors.Is(werr, io.ErrClosedPipe) {
		return nil, werr
	}
	return nil, err
}

// canceling ends a request with its body.
type canceling struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (c *canceling) Close() error {
	err := c.ReadCloser.Close()
	c.cancel(nil)
	return err
}

// do sends a request, and makes an error of a status that is no success.
func (a *api) do(ctx context.Context, method, path string, body io.Reader, mediaType string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, body)
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("%w: %s does not answer: %w", ErrNone, a.name, op.Err)
		}
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it
	_ = resp.Body.Close()
	var m struct{ Message, Cause string }
	if json.Unmarshal(text, &m) == nil && m.Message != "" {
		text = []byte(m.Message)
	}
	return nil, &errStatus{resp.StatusCode, strings.TrimSpace(last(string(text), 1000))}
}

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// maxAuthFile is the largest file of credentials that is read, in bytes.
const maxAuthFile = 1 << 20

// DefaultKeychain finds credentials first where the environment says so
// (DOCKER_AUTH_CONFIG, REGISTRY_AUTH_FILE), then as docker does (its config file
// and the helpers that it names), then as podman does. An error of one place
// counts only when no other has credentials. getenv is os.Getenv if nil.
func DefaultKeychain(getenv func(string) string) authn.Keychain {
	if getenv == nil {
		getenv = os.Getenv //nolint:forbidigo // the files to read are named by the environment, as for the peers
	}
	return keychains{inline{getenv}, named{getenv}, authn.DefaultKeychain, podman{getenv}}
}

// keychains asks each in turn.
type keychains []authn.Keychain

func (ks keychains) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return ks.ResolveContext(context.Background(), r) //nolint:forbidigo // the interface has no context
}

// ResolveContext implements authn.ContextKeychain.
func (ks keychains) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	var errs error
	for _, k := range ks {
		a, err := authn.Resolve(ctx, k, r)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if a != authn.Anonymous {
			return a, nil
		}
	}
	return authn.Anonymous, errs
}

// named reads the file that REGISTRY_AUTH_FILE names.
type named struct{ getenv func(string) string }

func (n named) Resolve(r authn.Resource) (authn.Authenticator, error) {
	if f := n.getenv("REGISTRY_AUTH_FILE"); f != "" {
		return fromFile(f, r)
	}
	return authn.Anonymous, nil
}

// podman reads containers-auth.json(5) at its usual places.
type podman struct{ getenv func(string) string }

func (p podman) files() []string {
	if p.getenv("REGISTRY_AUTH_FILE") != "" {
		return nil // in their stead
	}
	var files []string
	if d := p.getenv("XDG_RUNTIME_DIR"); d != "" {
		files = append(files, filepath.Join(d, "containers", "auth.json"))
	}
	config := p.getenv("XDG_CONFIG_HOME")
	if config == "" && p.getenv("HOME") != "" {
		config = filepath.Join(p.getenv("HOME"), ".config")
	}
	if config != "" {
		files = append(files, filepath.Join(config, "containers", "auth.json"))
	}
	return files
}

func (p podman) Resolve(r authn.Resource) (authn.Authenticator, error) {
	for _, name := range p.files() {
		a, err := fromFile(name, r)
		if err != nil || a != authn.Anonymous {
			return a, err
		}
	}
	return authn.Anonymous, nil
}

func fromFile(name string, r authn.Resource) (authn.Authenticator, error) {
	f, err := os.Open(name) //nolint:gosec // named by the user's environment
	if errors.Is(err, fs.ErrNotExist) {
		return authn.Anonymous, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxAuthFile))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	a, err := fromAuths(data, r)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return a, nil
}

// inline reads DOCKER_AUTH_CONFIG: the text of a config file, as GitLab's
// runners pass it.
type inline struct{ getenv func(string) string }

func (i inline) Resolve(r authn.Resource) (authn.Authenticator, error) {
	text := i.getenv("DOCKER_AUTH_CONFIG")
	if text == "" {
		return authn.Anonymous, nil
	}
	a, err := fromAuths([]byte(text), r)
	if err != nil {
		return nil, fmt.Errorf("reading DOCKER_AUTH_CONFIG: %w", err)
	}
	return a, nil
}

// fromAuths looks r up in a document with "auths", the most specific name first.
func fromAuths(data []byte, r authn.Resource) (authn.Authenticator, error) {
	type entry struct {
		Auth          string `json:"auth"`
		Username      string `json:"username"`
		Password      string `json:"password"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	}
	var doc struct {
		Auths map[string]entry `json:"auths"`
	}
	if json.Unmarshal(data, &doc) != nil {
		// The decoder's text could quote a secret.
		return nil, errors.New("it is not a JSON document of credentials")
	}
	for _, key := range authKeys(r) {
		e, ok := doc.Auths[key]
		if !ok {
			continue
		}
		cfg := authn.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
		if e.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(e.Auth)
			user, pass, colon := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !colon {
				return nil, fmt.Errorf("the entry for %s is not base64 of user:password", key)
			}
			cfg.Username, cfg.Password = user, pass
		}
		if cfg != (authn.AuthConfig{}) {
			return authn.FromConfig(cfg), nil
		}
	}
	return authn.Anonymous, nil
}

// authKeys are the names under which credentials for r may be kept.
func authKeys(r authn.Resource) []string {
	host := r.RegistryStr()
	hosts := []string{host}
	if host == hubAuthHost {
		hosts = []string{"docker.io", host}
	}
	repo := strings.TrimPrefix(r.String(), host)
	var keys []string
	for path := repo; path != ""; path = path[:strings.LastIndexByte(path, '/')] {
		for _, h := range hosts {
			keys = append(keys, h+path)
		}
	}
	for _, h := range hosts {
		keys = append(keys, h, "https://"+h, "https://"+h+"/", "https://"+h+"/v1/", "https://"+h+"/v2/", "http://"+h)
	}
	return keys
}

// hubAuthHost is the name of docker.io in files of credentials, for historical reasons.
const hubAuthHost = "index.docker.io"

// resource is a repository as keychains want it.
type resource struct{ host, repo string }

func (r resource) RegistryStr() string { return r.host }
func (r resource) String() string      { return r.host + "/" + r.repo }

// credentials asks the keychain, which may run a helper, and does not wait for ever.
func (c *Client) credentials(ctx context.Context, rq *request) (authn.AuthConfig, error) {
	res := resource{host: rq.host.name, repo: rq.scopes[0].repo}
	if res.host == "docker.io" {
		res.host = hubAuthHost
	}
	ctx, cancel := context.WithTimeout(ctx, c.helper)
	defer cancel()
	type result struct {
		cfg authn.AuthConfig
		err error
	}
	done := make(chan result, 1)
	go func() { // a helper that hangs cannot be ended from here; it is left behind
		a, err := authn.Resolve(ctx, c.o.Keychain, res)
		if err != nil || a == nil {
			done <- result{err: err}
			return
		}
		cfg, err := authn.Authorization(ctx, a)
		if err != nil || cfg == nil {
			done <- result{err: err}
			return
		}
		done <- result{cfg: plainCredentials(*cfg)}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			r.err = fmt.Errorf("reading the credentials for %s: %w", rq.host.name, r.err)
		}
		return r.cfg, r.err
	case <-ctx.Done():
		return authn.AuthConfig{}, fmt.Errorf("reading the credentials for %s: a credential helper did not answer: %w", rq.host.name, context.Cause(ctx))
	}
}

// plainCredentials brings the forms that keychains use into one.
func plainCredentials(a authn.AuthConfig) authn.AuthConfig {
	if a.Auth != "" && a.Username == "" {
		if plain, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			a.Username, a.Password, _ = strings.Cut(string(plain), ":")
		}
	}
	if a.Username == "<token>" && a.IdentityToken == "" { // the helper protocol's mark
		a.IdentityToken, a.Password = a.Password, ""
	}
	return a
}

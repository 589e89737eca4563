package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/manifestctl/manifestctl/pkg/credentials"
)

// DefaultKeychain finds credentials where docker and podman keep them: see package credentials. getenv is os.Getenv if nil.
func DefaultKeychain(getenv func(string) string) authn.Keychain {
	return credentials.New(credentials.Options{Getenv: getenv})
}

// hubAuthHost is the name of docker.io in files of credentials, for historical reasons.
const hubAuthHost = "index.docker.io"

// resource is a repository as keychains want it.
type resource struct{ host, repo string }

func (r resource) RegistryStr() string { return r.host }
func (r resource) String() string {
	if r.repo == "" {
		return r.host
	}
	return r.host + "/" + r.repo
}

// credentials are those of the keychain for a request.
func (c *Client) credentials(ctx context.Context, rq *request) (authn.AuthConfig, error) {
	return c.ask(ctx, resource{host: rq.host.name, repo: rq.repo()})
}

// Credentials gives what the keychain has for a registry, for a program that asks it on our behalf: both are "" when
// there is nothing, and user is "" when secret is an identity token.
func (c *Client) Credentials(ctx context.Context, host string) (user, secret string, err error) {
	cfg, err := c.ask(ctx, resource{host: host})
	if err != nil {
		return "", "", err
	}
	if cfg.IdentityToken != "" {
		return "", cfg.IdentityToken, nil
	}
	return cfg.Username, cfg.Password, nil
}

// ask asks the keychain, which may run a helper, and does not wait for ever.
func (c *Client) ask(ctx context.Context, res resource) (authn.AuthConfig, error) {
	name := res.host
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
			r.err = fmt.Errorf("reading the credentials for %s: %w", name, r.err)
		}
		return r.cfg, r.err
	case <-ctx.Done():
		return authn.AuthConfig{}, fmt.Errorf("reading the credentials for %s: a credential helper did not answer: %w", name, context.Cause(ctx))
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

// Package credentials finds, keeps and removes what registries want to see: users,
// passwords and tokens in the files of docker and podman, and in the helpers that
// these files name.
//
// It knows files, variables and helpers, and makes no request to a registry.
//
// # Invariants
//
//   - No error and no result for display holds a secret, nor what a helper printed
//     where a secret could be.
//   - A file is replaced as a whole, readable by its owner only, and what this
//     package does not know in it stays as it is.
//   - A helper that does not answer is ended.
//   - Of several entries the most specific counts: HOST/ORG/REPO, HOST/ORG, HOST.
package credentials

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// The kinds of errors.
var (
	ErrInvalid  = errors.New("invalid credentials") // a file, a variable or a name that makes no sense
	ErrHelper   = errors.New("credential helper")
	ErrNotFound = errors.New("no credentials")
)

// Given are credentials of the command line. They count first.
type Given struct {
	Host string // HOST[:PORT], or HOST[:PORT]/NAMESPACE; "": of any registry
	User string
	Pass string
}

// Options says where to look. The zero value is what docker and podman do.
type Options struct {
	Given []Given
	// AuthFile is the only file that is looked at, in the stead of all others and of the environment.
	AuthFile string
	// MayMiss: AuthFile need not exist (a login makes it).
	MayMiss bool
	// Helpers names those that are asked when no file has an entry: registries.conf's credential-helpers, without the
	// prefix of their program. nil: none.
	Helpers func() []string
	// HelperTimeout is the longest wait for a helper; 0: 30 seconds.
	HelperTimeout time.Duration
	Getenv        func(string) string // nil: os.Getenv
}

// Keychain looks credentials up. It is safe for concurrent use.
type Keychain struct {
	o Options

	answers sync.Mutex
	asked   map[string]*answer // what helpers said, by helper and server
}

var _ authn.ContextKeychain = (*Keychain)(nil)

// New makes a keychain. It reads nothing yet.
func New(o Options) *Keychain {
	if o.Getenv == nil {
		o.Getenv = os.Getenv //nolint:forbidigo // the files to read are named by the environment, as for the peers
	}
	if o.HelperTimeout <= 0 {
		o.HelperTimeout = 30 * time.Second
	}
	return &Keychain{o: o, asked: map[string]*answer{}}
}

// Resolve implements authn.Keychain.
func (k *Keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), r) //nolint:forbidigo // the interface has no context
}

// ResolveContext implements authn.ContextKeychain. An error of one place counts only when no other has credentials.
func (k *Keychain) ResolveContext(ctx context.Context, r authn.Resource) (authn.Authenticator, error) {
	f, err := k.find(ctx, r.String())
	if err != nil {
		return authn.Anonymous, err
	}
	if f.cfg == (authn.AuthConfig{}) {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(f.cfg), nil
}

// Lookup says who is logged in to name (HOST[:PORT][/NAMESPACE]), and in which file, variable or helper that stands. The
// user of an identity token is "". It is an ErrNotFound when nobody is.
func (k *Keychain) Lookup(ctx context.Context, name string) (user, where string, err error) {
	f, err := k.find(ctx, name)
	switch {
	case err != nil:
		return "", "", err
	case f.cfg == (authn.AuthConfig{}):
		return "", "", fmt.Errorf("%w for %s", ErrNotFound, name)
	}
	return f.cfg.Username, f.where, nil
}

// found is what a lookup came to.
type found struct {
	cfg   authn.AuthConfig // zero: nothing
	where string
}

func (k *Keychain) find(ctx context.Context, name string) (found, error) {
	keys := lookupKeys(name)
	for _, g := range k.o.Given {
		for _, key := range keys {
			if g.Host == "" || normalise(g.Host) == key {
				return found{authn.AuthConfig{Username: g.User, Password: g.Pass}, "the command line"}, nil
			}
		}
	}
	var errs error
	for _, p := range k.places() {
		doc, err := p.read()
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		f, err := k.inDocument(ctx, doc, keys)
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", p.name, err))
			continue
		}
		if f.cfg != (authn.AuthConfig{}) {
			if f.where == "" {
				f.where = p.name
			}
			return f, nil
		}
	}
	var helpers []string
	if k.o.Helpers != nil {
		helpers = k.o.Helpers()
	}
	for _, h := range helpers {
		cfg, err := k.ask(ctx, h, serverName(keys[len(keys)-1]))
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if cfg != (authn.AuthConfig{}) {
			return found{cfg, program(h)}, nil
		}
	}
	return found{}, errs
}

// inDocument looks the most specific name up first. Of one name, its own helper counts before the store of all, and that
// before what stands in the document, as docker does it.
func (k *Keychain) inDocument(ctx context.Context, doc *document, keys []string) (found, error) {
	var errs error
	for i, key := range keys {
		helpers := []string{doc.helper(key)}
		if i == len(keys)-1 && doc.CredsStore != "" {
			helpers = append(helpers, doc.CredsStore)
		}
		for _, h := range helpers {
			if h == "" {
				continue
			}
			cfg, err := k.ask(ctx, h, serverName(key))
			if err != nil {
				errs = errors.Join(errs, err)
				continue
			}
			if cfg != (authn.AuthConfig{}) {
				return found{cfg, program(h)}, nil
			}
		}
		cfg, err := doc.entry(key)
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if cfg != (authn.AuthConfig{}) {
			return found{cfg: cfg}, nil
		}
	}
	return found{}, errs
}

// hub is docker.io's name here; hubServer is what docker calls it in its files and to helpers, for historical reasons.
const (
	hub       = "docker.io"
	hubServer = "https://index.docker.io/v1/"
)

// normalise brings the spellings of an entry's name into one: HOST[:PORT][/NAMESPACE].
func normalise(key string) string {
	name, schemed := strings.CutPrefix(key, "https://")
	if !schemed {
		name, schemed = strings.CutPrefix(key, "http://")
	}
	host, path, _ := strings.Cut(strings.TrimRight(name, "/"), "/")
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		host = hub
	}
	if schemed || path == "v1" || path == "v2" { // docker's spelling: a server, not a namespace
		path = ""
	}
	if path == "" {
		return host
	}
	return host + "/" + path
}

// lookupKeys are the names under which credentials for a repository may stand, the most specific first.
func lookupKeys(name string) []string {
	name = normalise(name)
	keys := []string{name}
	for {
		slash := strings.LastIndexByte(name, '/')
		if slash < 0 {
			return keys
		}
		name = name[:slash]
		keys = append(keys, name)
	}
}

// serverName is how docker names a registry to a helper.
func serverName(key string) string {
	if key == hub {
		return hubServer
	}
	return key
}

// decodeAuth reads base64 of user:password.
func decodeAuth(auth string) (user, pass string, ok bool) {
	plain, err := base64.StdEncoding.DecodeString(auth)
	user, pass, colon := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
	return user, pass, err == nil && colon
}

func encodeAuth(user, pass string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
}

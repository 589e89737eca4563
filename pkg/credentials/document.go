package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/google/go-containerregistry/pkg/authn"
)

// maxFile is the largest file of credentials that is read, in bytes.
const maxFile = 1 << 20

// document is docker's config.json or podman's auth.json (containers-auth.json(5)), as far as it is about credentials.
type document struct {
	CredsStore string

	auths   map[string]json.RawMessage
	helpers map[string]string
	rest    map[string]json.RawMessage // the whole, by field
}

// authEntry is one of "auths".
type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// errNotJSON hides the decoder's text, which could quote a secret.
var errNotJSON = fmt.Errorf("%w: it is not a JSON document of credentials", ErrInvalid)

func parseDocument(data []byte) (*document, error) {
	d := &document{}
	if len(data) == 0 {
		return d, nil
	}
	if json.Unmarshal(data, &d.rest) != nil {
		return nil, errNotJSON
	}
	for name, into := range map[string]any{"auths": &d.auths, "credHelpers": &d.helpers, "credsStore": &d.CredsStore} {
		if raw, ok := d.rest[name]; ok && json.Unmarshal(raw, into) != nil {
			return nil, errNotJSON
		}
	}
	return d, nil
}

// names are the keys of "auths" that mean name, in a fixed order.
func (d *document) names(name string) []string {
	var out []string
	for key := range d.auths {
		if normalise(key) == name {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return out
}

// entry is what stands in the document itself for name; zero: nothing.
func (d *document) entry(name string) (authn.AuthConfig, error) {
	for _, key := range d.names(name) {
		var e authEntry
		if json.Unmarshal(d.auths[key], &e) != nil {
			return authn.AuthConfig{}, fmt.Errorf("%w: the entry for %s is none", ErrInvalid, name)
		}
		cfg := authn.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
		if e.Auth != "" {
			user, pass, ok := decodeAuth(e.Auth)
			if !ok {
				return authn.AuthConfig{}, fmt.Errorf("%w: the entry for %s is not base64 of user:password", ErrInvalid, name)
			}
			cfg.Username, cfg.Password = user, pass
		}
		if cfg != (authn.AuthConfig{}) {
			return cfg, nil
		}
	}
	return authn.AuthConfig{}, nil
}

// helper is the helper that "credHelpers" names for name; "": none.
func (d *document) helper(name string) string {
	for _, key := range slices.Sorted(maps.Keys(d.helpers)) {
		if normalise(key) == name {
			return d.helpers[key]
		}
	}
	return ""
}

// place is somewhere a document may stand.
type place struct {
	name   string // for people
	path   string // "": text
	text   string
	must   bool // its absence is an error
	legacy bool // ~/.dockercfg: only what "auths" holds
	shared bool // in a directory of all users: where it keeps us out, there is nothing for us
}

func (p place) read() (*document, error) {
	if p.path == "" {
		d, err := parseDocument([]byte(p.text))
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", p.name, err)
		}
		return d, nil
	}
	data, err := readFile(p.path)
	if errors.Is(err, fs.ErrNotExist) && !p.must || errors.Is(err, fs.ErrPermission) && p.shared {
		return &document{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading credentials: %w", err)
	}
	if p.legacy && len(data) > 0 {
		d := &document{}
		if json.Unmarshal(data, &d.auths) != nil {
			return nil, fmt.Errorf("reading %s: %w", p.path, errNotJSON)
		}
		return d, nil
	}
	d, err := parseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", p.path, err)
	}
	return d, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // named by the user or the user's environment
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrInvalid, path, maxFile)
	}
	return data, err
}

// places lists where to look, in order: what the environment says, docker's file, podman's.
func (k *Keychain) places() []place {
	if k.o.AuthFile != "" {
		return []place{{name: k.o.AuthFile, path: k.o.AuthFile, must: !k.o.MayMiss}}
	}
	env := k.o.Getenv
	var out []place
	file := func(dir string, elem ...string) {
		if dir != "" {
			path := filepath.Join(append([]string{dir}, elem...)...)
			out = append(out, place{name: path, path: path})
		}
	}
	if text := env("DOCKER_AUTH_CONFIG"); text != "" {
		out = append(out, place{name: "DOCKER_AUTH_CONFIG", text: text})
	}
	named := env("REGISTRY_AUTH_FILE")
	file(named)
	home := homeDir(env)
	if dir := env("DOCKER_CONFIG"); dir != "" {
		file(dir, "config.json")
	} else {
		file(home, ".docker", "config.json")
	}
	if named == "" { // which stands in their stead
		if dir := env("XDG_RUNTIME_DIR"); dir != "" {
			file(dir, "containers", "auth.json")
		} else if runtime.GOOS == "linux" {
			// Podman, run by root first, makes this directory for root alone.
			path := filepath.Join("/run/containers", strconv.Itoa(os.Getuid()), "auth.json")
			out = append(out, place{name: path, path: path, shared: true})
		}
		if dir := env("XDG_CONFIG_HOME"); dir != "" {
			file(dir, "containers", "auth.json")
		} else {
			file(home, ".config", "containers", "auth.json")
		}
	}
	if home != "" {
		path := filepath.Join(home, ".dockercfg")
		out = append(out, place{name: path, path: path, legacy: true})
	}
	return out
}

// homeDir is the home directory by the environment; "" when it does not say.
func homeDir(env func(string) string) string {
	if home := env("HOME"); home != "" || runtime.GOOS != "windows" {
		return home
	}
	return env("USERPROFILE")
}

// Package mirrors reads registries.conf, the file in which podman, buildah and
// skopeo are told where references really lead: to mirrors, to other names, or
// nowhere (containers-registries.conf(5), version 2, with its drop-in files).
//
// It asks no registry: package registry goes to the places that it names.
//
// # Invariants
//
//   - Without a file, every reference leads to itself and short names are docker's.
//   - One [[registry]] counts for a reference: the one with the longest prefix.
//   - What is rewritten is a valid reference again, or an error.
package mirrors

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// The kinds of errors.
var (
	ErrInvalid   = errors.New("invalid registries.conf")
	ErrBlocked   = fmt.Errorf("%w: blocked by registries.conf", registry.ErrDenied)
	ErrAmbiguous = errors.New("ambiguous short name")
)

// Config is what the files say together. The zero value is that of no file.
type Config struct {
	search     []string // unqualified-search-registries
	mode       string   // short-name-mode
	helpers    []string // credential-helpers
	aliases    map[string]string
	registries []entry
}

var _ registry.Places = (*Config)(nil)

// entry is one [[registry]].
type entry struct {
	prefix   string
	location string // "": as it is asked for, of a wildcard
	insecure bool
	blocked  bool
	mirrors  []mirror
}

// mirror is one [[registry.mirror]].
type mirror struct {
	location string
	insecure bool
	use      string // pullAll, pullByDigest or pullByTag
}

// What a mirror is for.
const (
	pullAll      = "all"
	pullByDigest = "digest-only"
	pullByTag    = "tag-only"
)

// Helpers are the credential helpers of all registries, without the prefix of their programs.
func (c *Config) Helpers() []string { return slices.Clone(c.helpers) }

// find is the entry for a reference, and how much of it its prefix is; nil: none.
func (c *Config) find(name string) (best *entry, matched int) {
	for i := range c.registries {
		e := &c.registries[i]
		n := e.match(name)
		if n > 0 && (best == nil || e.weight() > best.weight()) {
			best, matched = e, n
		}
	}
	return best, matched
}

// weight orders prefixes that match the same reference: a wildcard is less than any name.
func (e *entry) weight() int {
	if strings.HasPrefix(e.prefix, "*.") {
		return len(e.prefix) - 1000
	}
	return len(e.prefix)
}

// match is how many characters of a reference the prefix stands for; 0: it is not for it.
func (e *entry) match(name string) int {
	if suffix, ok := strings.CutPrefix(e.prefix, "*"); ok { // "*.example.com": every host below it
		host, _, _ := strings.Cut(name, "/")
		bare := host
		if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
			bare = host[:colon]
		}
		if strings.HasSuffix(bare, suffix) && len(bare) > len(suffix) {
			return len(bare)
		}
		if strings.HasSuffix(host, suffix) && len(host) > len(suffix) { // with its port
			return len(host)
		}
		return 0
	}
	rest, ok := strings.CutPrefix(name, e.prefix)
	switch {
	case !ok:
		return 0
	case rest == "" || rest[0] == '/':
	case (rest[0] == ':' || rest[0] == '@') && strings.Contains(e.prefix, "/"): // a tag; after a host it would be a port
	default:
		return 0
	}
	return len(e.prefix)
}

// Places implements registry.Places.
func (c *Config) Places(r ref.Ref, pull bool) ([]registry.Place, error) {
	name := r.String()
	e, n := c.find(name)
	if e == nil {
		return []registry.Place{{Ref: r}}, nil
	}
	if e.blocked {
		return nil, fmt.Errorf("%w: %s (prefix %q)", ErrBlocked, r, e.prefix)
	}
	var out []registry.Place
	if pull {
		for _, m := range e.mirrors {
			if m.use == pullByDigest && r.Digest == "" || m.use == pullByTag && r.Digest != "" {
				continue
			}
			to, err := rewrite(r, m.location+name[n:])
			if err != nil {
				return nil, fmt.Errorf("%w: mirror %q of prefix %q: %w", ErrInvalid, m.location, e.prefix, err)
			}
			out = append(out, registry.Place{Ref: to, Insecure: m.insecure, Mirror: true})
		}
	}
	home := r
	if e.location != "" && e.location != e.prefix {
		var err error
		if home, err = rewrite(r, e.location+name[n:]); err != nil {
			return nil, fmt.Errorf("%w: location %q of prefix %q: %w", ErrInvalid, e.location, e.prefix, err)
		}
	}
	return append(out, registry.Place{Ref: home, Insecure: e.insecure}), nil
}

// rewrite reads what a reference became; what it names by tag and digest stays.
func rewrite(r ref.Ref, text string) (ref.Ref, error) {
	if !strings.Contains(text, "/") {
		return ref.Ref{}, fmt.Errorf("%w %q: it names no repository", ref.ErrInvalid, text)
	}
	to, err := ref.Parse("docker://" + text)
	if err != nil {
		return ref.Ref{}, err
	}
	if host, _, _ := strings.Cut(text, "/"); !strings.EqualFold(host, to.Host) && host != "index.docker.io" {
		return ref.Ref{}, fmt.Errorf("%w %q: it names no host", ref.ErrInvalid, text)
	}
	to.Tag, to.Digest = r.Tag, r.Digest
	return to, nil
}

// Expand gives a short name ("debian", "team/app:1") the registry that the file says: that of its alias, else the only one of
// unqualified-search-registries. Of several, docker.io counts where short-name-mode does not ask for certainty; else the name
// is ErrAmbiguous. Every other text comes back as it is. Without a word about short names in the file, docker's rule applies.
func (c *Config) Expand(text string) (string, error) {
	name, tail := cutTail(text)
	if name == "" || isQualified(name) || strings.Contains(name, "://") {
		return text, nil
	}
	if r, err := ref.Parse(text); err != nil || r.Kind != ref.Registry {
		return text, nil // another place, or whoever parses it says why not
	}
	if full, ok := c.aliases[name]; ok {
		return full + tail, nil
	}
	switch {
	case len(c.search) == 0:
		return text, nil
	case len(c.search) == 1:
		return c.search[0] + "/" + official(c.search[0], name) + tail, nil
	case c.mode == "disabled" || c.mode == "permissive":
		host := c.search[0]
		if slices.Contains(c.search, "docker.io") {
			host = "docker.io"
		}
		return host + "/" + official(host, name) + tail, nil
	}
	var all []string
	for _, host := range c.search {
		all = append(all, host+"/"+official(host, name)+tail)
	}
	return "", fmt.Errorf("%w %q: it may be %s; write one of them, or add an alias to registries.conf", ErrAmbiguous, text, strings.Join(all, ", "))
}

// official adds docker.io's library.
func official(host, name string) string {
	if host == "docker.io" && !strings.Contains(name, "/") {
		return "library/" + name
	}
	return name
}

// cutTail cuts tag and digest off.
func cutTail(text string) (name, tail string) {
	name = text
	if at := strings.IndexByte(name, '@'); at >= 0 {
		name = name[:at]
	}
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name, text[len(name):]
}

// isQualified is docker's rule for a first part that is a host.
func isQualified(name string) bool {
	first, _, more := strings.Cut(name, "/")
	return more && (first == "localhost" || strings.ContainsAny(first, ".:["))
}

// sortRegistries brings entries into a fixed order.
func sortRegistries(es []entry) {
	slices.SortFunc(es, func(a, b entry) int { return cmp.Compare(a.prefix, b.prefix) })
}

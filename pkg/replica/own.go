package replica

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// ownFile is our own format; docs/sync.md describes it.
type ownFile struct {
	Version    int                    `yaml:"version"`
	To         string                 `yaml:"to"`
	Platforms  []string               `yaml:"platforms"`
	Sparse     bool                   `yaml:"sparse"`
	Referrers  *bool                  `yaml:"referrers"`
	Limit      ownLimit               `yaml:"limit"`
	Registries map[string]ownRegistry `yaml:"registries"`
	Images     []ownImage             `yaml:"images"`
}

type ownLimit struct {
	Requests float64 `yaml:"requests"` // a second
	Rate     string  `yaml:"rate"`     // bytes a second: "20MB"
}

type ownRegistry struct {
	Username     string `yaml:"username"`
	Password     string `yaml:"password"`
	PasswordEnv  string `yaml:"password-env"`
	PasswordFile string `yaml:"password-file"`
	TLSVerify    *bool  `yaml:"tls-verify"`
	PlainHTTP    bool   `yaml:"plain-http"`
	CertDir      string `yaml:"cert-dir"`
}

type ownImage struct {
	From      string   `yaml:"from"`
	To        string   `yaml:"to"`
	Tags      []string `yaml:"tags"`
	Match     string   `yaml:"match"`
	Semver    string   `yaml:"semver"`
	Exclude   string   `yaml:"exclude"`
	Newest    int      `yaml:"newest"`
	Platforms []string `yaml:"platforms"`
	Sparse    *bool    `yaml:"sparse"`
	Referrers *bool    `yaml:"referrers"`
}

func parseOwn(raw []byte, o ParseOptions) (Plan, error) {
	var f ownFile
	if err := decode(raw, &f); err != nil {
		return Plan{}, err
	}
	if f.Version != 1 {
		return Plan{}, fmt.Errorf("version %d is not known, only 1", f.Version)
	}
	p := Plan{Registries: map[string]Registry{}, Requests: f.Limit.Requests}
	if p.Requests < 0 || p.Requests > 1e6 {
		return p, fmt.Errorf("limit: requests: %g a second: want 0.1 to 1000000", p.Requests)
	}
	var err error
	if f.Limit.Rate != "" {
		if p.Bytes, err = size(f.Limit.Rate); err != nil {
			return p, fmt.Errorf("limit: rate: %w", err)
		}
	}
	for _, host := range slices.Sorted(maps.Keys(f.Registries)) {
		if p.Registries[hostName(host)], err = f.Registries[host].registry(o); err != nil {
			return p, fmt.Errorf("registries: %s: %w", host, err)
		}
	}
	for i, img := range f.Images {
		j, err := f.job(img, o)
		if err != nil {
			return p, fmt.Errorf("images[%d]: %w", i, err)
		}
		p.Jobs = append(p.Jobs, j)
	}
	return p, nil
}

func (r ownRegistry) registry(o ParseOptions) (Registry, error) {
	out := Registry{
		Username: r.Username, Password: r.Password, PlainHTTP: r.PlainHTTP, CertDir: r.CertDir,
		Insecure: r.TLSVerify != nil && !*r.TLSVerify,
	}
	given := 0
	for _, s := range []struct {
		kind SecretKind
		name string
	}{{"", r.Password}, {SecretEnv, r.PasswordEnv}, {SecretFile, r.PasswordFile}} {
		if s.name == "" {
			continue
		}
		given++
		if s.kind == "" {
			continue
		}
		if o.Secret == nil {
			return out, fmt.Errorf("%s is not available here", s.kind)
		}
		var err error
		if out.Password, err = o.Secret(s.kind, s.name); err != nil {
			return out, fmt.Errorf("%s: %w", s.kind, err)
		}
	}
	if given > 1 {
		return out, errors.New("password, password-env and password-file are one thing: give one of them")
	}
	if (given > 0) != (r.Username != "") {
		return out, errors.New("a username and a password belong together")
	}
	return out, nil
}

func (f *ownFile) job(img ownImage, o ParseOptions) (j Job, err error) {
	if img.From == "" {
		return j, errors.New("from is missing")
	}
	if j.From, err = repository(img.From); err != nil {
		return j, fmt.Errorf("from: %w", err)
	}
	j.Suffix = o.Suffix
	j.Select.Names, j.Select.Newest = img.Tags, img.Newest
	if j.Select.Match, err = pattern("match", img.Match); err != nil {
		return j, err
	}
	if j.Select.Exclude, err = pattern("exclude", img.Exclude); err != nil {
		return j, err
	}
	if j.Select.Versions, err = constraints(img.Semver); err != nil {
		return j, err
	}
	if img.Newest < 0 {
		return j, fmt.Errorf("newest: %d: want 1 or more", img.Newest)
	}
	words := f.Platforms
	if len(img.Platforms) > 0 {
		words = img.Platforms
	}
	if j.Platforms, err = platforms(words); err != nil {
		return j, fmt.Errorf("platforms: %w", err)
	}
	j.Sparse = f.Sparse
	if img.Sparse != nil {
		j.Sparse = *img.Sparse
	}
	with := f.Referrers
	if img.Referrers != nil {
		with = img.Referrers
	}
	j.Bare = with != nil && !*with
	j.To, err = f.target(img, j.From, o)
	return j, err
}

// target is where an image goes: a name below the place of all, or a whole one.
func (f *ownFile) target(img ownImage, from ref.Ref, o ParseOptions) (ref.Ref, error) {
	if img.To != "" {
		if r, err := ref.Parse(img.To); err == nil && isWhole(img.To, r) {
			if o.To != nil {
				return r, fmt.Errorf("to: %s is a whole name, and the command line says where all goes", img.To)
			}
			if r.Kind == ref.Registry {
				return repository(img.To)
			}
			return transfer.Place{Kind: r.Kind, Path: r.Path}.Repository(from)
		}
	}
	to, err := place(f.To, o)
	if err != nil {
		return ref.Ref{}, err
	}
	if img.To == "" {
		return to.Repository(from)
	}
	to.Scoped = false // the file says its name
	return below(to, from, trimmed(img.To))
}

// isWhole reports whether a name says its registry.
func isWhole(text string, r ref.Ref) bool {
	return r.Kind != ref.Registry || r.Repository() == text || "docker://"+r.Repository() == text
}

package replica

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// skopeoRegistry is one registry of skopeo's sync file (skopeo-sync(1), "YAML file content").
type skopeoRegistry struct {
	Images      map[string][]string `yaml:"images"`
	ByTagRegex  map[string]string   `yaml:"images-by-tag-regex"`
	BySemver    map[string]string   `yaml:"images-by-semver"`
	Credentials struct {
		Username string `yaml:"username"`
		Password string `yaml:"password"`
	} `yaml:"credentials"`
	TLSVerify *bool  `yaml:"tls-verify"`
	CertDir   string `yaml:"cert-dir"`
}

func parseSkopeo(raw []byte, o ParseOptions) (Plan, error) {
	var f map[string]skopeoRegistry
	if err := decode(raw, &f); err != nil {
		return Plan{}, err
	}
	to, err := place("", o)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Registries: map[string]Registry{}}
	for _, host := range slices.Sorted(maps.Keys(f)) {
		r := f[host]
		if r.TLSVerify != nil || r.CertDir != "" || r.Credentials.Username != "" {
			verify := r.TLSVerify == nil || *r.TLSVerify
			p.Registries[hostName(host)] = Registry{
				Username: r.Credentials.Username, Password: r.Credentials.Password, Insecure: !verify, CertDir: r.CertDir,
			}
		}
		add := func(repo string, s Select) error {
			if len(p.Jobs) > maxJobs {
				return fmt.Errorf("more than %d repositories", maxJobs)
			}
			from, err := repository("docker://" + host + "/" + repo)
			if err != nil {
				return err
			}
			j := Job{From: from, Select: s, Suffix: o.Suffix}
			if j.To, err = below(to, from, path.Base(from.Repo)); err != nil {
				return err
			}
			p.Jobs = append(p.Jobs, j)
			return nil
		}
		for _, repo := range slices.Sorted(maps.Keys(r.Images)) {
			if err := add(repo, Select{Names: r.Images[repo]}); err != nil {
				return p, err
			}
		}
		for _, repo := range slices.Sorted(maps.Keys(r.ByTagRegex)) {
			re, err := pattern("images-by-tag-regex "+repo, r.ByTagRegex[repo])
			if err != nil {
				return p, err
			}
			if err := add(repo, Select{Match: re}); err != nil {
				return p, err
			}
		}
		for _, repo := range slices.Sorted(maps.Keys(r.BySemver)) {
			c, err := constraints(r.BySemver[repo])
			if err != nil {
				return p, fmt.Errorf("images-by-semver %s: %w", repo, err)
			}
			if err := add(repo, Select{Versions: c}); err != nil {
				return p, err
			}
		}
	}
	return p, nil
}

// hostName is a registry's name as references have it.
func hostName(host string) string {
	if r, err := ref.Parse("docker://" + host + "/x"); err == nil {
		return r.Host
	}
	return host
}

// below is the repository at a place that from goes to: short, or with its host and whole name when the place is scoped.
func below(to transfer.Place, from ref.Ref, short string) (ref.Ref, error) {
	if !to.Scoped {
		from.Repo = short
	}
	return to.Repository(from)
}

// trimmed is a name without slashes around it.
func trimmed(s string) string { return strings.Trim(s, "/") }

package transfer

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Place is where names go: the store (the zero value), a registry under a prefix, or a layout.
type Place struct {
	Kind   ref.Kind // "" is ref.Store
	Host   string
	Prefix string // of repositories, "" or "a/b"
	Path   string // of a layout
	Scoped bool   // the host of a name stays, as a part of the repository's
}

// ParsePlace reads HOST[:PORT][/PREFIX], store: or oci:DIR.
func ParsePlace(s string) (Place, error) {
	switch {
	case s == "store:", s == "store", s == "":
		return Place{Kind: ref.Store}, nil
	case strings.HasPrefix(s, "store:"):
		return Place{}, fmt.Errorf("%w: %q names one image: the place of many is store: alone", ErrInvalid, s)
	}
	if r, err := ref.Parse(s); err == nil && r.Kind != ref.Registry {
		if r.Kind != ref.OCILayout || r.Tag != "" || r.Digest != "" {
			return Place{}, fmt.Errorf("%w: %q is no place for many images: give store:, oci:DIR or HOST[/PREFIX]", ErrInvalid, s)
		}
		return Place{Kind: ref.OCILayout, Path: r.Path}, nil
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "docker://"), "/")
	host, prefix, _ := strings.Cut(s, "/")
	// Some repository there tells what is right for both.
	r, err := ref.Parse("docker://" + host + "/" + strings.TrimPrefix(prefix+"/x", "/"))
	if err != nil {
		return Place{}, err
	}
	if !strings.EqualFold(r.Host, host) && host != "index.docker.io" {
		return Place{}, fmt.Errorf("%w: %q names no registry: a host has a dot or a port, or is localhost", ErrInvalid, s)
	}
	return Place{Kind: ref.Registry, Host: r.Host, Prefix: prefix}, nil
}

// String is what ParsePlace reads.
func (p Place) String() string {
	switch p.Kind {
	case ref.Registry:
		return strings.TrimSuffix(p.Host+"/"+p.Prefix, "/")
	case ref.OCILayout:
		return "oci:" + p.Path
	}
	return "store:"
}

// Repository is the repository, name or layout that from's images go to at the place: no tag. A layout is one for each
// repository, below the place's directory.
func (p Place) Repository(from ref.Ref) (ref.Ref, error) {
	repo := from.Repo
	if p.Scoped {
		repo = strings.ReplaceAll(from.Host, ":", "_") + "/" + repo
	}
	switch p.Kind {
	case ref.Registry:
		if p.Prefix != "" {
			repo = p.Prefix + "/" + repo
		}
		if err := ref.CheckRepo(repo); err != nil {
			return ref.Ref{}, fmt.Errorf("%s at %s: %w", from, p, err)
		}
		return ref.Ref{Kind: ref.Registry, Host: p.Host, Repo: repo}, nil
	case ref.OCILayout:
		if err := ref.CheckRepo(repo); err != nil { // it becomes a path
			return ref.Ref{}, fmt.Errorf("%s at %s: %w", from, p, err)
		}
		return ref.Ref{Kind: ref.OCILayout, Path: filepath.Join(p.Path, filepath.FromSlash(repo))}, nil
	case ref.Store, "":
		r, err := ref.Parse("store:" + from.WithTag("x").Familiar())
		if err != nil {
			return r, fmt.Errorf("%s in the store: %w", from, err)
		}
		return r.WithTag(""), nil
	}
	return ref.Ref{}, fmt.Errorf("%w: many images cannot go to %s", ErrInvalid, p.Kind)
}

// at is what an image of that whole name is called at the place. In a layout all are together, under their whole names.
func (p Place) at(name ref.Ref) (ref.Ref, error) {
	if p.Kind == ref.OCILayout {
		return ref.Ref{Kind: ref.OCILayout, Path: p.Path}, nil
	}
	r, err := p.Repository(name)
	r.Tag, r.Digest = name.Tag, name.Digest
	return r, err
}

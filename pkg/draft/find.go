package draft

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// Target says which entry of an index is meant: a digest, a platform, or the source it was taken from.
type Target struct {
	text     string
	digest   digest.Digest
	platform platform.Platform
	ref      ref.Ref
}

// ParseTarget reads a target. "linux/arm64" is a platform, "sha256:..." a digest; everything else is a reference.
func ParseTarget(s string) (Target, error) {
	t := Target{text: s}
	if d := digest.Digest(s); strings.Contains(s, ":") && !strings.ContainsAny(s, "/@") && index.CheckDigest(d) == nil {
		t.digest = d
		return t, nil
	}
	p, err := platform.Parse(s)
	if err == nil && strings.Contains(s, "/") {
		t.platform = p
		return t, nil
	}
	if system, _, ok := strings.Cut(s, "/"); ok && (system == "linux" || system == "windows") && !strings.ContainsAny(s, ":@") {
		return t, err // mistyped, and nobody's repository: docker.io/linux/x names one
	}
	r, err := ref.Parse(s)
	if err != nil {
		return t, fmt.Errorf("%w (and it is neither a digest nor a platform)", err)
	}
	t.ref, t.digest = r, r.Digest
	return t, nil
}

// Find returns the positions of the entries that t means: at least one, and for a platform or a source exactly one.
func (d *Drafts) Find(ctx context.Context, x *index.Editor, t Target) ([]int, error) {
	entries := x.Entries()
	match := func(fits func(index.Entry) bool) (at []int) {
		for i, e := range entries {
			if fits(e) {
				at = append(at, i)
			}
		}
		return at
	}
	var at []int
	switch {
	case t.digest != "":
		at = match(func(e index.Entry) bool { return e.Digest == t.digest })
	case !t.platform.IsZero():
		at = match(func(e index.Entry) bool {
			p, ok := platformOf(e)
			return ok && p == t.platform
		})
		if len(at) > 1 {
			return nil, fmt.Errorf("%w: %s stands for %d entries: name one by its digest", ErrInvalid, t.text, len(at))
		}
	default:
		at = match(func(e index.Entry) bool { return d.cameFrom(e.Digest, t.ref) })
		if len(at) == 0 {
			root, err := d.root(ctx, t.ref)
			if err != nil {
				return nil, err
			}
			at = match(func(e index.Entry) bool { return e.Digest == root.Digest })
		}
		if len(at) > 1 {
			return nil, fmt.Errorf("%w: %s gave %d entries: name one by its platform or digest", ErrInvalid, t.text, len(at))
		}
	}
	if len(at) == 0 {
		return nil, fmt.Errorf("%w: the index has no entry %s; it has %s", source.ErrNotFound, t.text, list(entries))
	}
	return at, nil
}

func platformOf(e index.Entry) (platform.Platform, bool) {
	if !e.IsImage() || e.Platform == nil {
		return platform.Platform{}, false
	}
	p, err := platform.FromOCI(*e.Platform)
	return p, err == nil
}

// cameFrom reports whether a manifest was taken from r.
func (d *Drafts) cameFrom(m digest.Digest, r ref.Ref) bool {
	places, err := d.Store.Origins(m)
	if err != nil {
		return false
	}
	for _, text := range places {
		p, err := ref.Parse(text)
		if p.Digest = ""; err == nil && p == r {
			return true
		}
	}
	return false
}

// root opens a reference for its digest.
func (d *Drafts) root(ctx context.Context, r ref.Ref) (_ ocispec.Descriptor, err error) {
	img, err := d.Opener.Open(ctx, r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	return img.Root(), nil
}

// list names entries for an error.
func list(entries []index.Entry) string {
	const most = 20
	var names []string
	for i, e := range entries {
		if i == most {
			return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", len(entries)-most)
		}
		if p, ok := platformOf(e); ok {
			names = append(names, p.String())
		} else {
			names = append(names, e.Digest.String())
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Package lint looks for what makes an index mean the wrong thing to somebody: the rules of package index, and those for
// which manifests and configs have to be read.
//
// # Invariants
//
//   - Equal contents give equal findings, in the order of the rules.
//   - What cannot be fetched for reasons of the way (network, credentials) is an error and no finding.
package lint

import (
	"context"
	"errors"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// The rules that need more than the index.
var (
	RuleConfig   = index.Rule{ID: "config-disagrees", Level: index.LevelError, Text: "The index and the config of an image say different platforms."}
	RuleDangling = index.Rule{ID: "dangling-child", Level: index.LevelError, Text: "The index names a manifest that is not there: who is to get it gets an error."}
	RuleBroken   = index.Rule{ID: "broken-image", Level: index.LevelError, Text: "A manifest or config cannot be read, or contradicts itself."}
	RuleNested   = index.Rule{ID: "nested-index", Level: index.LevelWarning, Text: "An index stands inside of the index: many programs do not look into it."}
)

// Rules lists all rules.
func Rules() []index.Rule {
	return append(index.DocumentRules(), RuleConfig, RuleDangling, RuleBroken, RuleNested)
}

// parallel is how many manifests are read at once.
const parallel = 8

// Report is what was found.
type Report struct {
	Name     string
	Digest   digest.Digest
	Findings []index.Finding
}

// Run checks an index, or a single image.
func Run(ctx context.Context, img source.Image) (*Report, error) {
	root := img.Root()
	r := &Report{Name: img.Ref().String(), Digest: root.Digest, Findings: []index.Finding{}}
	if !index.IsIndex(root.MediaType) {
		f, err := child(ctx, img, root)
		if err != nil {
			return nil, err
		}
		r.add(f)
		return r, nil
	}
	c := checker{img: img, report: r, seen: map[digest.Digest]bool{}}
	if err := c.index(ctx, root, 0); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.Findings, func(a, b index.Finding) int { return order(a.Rule) - order(b.Rule) })
	return r, nil
}

func order(r index.Rule) int {
	return slices.IndexFunc(Rules(), func(o index.Rule) bool { return o.ID == r.ID })
}

func (r *Report) add(f *index.Finding) {
	if f != nil {
		r.Findings = append(r.Findings, *f)
	}
}

type checker struct {
	img    source.Image
	report *Report
	seen   map[digest.Digest]bool
}

// index checks one index and those in it.
func (c *checker) index(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if c.seen[desc.Digest] {
		return nil
	}
	c.seen[desc.Digest] = true
	idx, err := source.ReadIndex(ctx, c.img, desc)
	if err != nil {
		f, err := finding(desc, err)
		if depth == 0 && err == nil { // what was asked for cannot be read: that is no finding
			_, err = source.ReadIndex(ctx, c.img, desc)
		}
		c.report.add(f)
		return err
	}
	c.report.Findings = append(c.report.Findings, index.Lint(idx.Manifests)...)
	found := make([]*index.Finding, len(idx.Manifests))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i, m := range idx.Manifests {
		if index.IsIndex(m.MediaType) || c.seen[m.Digest] {
			continue
		}
		g.Go(func() (err error) {
			found[i], err = child(gctx, c.img, m)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, m := range idx.Manifests {
		c.report.add(found[i])
		if !index.IsIndex(m.MediaType) {
			continue
		}
		c.report.add(&index.Finding{Rule: RuleNested, Digest: m.Digest, Text: m.Digest.String() + " is an index: `flatten` puts its entries in its place"})
		if depth < index.MaxNesting {
			if err := c.index(ctx, m, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// child checks a manifest and its config.
func child(ctx context.Context, img source.Image, desc ocispec.Descriptor) (*index.Finding, error) {
	if !index.IsManifest(desc.MediaType) {
		_, err := img.Manifest(ctx, desc)
		return finding(desc, err)
	}
	m, _, err := source.ReadManifest(ctx, img, desc)
	if err != nil || !index.IsConfig(m.Config.MediaType) || index.IsAttestation(desc) {
		return finding(desc, err)
	}
	config, err := source.ReadConfig(ctx, img, m)
	if err != nil {
		return finding(desc, err)
	}
	if _, err := source.Agree(desc, config); err != nil {
		return &index.Finding{Rule: RuleConfig, Digest: desc.Digest, Text: err.Error()}, nil
	}
	return nil, nil
}

// finding tells what is wrong with the image from what is wrong with the way to it.
func finding(desc ocispec.Descriptor, err error) (*index.Finding, error) {
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, source.ErrNotFound):
		return &index.Finding{Rule: RuleDangling, Digest: desc.Digest, Text: desc.Digest.String() + " is missing: " + err.Error()}, nil
	case errors.Is(err, source.ErrInvalid), errors.Is(err, source.ErrCorrupt):
		return &index.Finding{Rule: RuleBroken, Digest: desc.Digest, Text: desc.Digest.String() + ": " + err.Error()}, nil
	}
	return nil, err
}

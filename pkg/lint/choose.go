package lint

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// Choice is what a runtime takes on a machine.
type Choice struct {
	Runtime  index.Runtime
	Host     platform.Platform
	Desc     ocispec.Descriptor // zero: nothing
	Platform string             // as the entry has it; "" when it has none
	Why      string
}

// Choose tells what each runtime takes on each machine, machines first.
func Choose(ctx context.Context, img source.Image, runtimes []index.Runtime, hosts []platform.Platform) ([]Choice, error) {
	var out []Choice
	for _, host := range hosts {
		for _, rt := range runtimes {
			c := Choice{Runtime: rt, Host: host}
			if err := c.follow(ctx, img); err != nil {
				return nil, err
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// follow goes from the root through nested indexes.
func (c *Choice) follow(ctx context.Context, img source.Image) error {
	at := img.Root()
	c.Why = "it is a single image, which is taken whatever it is for"
	ifConfig := false
	for depth := 0; index.IsIndex(at.MediaType); depth++ {
		if depth > index.MaxNesting {
			return fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, at.Digest, index.MaxNesting)
		}
		idx, err := source.ReadIndex(ctx, img, at)
		if err != nil {
			return err
		}
		pick := index.Pick(c.Runtime, c.Host, idx.Manifests)
		if c.Why = pick.Why; depth > 0 {
			c.Why = "in a nested index: " + c.Why
		}
		if pick.At < 0 {
			return nil
		}
		at, ifConfig = idx.Manifests[pick.At], pick.IfConfig
	}
	c.Desc = at
	if p := at.Platform; p != nil && (p.OS != "" || p.Architecture != "") {
		c.Platform = p.OS + "/" + p.Architecture
		if p.Variant != "" {
			c.Platform += "/" + p.Variant
		}
		return nil
	}
	// What does not say it in the index says it in its config.
	m, _, err := source.ReadManifest(ctx, img, at)
	if err != nil || !index.IsConfig(m.Config.MediaType) {
		return err
	}
	config, err := source.ReadConfig(ctx, img, m)
	if err != nil {
		return err
	}
	c.Platform = config.Platform.String()
	if _, runs := platform.Select(c.Host, []platform.Platform{config.Platform}); ifConfig && !runs {
		c.Desc, c.Why = ocispec.Descriptor{}, fmt.Sprintf("no entry is for the platform, and the one that does not say what it is for is for %s", c.Platform)
		c.Platform = ""
	}
	return nil
}

// Ignore drops the findings of rules by their IDs.
func (r *Report) Ignore(ids ...string) {
	r.Findings = slices.DeleteFunc(r.Findings, func(f index.Finding) bool { return slices.Contains(ids, f.Rule.ID) })
}

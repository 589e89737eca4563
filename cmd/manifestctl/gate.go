package main

import (
	"context"
	"errors"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// gateFlags say what commands check that move images they did not build.
type gateFlags struct {
	mode  string
	allow []string
}

func (g *gateFlags) add(f *pflag.FlagSet) {
	f.StringVar(&g.mode, "verify", "known", "`MODE` check that contents are of their platform: known (what was read already; no request more), error or warn (read all layers), or off")
	allowFlag(f, &g.allow)
}

// gate judges images on their way. Close it.
type gate struct {
	e      *env
	mode   string
	o      verify.Options
	reader verify.Reader
	st     *store.Store
}

// open makes the gate, nil when it is off. What is known is in the store: st, or the one that is opened for it.
func (g *gateFlags) open(ctx context.Context, e *env, st *store.Store) (*gate, error) {
	out := &gate{e: e, mode: g.mode}
	var err error
	if out.o.Allow, err = parseAllows(g.allow); err != nil {
		return nil, err
	}
	switch g.mode {
	case "off":
		return nil, nil
	case "known":
		out.o.KnownOnly = true
	case "error", "warn":
	default:
		return nil, usagef("--verify %q: want known, error, warn or off", g.mode)
	}
	if st == nil {
		root, err := e.storeRoot()
		if err == nil {
			st, err = store.Open(ctx, root, store.Options{ReadOnly: out.o.KnownOnly})
		}
		if err != nil { // nothing is known, and nothing is kept
			return out, nil //nolint:nilerr // the gate works without
		}
		out.st = st
	}
	out.reader.Cache = facts.Cache{Store: st}
	return out, nil
}

func (g *gate) close() error {
	if g == nil || g.st == nil {
		return nil
	}
	return g.st.Close()
}

// entry judges the image of an entry of an index that is made.
func (g *gate) entry(ctx context.Context, img source.Image, entry ocispec.Descriptor) error {
	if g == nil {
		return nil
	}
	if g.o.KnownOnly {
		img = source.AtHand(img)
	}
	report, err := g.reader.Entry(ctx, img, entry, g.o)
	if err != nil {
		return err
	}
	return g.pass(report)
}

// image judges a whole index, or a single image.
func (g *gate) image(ctx context.Context, img source.Image) error {
	if g == nil {
		return nil
	}
	report, err := g.reader.Run(ctx, img, g.o)
	if err != nil {
		if g.o.KnownOnly && errors.Is(err, source.ErrNotFound) {
			return nil
		}
		return err
	}
	return g.pass(report)
}

// pass refuses what is wrong. What is known by the documents only, a config that says another platform than the
// entry, may have been said on purpose: it is refused when the check was asked for.
func (g *gate) pass(report *verify.Report) error {
	var refused []verify.Finding
	for _, f := range report.Findings {
		document := f.Rule.ID == verify.RuleConfig.ID || f.Rule.ID == verify.RuleBroken.ID
		switch {
		case f.Level == verify.Error && (g.mode == "error" || g.mode == "known" && !document):
			refused = append(refused, f)
		case f.Level.AtLeast(verify.Warning):
			g.e.note("warning: %s", f)
		}
	}
	if len(refused) > 0 {
		return &verify.FindingsError{Findings: refused}
	}
	return nil
}

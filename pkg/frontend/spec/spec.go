// Package spec is the frontend for rootfs.yaml (docs/spec.md): it reads, checks
// and expands a spec into a graph. It never writes, runs nothing and reads no
// content of sources: only the spec, the .dockerignore files, and the names and
// types of what the spec's sources name.
//
// # Invariants
//
//   - Every mistake in a spec is an [*Error] with its place, and all of them are reported at once, sorted by place.
//   - Nothing outside of a context is looked at: sources, .dockerignore and a spec that lies in the context go through [os.Root].
//   - The graph depends on the spec, the options and the contexts' names and executable bits; not on the clock, umask, locale or working directory.
package spec

import (
	"bytes"
	"context"
	_ "embed" // schema.json
	"errors"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Options is what the command line adds to a spec.
type Options struct {
	Platforms []platform.Platform // overrides platforms:
	Machine   platform.Platform   // BUILD* variables, and the default platform
	Args      map[string]string   // --build-arg
	Epoch     *int64              // SOURCE_DATE_EPOCH
	Contexts  map[string]string   // --build-context NAME=DIR
}

// Load reads file (a path; its name in messages is as given) with sources from the directory context and returns its graph.
// The error joins every *Error found.
func Load(ctx context.Context, file, contextDir string, o Options) (*graph.Build, error) {
	text, err := readSpec(file, contextDir)
	if err != nil {
		return nil, err
	}
	return load(ctx, file, text, contextDir, o)
}

// load is Load of a text.
func load(ctx context.Context, file string, text []byte, contextDir string, o Options) (*graph.Build, error) {
	r := newReporter(file, text)
	doc, d := decodeDocument(r, text)
	if doc == nil {
		return nil, errors.Join(r.list()...)
	}
	p := newPlanner(ctx, r, doc, contextDir, o)
	defer p.close()
	b := p.build(d)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := errors.Join(append(p.others, r.list()...)...); err != nil {
		return nil, err
	}
	return b, nil
}

// Check reads and checks a spec as [Load] does and returns its warnings.
func Check(ctx context.Context, file, contextDir string, o Options) (warnings []string, err error) {
	b, err := Load(ctx, file, contextDir, o)
	if err != nil {
		return nil, err
	}
	return b.Warnings, nil
}

//go:embed schema.json
var schema []byte

// Schema is the JSON Schema (draft 2020-12) of a spec, for editors and other checkers.
func Schema() []byte { return bytes.Clone(schema) }

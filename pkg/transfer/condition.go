package transfer

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// ParseCondition reads the argument of --if-match: a digest, or "none".
func ParseCondition(s string) (Condition, error) {
	switch s {
	case "":
		return Condition{}, nil
	case "none":
		return Condition{None: true}, nil
	}
	d := digest.Digest(s)
	if err := d.Validate(); err != nil {
		return Condition{}, fmt.Errorf("%w: %q is neither a digest nor none: %w", ErrInvalid, s, err)
	}
	return Condition{Match: d}, nil
}

// allows reports whether a tag that points at current ("": it does not exist) may be written.
func (c Condition) allows(current digest.Digest) bool {
	switch {
	case c.None:
		return current == ""
	case c.Match != "":
		return current == c.Match
	}
	return true
}

// checkCondition holds the tags of a place to the condition, before anything is written.
func (m *mover) checkCondition(ctx context.Context, p *place) error {
	s, ok := p.sink.(*registrySink)
	if !ok {
		return fmt.Errorf("%w: a condition is for tags of registries only", ErrInvalid)
	}
	for _, r := range p.roots {
		for _, n := range r.Names {
			if n.Tag == "" {
				continue
			}
			if err := m.o.Condition.check(ctx, s.client, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c Condition) check(ctx context.Context, client *registry.Client, tag ref.Ref) error {
	now, err := client.Head(ctx, tag)
	if err != nil {
		return err
	}
	if c.allows(now.Digest) {
		return nil
	}
	want, is := string(c.Match), string(now.Digest)
	if c.None {
		want = "nothing"
	}
	if is == "" {
		is = "nothing"
	}
	return fmt.Errorf("%w: %s points at %s, and should at %s: look at it again", ErrConflict, tag, is, want)
}

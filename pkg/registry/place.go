package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Place is where a reference is really read from, or written to.
type Place struct {
	Ref      ref.Ref
	Insecure bool // TLS unverified, and http where nothing speaks TLS
	Mirror   bool // a copy of the place that is meant: what it has not is looked for in the next one
}

// Places says where references lead: the mirrors in order and last the place itself when it is for pulling, and the place
// itself alone when it is not. An error forbids the reference.
type Places interface {
	Places(r ref.Ref, pull bool) ([]Place, error)
}

// ErrMirror is an ErrCorrupt of a mirror: when the same is asked for again, the mirror is passed over.
var ErrMirror = fmt.Errorf("%w: a mirror", ErrCorrupt)

// places lists where r leads. Credentials are looked up for where that is, so a mirror never gets those of its original.
func (c *Client) places(r ref.Ref, pull bool) ([]Place, error) {
	if c.o.Places == nil {
		return []Place{{Ref: r}}, nil
	}
	ps, err := c.o.Places.Places(r, pull)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if err := check(p.Ref); err != nil {
			return nil, fmt.Errorf("where %s leads: %w", r, err)
		}
	}
	return ps, nil
}

// home is the place of r itself. An error is that of the request made for it.
func (c *Client) home(r ref.Ref) (Place, error) {
	ps, err := c.places(r, false)
	if err != nil || len(ps) == 0 {
		return Place{Ref: r}, err
	}
	return ps[len(ps)-1], nil
}

// eachPlace calls f for the places of r until one has what is wanted.
func (c *Client) eachPlace(ctx context.Context, r ref.Ref, f func(Place) error) error {
	ps, err := c.places(r, true)
	if err != nil {
		return err
	}
	var missed error // what mirrors said
	for i, p := range ps {
		if i < len(ps)-1 && c.isDown(p) {
			continue
		}
		err := f(p)
		var local *localError
		if err == nil || ctx.Err() != nil || errors.As(err, &local) {
			return err
		}
		if i == len(ps)-1 {
			if missed != nil {
				err = fmt.Errorf("%w (and before that: %v)", err, missed) //nolint:errorlint // the kind is the original's
			}
			return err
		}
		c.missed(p, err)
		missed = errors.Join(missed, err)
	}
	return nil
}

// homeFirst calls f for the place of r itself, and for its mirrors only when that cannot be reached: what mirrors list may
// be a part.
func (c *Client) homeFirst(ctx context.Context, r ref.Ref, f func(Place) error) error {
	ps, err := c.places(r, true)
	if err != nil {
		return err
	}
	err = f(ps[len(ps)-1])
	for _, p := range ps[:len(ps)-1] {
		var local *localError
		if err == nil || ctx.Err() != nil || errors.As(err, &local) || isAnswer(err) {
			break
		}
		if merr := f(p); merr == nil {
			return nil
		}
	}
	return err
}

// missed notes what a mirror did not give. One that cannot be reached is left out from now on.
func (c *Client) missed(p Place, err error) {
	if isAnswer(err) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrDenied) {
		if errors.Is(err, ErrCorrupt) {
			c.events.Emit(event.Event{Kind: event.Warning, ID: p.Ref.Host, Text: "the mirror " + p.Ref.Host + " is passed over: " + err.Error()})
		}
		return
	}
	h := c.hostAt(p)
	h.learned.Lock()
	first := !h.down
	h.down = true
	h.learned.Unlock()
	if first {
		c.events.Emit(event.Event{Kind: event.Warning, ID: p.Ref.Host, Text: "the mirror " + p.Ref.Host + " cannot be reached: " + err.Error()})
	}
}

func (c *Client) isDown(p Place) bool {
	h := c.hostAt(p)
	h.learned.Lock()
	defer h.learned.Unlock()
	return h.down
}

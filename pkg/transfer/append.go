package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// AppendOptions tunes Append. The zero value is the recommended one.
type AppendOptions struct {
	Replace     bool              // an entry takes the place of another for its platform; else that is an error
	Annotations map[string]string // of the index
	DryRun      bool              // say what the tag would become
	// Pause waits before the n-th try after another writer was met; nil waits some milliseconds, more and more. Tests
	// inject delays.
	Pause func(ctx context.Context, n int) error
}

// Appended is what Append made of a tag.
type Appended struct {
	Desc  ocispec.Descriptor
	Raw   []byte
	Notes []string
}

// maxTries is how often Append reads and writes before it gives up: writers who met have all written the same by the
// second time.
const maxTries = 100

// Append adds entries to the index under a tag while others do the same, and loses nobody's. What the entries name must
// be in the repository.
//
// No registry compares before it sets a tag, so a writer may overwrite what another has just written. Therefore each
// writer first leaves a marker, a small index of its entries under a tag of its own; then it lists the markers, reads
// the tag, writes the union of all of them, and lists and reads again until the tag is that union. A marker that was made
// after a writer's list belongs to somebody who has yet to write; one that was made before is in what it writes: so
// whoever writes last has seen everything, or sees it when it looks again. The one window is a writer that is killed between
// its write and its second look, or whose write arrives after it was killed: the next Append, of anybody, heals it.
//
// It needs a registry whose list of tags holds every tag that was pushed before it was asked for. Markers count for an hour
// and for the index that they were made for; they are removed afterwards, where the registry deletes manifests.
func Append(ctx context.Context, env Env, tag ref.Ref, entries []index.Entry, o AppendOptions) (Appended, error) {
	a := &appender{env: env, client: env.Registry, tag: tag, entries: entries, o: o, known: map[string]*marker{}}
	switch {
	case env.Registry == nil || tag.Kind != ref.Registry || tag.Tag == "":
		return Appended{}, fmt.Errorf("%w: %s is no tag of a registry", ErrInvalid, tag)
	case len(entries) == 0:
		return Appended{}, fmt.Errorf("%w: there is nothing to append to %s", ErrInvalid, tag)
	case env.Now == nil:
		return Appended{}, fmt.Errorf("%w: appending needs a clock", ErrInvalid)
	}
	a.tag.Digest = ""
	if a.o.Pause == nil {
		a.o.Pause = pause
	}
	done, err := a.run(ctx)
	if err != nil {
		return done, fmt.Errorf("appending to %s: %w", tag, err)
	}
	a.sweep(ctx)
	return done, nil
}

// pause is 5 to 10 ms at first, and doubles up to half a second.
func pause(ctx context.Context, n int) error {
	d := min(10*time.Millisecond<<min(n, 6), 500*time.Millisecond)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

type appender struct {
	env     Env
	client  *registry.Client
	tag     ref.Ref
	entries []index.Entry
	o       AppendOptions

	known   map[string]*marker // by tag; a nil one is none
	expired []string           // tags of markers that count no more
	own     *marker
	distant bool // the registry's conditions make no sense: do without
}

// state is the tag and its markers at one time.
type state struct {
	desc    ocispec.Descriptor // zero: the tag does not exist
	raw     []byte             // an index: that of the tag, or one made of the single image there
	base    string
	markers []*marker // of base
}

func (a *appender) run(ctx context.Context) (Appended, error) {
	var seen bool // our entries were in the tag
	for try := 0; try < maxTries; try++ {
		if try > 0 {
			if err := a.o.Pause(ctx, try-1); err != nil {
				return Appended{}, err
			}
		}
		now, err := a.look(ctx)
		if err != nil {
			return Appended{}, err
		}
		if a.own == nil && len(now.markers) == 0 && a.contained(now) {
			return Appended{Desc: now.desc, Raw: now.raw}, nil
		}
		if a.own == nil || a.own.base != now.base {
			if err := a.mark(ctx, now); err != nil {
				return Appended{}, err
			}
			if !a.o.DryRun {
				if now, err = a.look(ctx); err != nil {
					return Appended{}, err
				}
			}
			if now.base != a.own.base {
				continue // the tag was replaced meanwhile
			}
		}
		a.withOwn(&now)
		if err := a.stillOurs(now, seen); err != nil {
			return Appended{}, err
		}
		raw, desc, notes, err := unite(now.raw, now.base, now.markers)
		if err != nil {
			return Appended{}, err
		}
		done := Appended{Desc: desc, Raw: raw, Notes: notes}
		if desc.Digest == now.desc.Digest || a.o.DryRun {
			return done, nil
		}
		switch err := a.write(ctx, now, done); {
		case err == nil:
			seen = true
		case !errors.Is(err, registry.ErrConflict):
			return Appended{}, err
		}
		after, err := a.look(ctx)
		if err != nil {
			return Appended{}, err
		}
		if after.base == now.base {
			a.withOwn(&after)
			if err := a.stillOurs(after, seen); err != nil {
				return Appended{}, err
			}
			again, want, _, err := unite(after.raw, after.base, after.markers)
			if err != nil {
				return Appended{}, err
			}
			if want.Digest == after.desc.Digest {
				return Appended{Desc: want, Raw: again, Notes: notes}, nil
			}
		}
	}
	return Appended{}, fmt.Errorf("%w: others changed it %d times meanwhile: try again", ErrConflict, maxTries)
}

// write puts the union under the tag.
func (a *appender) write(ctx context.Context, now state, want Appended) error {
	o := registry.PutOptions{IfMatch: now.desc.Digest, IfNone: now.desc.Digest == ""}
	if a.distant {
		o = registry.PutOptions{}
	}
	_, err := a.client.PutManifest(ctx, a.tag, want.Desc.MediaType, want.Raw, o)
	if errors.Is(err, registry.ErrConflict) && !a.distant {
		// A proxy in front of a registry may answer conditions by what it thinks the tag is.
		if desc, herr := a.client.Head(ctx, a.tag); herr == nil && desc.Digest == now.desc.Digest {
			a.distant = true
		}
	}
	return err
}

// withOwn adds our marker to those of a list that lags, or that lost it to another of the same second.
func (a *appender) withOwn(now *state) {
	if !slices.ContainsFunc(now.markers, func(m *marker) bool { return m.digest == a.own.digest }) {
		now.markers = append(now.markers, a.own)
	}
}

// stillOurs checks that our entries are among the latest of their platforms. Where another writer's is and ours never was
// in the tag, that is a conflict: one of the two has to lose, and is told. What was in the tag was replaced, which is nobody's loss.
func (a *appender) stillOurs(now state, seen bool) error {
	if seen || isLatest(a.own, now.markers) {
		return nil
	}
	return fmt.Errorf("%w: another writer set %s at the same time", ErrConflict, slotKey(a.entries[0]))
}

// contained reports whether the tag holds all that is to be appended.
func (a *appender) contained(now state) bool {
	idx, err := index.Parse(now.raw)
	if err != nil || !index.IsIndex(now.desc.MediaType) {
		return false
	}
	have, err := idx.Entries()
	if err != nil {
		return false
	}
	for k, v := range a.o.Annotations {
		if idx.Annotations[k] != v {
			return false
		}
	}
	for _, e := range a.entries {
		if !slices.ContainsFunc(have, func(h index.Entry) bool { return h.Digest == e.Digest && slotKey(h) == slotKey(e) }) {
			return false
		}
	}
	return true
}

// mark leaves our marker for the base that the tag has now, unless one of an earlier try is there.
func (a *appender) mark(ctx context.Context, now state) error {
	sequence := 0
	for _, m := range now.markers {
		if m.name != "" && sameEntries(m.entries, a.entries) && isLatest(m, now.markers) {
			a.own = m // of a run that was killed
			return nil
		}
		for _, e := range m.entries {
			if slices.ContainsFunc(a.entries, func(o index.Entry) bool { return slotKey(o) == slotKey(e) }) {
				sequence = max(sequence, m.sequence)
			}
		}
	}
	if !a.o.Replace {
		if err := a.checkFree(now); err != nil {
			return err
		}
	}
	own, err := newMarker(a.tag.Tag, now.base, sequence+1, a.env.Now(), a.entries, a.o.Annotations)
	if err != nil {
		return err
	}
	a.own = own
	if a.o.DryRun {
		return nil
	}
	if _, err := a.client.PutManifest(ctx, a.tag.WithTag(own.name), ocispec.MediaTypeImageIndex, own.raw, registry.PutOptions{}); err != nil {
		return fmt.Errorf("leaving a marker: %w", err)
	}
	a.known[own.name] = own
	return nil
}

// checkFree refuses entries whose platforms the tag has already.
func (a *appender) checkFree(now state) error {
	if now.raw == nil {
		return nil
	}
	idx, err := index.Parse(now.raw)
	if err != nil {
		return err
	}
	have, err := idx.Entries()
	if err != nil {
		return err
	}
	for _, h := range have {
		for _, e := range a.entries {
			if h.IsImage() && e.IsImage() && slotKey(h) == slotKey(e) && h.Digest != e.Digest {
				return fmt.Errorf("%w: %s is %s already, and would be %s: --replace-platform replaces it", index.ErrDuplicate, slotKey(e), h.Digest, e.Digest)
			}
		}
	}
	return nil
}

func sameEntries(a, b []index.Entry) bool {
	return slices.EqualFunc(a, b, func(x, y index.Entry) bool { return x.Digest == y.Digest && slotKey(x) == slotKey(y) })
}

// isLatest reports whether all of m's entries win.
func isLatest(m *marker, all []*marker) bool {
	win := winners(all)
	for _, e := range m.entries {
		if !slices.ContainsFunc(win, func(w index.Entry) bool { return w.Digest == e.Digest }) {
			return false
		}
	}
	return true
}

// maxSwept is how many markers one Append removes.
const maxSwept = 32

// sweep removes markers that count no more. A registry that does not delete keeps them.
func (a *appender) sweep(ctx context.Context) {
	for _, name := range a.expired[:min(len(a.expired), maxSwept)] {
		desc, err := a.client.Resolve(ctx, a.tag.WithTag(name))
		if err != nil {
			return
		}
		if err := a.client.Delete(ctx, a.tag.WithDigest(desc.Digest)); err != nil {
			return
		}
	}
}

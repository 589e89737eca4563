package transfer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// The annotations of markers and of the indexes that they are about.
const (
	// AnnotationAppendBase says from what an index grew by appends: the digest of what the tag held before the first
	// of them, or "none". Markers of another base are about something that was replaced since.
	AnnotationAppendBase = "io.github.manifestctl.append.base"

	annotationAppendTag = "io.github.manifestctl.append.tag"
	annotationAppendSeq = "io.github.manifestctl.append.sequence"
	appendAnnotations   = "io.github.manifestctl.append."

	noBase = "none"
)

// markerPrefix begins the tags of markers: _mctl.HASH.CHILD.TIME, where HASH is of the tag that it is about, CHILD of what
// it adds, and TIME the second it was made at, in base 36.
const markerPrefix = "_mctl."

// StagePrefix begins the tags of images that are to become an index: package stage.
const StagePrefix = "_stage."

// markerAge is how long a marker counts: no writer takes that long between two of its steps.
const markerAge = time.Hour

// IsMarker reports whether a tag is a marker of [Append] and no image.
func IsMarker(tag string) bool { return strings.HasPrefix(tag, markerPrefix) }

// marker is the promise of one writer: these entries are to be in the tag.
type marker struct {
	name        string // its tag
	tag         string // that it is about
	base        string
	sequence    int // higher is later, for the same platform
	at          time.Time
	digest      digest.Digest
	raw         []byte
	entries     []index.Entry
	annotations map[string]string // of the index
}

func markerHash(tag string) string {
	sum := sha256.Sum256([]byte(tag))
	return hex.EncodeToString(sum[:])[:16]
}

// newMarker makes the marker of entries that the repository holds.
func newMarker(tag, base string, sequence int, at time.Time, entries []index.Entry, annotations map[string]string) (*marker, error) {
	m := &marker{tag: tag, base: base, sequence: sequence, at: at.Truncate(time.Second), entries: entries, annotations: annotations}
	x, err := index.NewEditor(index.Options{})
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if err := x.Add(e, false); err != nil {
			return nil, err
		}
	}
	m.name = markerPrefix + markerHash(tag) + "." + childHash(entries) + "." + strconv.FormatInt(at.Unix(), 36)
	all := map[string]string{
		annotationAppendTag:  tag,
		AnnotationAppendBase: base,
		annotationAppendSeq:  strconv.Itoa(sequence),
		// Two markers never have one digest: deleting one leaves the other.
		ocispec.AnnotationCreated: m.at.UTC().Format(time.RFC3339),
	}
	for k, v := range annotations {
		if !strings.HasPrefix(k, appendAnnotations) && k != ocispec.AnnotationCreated {
			all[k] = v
		}
	}
	if err := x.Annotate(all); err != nil {
		return nil, err
	}
	desc, raw, err := x.Finish()
	m.digest, m.raw = desc.Digest, raw
	return m, err
}

// childHash names what a marker adds.
func childHash(entries []index.Entry) string {
	if len(entries) == 1 && len(entries[0].Digest.Encoded()) <= sha256.Size*2 {
		return entries[0].Digest.Encoded()
	}
	h := sha256.New()
	for _, e := range entries {
		fmt.Fprintln(h, e.Digest)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// markerTime reads the time in a marker's tag; ok is false for one that is not about tag, or no marker.
func markerTime(name, tag string) (at time.Time, ok bool) {
	rest, ok := strings.CutPrefix(name, markerPrefix+markerHash(tag)+".")
	if !ok {
		return at, false
	}
	_, stamp, ok := strings.Cut(rest, ".")
	if !ok {
		return at, false
	}
	seconds, err := strconv.ParseInt(stamp, 36, 64)
	return time.Unix(seconds, 0), err == nil
}

// parseMarker reads a marker.
func parseMarker(name string, d digest.Digest, raw []byte) (*marker, error) {
	idx, err := index.Parse(raw)
	if err != nil {
		return nil, err
	}
	m := &marker{name: name, digest: d, raw: raw, annotations: map[string]string{}}
	for k, v := range idx.Annotations {
		switch k {
		case annotationAppendTag:
			m.tag = v
		case AnnotationAppendBase:
			m.base = v
		case annotationAppendSeq:
			if m.sequence, err = strconv.Atoi(v); err != nil {
				return nil, fmt.Errorf("marker %s: %w", name, err)
			}
		case ocispec.AnnotationCreated:
		default:
			m.annotations[k] = v
		}
	}
	var ok bool
	if m.at, ok = markerTime(name, m.tag); !ok {
		return nil, fmt.Errorf("%w: marker %s is about another tag than its name says", ErrInvalid, name)
	}
	m.entries, err = idx.Entries()
	return m, err
}

// slotKey is what only one entry of an index can be: a platform, or for what is no image its digest.
func slotKey(e index.Entry) string {
	if e.IsImage() && e.Platform != nil {
		if p, err := platform.FromOCI(*e.Platform); err == nil {
			return p.String()
		}
	}
	return e.Digest.String()
}

// compareMarkers orders markers by when they were made, each after what its writer had seen.
func compareMarkers(a, b *marker) int {
	if a.sequence != b.sequence {
		return a.sequence - b.sequence
	}
	return strings.Compare(string(a.digest), string(b.digest))
}

// winners returns, for each platform, the entry of the latest marker, in an order that does not depend on who asks:
// images by platform, each followed by what attests it, then the rest.
func winners(markers []*marker) []index.Entry {
	markers = slices.SortedFunc(slices.Values(markers), compareMarkers)
	latest := map[string]index.Entry{}
	with := map[digest.Digest][]index.Entry{}
	for _, m := range markers {
		for _, e := range m.entries {
			if index.IsAttestation(e.Descriptor) {
				of := index.Attests(e.Descriptor)
				if !slices.ContainsFunc(with[of], func(o index.Entry) bool { return o.Digest == e.Digest }) {
					with[of] = append(with[of], e)
				}
				continue
			}
			latest[slotKey(e)] = e
		}
	}
	var out []index.Entry
	for _, e := range latest {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b index.Entry) int {
		if a.IsImage() != b.IsImage() {
			if a.IsImage() {
				return -1
			}
			return 1
		}
		return strings.Compare(slotKey(a), slotKey(b))
	})
	var all []index.Entry
	for _, e := range out {
		all = append(all, e)
		all = append(all, with[e.Digest]...)
		delete(with, e.Digest)
	}
	return append(all, with[""]...)
}

// unite is the index that current must become: with the winners of markers in the place of what stood for the same
// platforms.
func unite(current []byte, base string, markers []*marker) ([]byte, ocispec.Descriptor, []string, error) {
	fail := func(err error) ([]byte, ocispec.Descriptor, []string, error) {
		return nil, ocispec.Descriptor{}, nil, err
	}
	var x *index.Editor
	var err error
	if current == nil {
		x, err = index.NewEditor(index.Options{})
	} else {
		x, err = index.Edit(current)
	}
	if err != nil {
		return fail(err)
	}
	claimed, managed := map[string]bool{}, map[digest.Digest]bool{}
	for _, m := range markers {
		for _, e := range m.entries {
			managed[e.Digest] = true
			if !index.IsAttestation(e.Descriptor) {
				claimed[slotKey(e)] = true
			}
		}
	}
	// What attests an image here stays with it, though no marker names it.
	beside := map[digest.Digest][]index.Entry{}
	var gone []int
	for i, e := range x.Entries() {
		if of := index.Attests(e.Descriptor); managed[of] && !managed[e.Digest] && index.IsAttestation(e.Descriptor) {
			beside[of] = append(beside[of], e)
		}
		if managed[e.Digest] || !index.IsAttestation(e.Descriptor) && claimed[slotKey(e)] {
			gone = append(gone, i)
		}
	}
	x.Remove(gone...)
	for _, e := range winners(markers) {
		for _, e := range append([]index.Entry{e}, beside[e.Digest]...) {
			if err := x.Add(e, false); err != nil {
				return fail(err)
			}
		}
	}
	annotations := map[string]string{}
	for _, m := range slices.SortedFunc(slices.Values(markers), compareMarkers) {
		for k, v := range m.annotations {
			annotations[k] = v
		}
	}
	annotations[AnnotationAppendBase] = base
	if err := x.Annotate(annotations); err != nil {
		return fail(err)
	}
	desc, raw, err := x.Finish()
	return raw, desc, x.Notes(), err
}

// baseOf is what an index grew from, if it grew by appends, else itself.
func baseOf(d digest.Digest, raw []byte) string {
	if raw == nil {
		return noBase
	}
	idx, err := index.Parse(raw)
	if err == nil && idx.Annotations[AnnotationAppendBase] != "" {
		return idx.Annotations[AnnotationAppendBase]
	}
	return d.String()
}

package index

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// ErrDuplicate says that two entries of an index would stand for one platform.
var ErrDuplicate = errors.New("duplicate platform")

// Editor changes an index. What is not changed keeps its order and its fields, known here or not; an index that
// nothing changed in keeps its very bytes.
type Editor struct {
	raw     []byte // as it was read; nil for a new one
	read    string // the same, compact
	tree    *jsontree.Node
	entries []Entry
	notes   []string
}

// Edit starts to edit an index or manifest list.
func Edit(raw []byte) (*Editor, error) {
	if _, err := Parse(raw); err != nil {
		return nil, err
	}
	tree, err := jsontree.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	x := &Editor{raw: raw, read: string(tree.Bytes()), tree: tree}
	x.entries, err = entriesOf(tree)
	return x, err
}

// NewEditor starts an index without entries.
func NewEditor(o Options) (*Editor, error) {
	_, raw, err := Assemble(nil, o)
	if err != nil {
		return nil, err
	}
	x, err := Edit(raw)
	if err != nil {
		return nil, err
	}
	x.raw = nil
	return x, nil
}

// Entries returns the entries as they are now. The slice is the caller's.
func (x *Editor) Entries() []Entry { return slices.Clone(x.entries) }

// MediaType is that of the index as it is now.
func (x *Editor) MediaType() string {
	if mt, _ := x.tree.Get("mediaType").Text(); mt != "" {
		return mt
	}
	return ocispec.MediaTypeImageIndex
}

// Notes are what an edit did beyond what was asked for, one line each.
func (x *Editor) Notes() []string { return slices.Clone(x.notes) }

func (x *Editor) note(format string, a ...any) {
	if n := fmt.Sprintf(format, a...); !slices.Contains(x.notes, n) {
		x.notes = append(x.notes, n)
	}
}

// Add appends an entry. One that is there already with the same platform is left alone. Another manifest for a platform
// that has one is ErrDuplicate, unless replace says that it takes the old one's place; the attestations of that go with it.
func (x *Editor) Add(e Entry, replace bool) error {
	e, err := e.clone()
	if err != nil {
		return err
	}
	if e.IsImage() {
		if e.Platform == nil || e.Platform.OS == "" && e.Platform.Architecture == "" {
			return fmt.Errorf("%w: entry %s has no platform: set one", ErrInvalid, e.Digest)
		}
		if _, err := platform.FromOCI(*e.Platform); err != nil {
			return fmt.Errorf("%w: entry %s: %v", ErrInvalid, e.Digest, err) //nolint:errorlint // that kind is for what people type
		}
	}
	if at := x.sameEntry(e); at >= 0 {
		return nil
	}
	old := x.sharing(e, -1)
	if old >= 0 && !replace {
		return x.duplicate(x.entries[old], e)
	}
	x.suit(e)
	if old < 0 {
		x.entries = append(x.entries, e)
		return x.store()
	}
	gone := x.entries[old].Digest
	x.entries[old] = e
	for at := x.sharing(e, old); at >= 0; at = x.sharing(e, old) { // an index that had duplicates
		x.drop(at)
		if at < old {
			old--
		}
	}
	x.dropAttestations(gone)
	return x.store()
}

// sameEntry returns where an entry of the same content and platform is, or -1.
func (x *Editor) sameEntry(e Entry) int {
	return slices.IndexFunc(x.entries, func(o Entry) bool {
		if o.Digest != e.Digest {
			return false
		}
		if !e.IsImage() || !o.IsImage() {
			return true
		}
		return samePlatform(o.Descriptor, e.Descriptor)
	})
}

// sharing returns the first image but the one at except that stands for e's platform, or -1.
func (x *Editor) sharing(e Entry, except int) int {
	if !e.IsImage() {
		return -1
	}
	for i, o := range x.entries {
		if i != except && o.IsImage() && samePlatform(o.Descriptor, e.Descriptor) {
			return i
		}
	}
	return -1
}

func samePlatform(a, b ocispec.Descriptor) bool {
	if a.Platform == nil || b.Platform == nil {
		return false
	}
	p, err1 := platform.FromOCI(*a.Platform)
	q, err2 := platform.FromOCI(*b.Platform)
	return err1 == nil && err2 == nil && p == q
}

func (x *Editor) duplicate(have, e Entry) error {
	return fmt.Errorf("%w: %s is %s already, and would be %s as well: replace it, or leave one out", ErrDuplicate, e.name(), have.Digest, e.Digest)
}

// Remove removes the entries at these positions, and the attestations of what is gone with them. It returns what it removed.
func (x *Editor) Remove(at ...int) []Entry {
	before := x.Entries()
	at = slices.Compact(slices.Sorted(slices.Values(at)))
	for _, i := range slices.Backward(at) {
		if i >= 0 && i < len(x.entries) {
			x.drop(i)
		}
	}
	for _, i := range at {
		if i >= 0 && i < len(before) {
			x.dropAttestations(before[i].Digest)
		}
	}
	if err := x.store(); err != nil { // only Add and Set can be refused
		return nil
	}
	var removed []Entry
	for _, e := range before {
		if !slices.ContainsFunc(x.entries, func(o Entry) bool { return o.node == e.node }) {
			removed = append(removed, e)
		}
	}
	return removed
}

func (x *Editor) drop(i int) { x.entries = slices.Delete(slices.Clone(x.entries), i, i+1) }

// dropAttestations removes what describes an image that is no longer here.
func (x *Editor) dropAttestations(of digest.Digest) {
	if slices.ContainsFunc(x.entries, func(e Entry) bool { return e.Digest == of }) {
		return
	}
	x.entries = slices.DeleteFunc(slices.Clone(x.entries), func(e Entry) bool {
		return IsAttestation(e.Descriptor) && Attests(e.Descriptor) == of
	})
}

// Set puts a changed entry in the place of one: made by methods of the entry that was there.
func (x *Editor) Set(at int, e Entry) error {
	if at < 0 || at >= len(x.entries) {
		return fmt.Errorf("%w: there is no entry %d", ErrInvalid, at+1)
	}
	e, err := e.clone()
	if err != nil {
		return err
	}
	if old := x.sharing(e, at); old >= 0 {
		if !samePlatform(x.entries[at].Descriptor, e.Descriptor) { // or the index had duplicates before
			return x.duplicate(x.entries[old], e)
		}
	}
	x.suit(e)
	x.entries[at] = e
	return x.store()
}

// Repoint makes the entries that stood for old stand for another manifest, and the attestations of old describe it.
// Everything else that the entries say stays.
func (x *Editor) Repoint(old digest.Digest, to ocispec.Descriptor) error {
	entries := x.Entries()
	found := false
	for i, e := range entries {
		var err error
		switch {
		case e.Digest == old:
			found = true
			entries[i], err = e.point(to)
		case IsAttestation(e.Descriptor) && Attests(e.Descriptor) == old:
			entries[i], err = e.Annotate(map[string]string{AnnotationReferenceDigest: to.Digest.String()})
		}
		if err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("%w: it has no entry %s", ErrInvalid, old)
	}
	x.entries = entries
	for _, e := range entries {
		x.suit(e)
	}
	return x.store()
}

// Annotate changes the annotations of the index itself.
func (x *Editor) Annotate(set map[string]string, remove ...string) error {
	if len(set) > 0 {
		x.useOCI("annotations")
	}
	return annotate(x.tree, set, remove)
}

// SetSubject says what the index is about; nil removes it.
func (x *Editor) SetSubject(desc *ocispec.Descriptor) error {
	if desc == nil {
		x.tree.Delete("subject")
		return nil
	}
	e, err := NewEntry(ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size})
	if err != nil {
		return fmt.Errorf("subject: %w", err)
	}
	x.useOCI("a subject")
	x.tree.Set("subject", e.node)
	return nil
}

// SetArtifactType says what the index is, when it is not one of images; "" removes it.
func (x *Editor) SetArtifactType(t string) {
	if t != "" {
		x.useOCI("an artifactType")
	}
	setText(x.tree, "artifactType", t)
}

// store writes the entries into the tree.
func (x *Editor) store() error {
	nodes := make([]*jsontree.Node, len(x.entries))
	for i, e := range x.entries {
		nodes[i] = e.node
	}
	if len(nodes) > MaxDescriptors {
		return fmt.Errorf("%w: %d entries are more than the limit of %d", ErrInvalid, len(nodes), MaxDescriptors)
	}
	x.tree.Set("manifests", jsontree.NewArray(nodes...))
	return nil
}

// Finish returns the index with all edits. Without any they are the bytes that were read.
func (x *Editor) Finish() (ocispec.Descriptor, []byte, error) {
	raw := x.tree.Bytes()
	if x.raw != nil && string(raw) == x.read {
		raw = x.raw
	}
	if len(raw) > MaxSize {
		return ocispec.Descriptor{}, nil, fmt.Errorf("%w: its %d bytes are more than the %d that registries take", ErrInvalid, len(raw), MaxSize)
	}
	idx, err := Parse(raw)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	desc := ocispec.Descriptor{MediaType: idx.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw)), ArtifactType: idx.ArtifactType}
	return desc, raw, nil
}

// names lists entries for an error.
func names(entries []Entry) string {
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		out = append(out, e.name())
	}
	return strings.Join(out, ", ")
}

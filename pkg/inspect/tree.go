package inspect

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// NodeKind says what a node of a tree is.
type NodeKind string

// The kinds of nodes.
const (
	NodeIndex       NodeKind = "index"
	NodeImage       NodeKind = "image"
	NodeAttestation NodeKind = "attestation"
	NodeArtifact    NodeKind = "artifact"
	NodeUnknown     NodeKind = "unknown" // of a type that is not known here
)

// Node is one document of a tree with all that it says of itself, and that its parent says of it.
type Node struct {
	Kind         NodeKind             `json:"kind"`
	Platform     string               `json:"platform,omitempty"`
	Attests      digest.Digest        `json:"attests,omitempty"`
	Predicates   []string             `json:"predicates,omitempty"` // of an attestation: the types of its statements
	MediaType    string               `json:"mediaType"`
	ArtifactType string               `json:"artifactType,omitempty"`
	Digest       digest.Digest        `json:"digest"`
	Size         int64                `json:"size"`                       // of the document, bytes
	Total        int64                `json:"total"`                      // of all that it reaches, each thing once
	Entry        map[string]string    `json:"entryAnnotations,omitempty"` // its parent's entry for it says
	Annotations  map[string]string    `json:"annotations,omitempty"`      // it says itself
	Subject      *ocispec.Descriptor  `json:"subject,omitempty"`
	Config       *ocispec.Descriptor  `json:"config,omitempty"`
	Layers       []ocispec.Descriptor `json:"layers,omitempty"`
	Children     []*Node              `json:"manifests,omitempty"`
	Repeated     bool                 `json:"repeated,omitempty"` // it was shown above
	Missing      bool                 `json:"missing,omitempty"`  // the place does not have it
}

// predicateType is the annotation in which BuildKit says what a layer of an attestation states.
const predicateType = "in-toto.io/predicate-type"

// grower makes a tree.
type grower struct {
	r *reader

	growing sync.Mutex // guards seen, count and the result's warnings
	seen    map[digest.Digest]bool
	count   int
}

// tree reads the whole tree of what was opened.
func (r *reader) tree(ctx context.Context) (*Node, error) {
	if err := r.document(); err != nil {
		return nil, err
	}
	g := &grower{r: r, seen: map[digest.Digest]bool{}}
	root, err := g.grow(ctx, r.res.Desc, nil)
	if err != nil {
		return nil, err
	}
	root.total()
	return root, nil
}

func (g *grower) grow(ctx context.Context, desc ocispec.Descriptor, path []digest.Digest) (*Node, error) {
	n := &Node{
		Kind: NodeUnknown, MediaType: desc.MediaType, ArtifactType: desc.ArtifactType, Digest: desc.Digest, Size: desc.Size, Total: desc.Size,
		Entry: desc.Annotations, Attests: index.Attests(desc),
	}
	if len(path) == 0 { // nobody's entry
		n.Entry = nil
	}
	if desc.Platform != nil && (desc.Platform.OS != "" || desc.Platform.Architecture != "") {
		n.Platform = desc.Platform.OS + "/" + desc.Platform.Architecture
		if p, err := platform.FromOCI(*desc.Platform); err == nil {
			n.Platform = p.String()
		}
	}
	switch {
	case slices.Contains(path, desc.Digest):
		return nil, fmt.Errorf("%w: cycle at %s", source.ErrInvalid, desc.Digest)
	case len(path) > index.MaxNesting:
		return nil, fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, desc.Digest, index.MaxNesting)
	}
	var err error
	switch {
	case index.IsIndex(desc.MediaType):
		n.Kind = NodeIndex
		err = g.index(ctx, n, desc, path)
	case index.IsManifest(desc.MediaType):
		n.Kind = NodeImage
		err = g.manifest(ctx, n, desc)
	}
	if index.IsAttestation(desc) {
		n.Kind, n.Platform = NodeAttestation, ""
	}
	return n, err
}

// lost tells of a document that is not there or broken, and lets the rest be shown.
func (g *grower) lost(n *Node, err error) error {
	if err == nil || fatal(err) {
		return err
	}
	n.Missing = true
	g.growing.Lock()
	defer g.growing.Unlock()
	g.r.warn("%s: %v", n.name(), err)
	return nil
}

func (g *grower) index(ctx context.Context, n *Node, desc ocispec.Descriptor, path []digest.Digest) error {
	idx, err := source.ReadIndex(ctx, g.r.img, desc)
	if err != nil {
		return g.lost(n, err)
	}
	n.Annotations, n.Subject = idx.Annotations, idx.Subject
	if n.ArtifactType == "" {
		n.ArtifactType = idx.ArtifactType
	}
	g.growing.Lock()
	n.Repeated = g.seen[desc.Digest] && !slices.Contains(path, desc.Digest)
	g.seen[desc.Digest] = true
	g.count += len(idx.Manifests)
	count := g.count
	g.growing.Unlock()
	if n.Repeated {
		return nil
	}
	if count > index.MaxDescriptors {
		return fmt.Errorf("%w: it leads to more than %d manifests", source.ErrInvalid, index.MaxDescriptors)
	}
	n.Children = make([]*Node, len(idx.Manifests))
	path = append(slices.Clone(path), desc.Digest)
	var nested []int
	err = each(ctx, len(idx.Manifests), func(ctx context.Context, i int) (err error) {
		if index.IsIndex(idx.Manifests[i].MediaType) { // one after the other, so that what is repeated is the later one
			g.growing.Lock()
			nested = append(nested, i)
			g.growing.Unlock()
			return nil
		}
		n.Children[i], err = g.grow(ctx, idx.Manifests[i], path)
		return err
	})
	slices.Sort(nested)
	for _, i := range nested {
		if err == nil {
			n.Children[i], err = g.grow(ctx, idx.Manifests[i], path)
		}
	}
	return err
}

func (g *grower) manifest(ctx context.Context, n *Node, desc ocispec.Descriptor) error {
	m, _, err := source.ReadManifest(ctx, g.r.img, desc)
	if err != nil {
		return g.lost(n, err)
	}
	n.Annotations, n.Subject, n.Layers = m.Annotations, m.Subject, m.Layers
	config := m.Config
	n.Config = &config
	if n.ArtifactType == "" {
		n.ArtifactType = m.ArtifactType
	}
	if index.IsAttestation(desc) {
		for _, l := range m.Layers {
			if t := l.Annotations[predicateType]; t != "" && !slices.Contains(n.Predicates, t) {
				n.Predicates = append(n.Predicates, t)
			}
		}
		return nil
	}
	if !index.IsConfig(m.Config.MediaType) || n.ArtifactType != "" && !index.IsConfig(n.ArtifactType) {
		n.Kind = NodeArtifact
		if n.ArtifactType == "" {
			n.ArtifactType = m.Config.MediaType
		}
		return nil
	}
	if n.Platform != "" {
		return nil
	}
	c, err := source.ReadConfig(ctx, g.r.img, m)
	if err == nil {
		n.Platform = c.Platform.String()
	}
	return g.lost(n, err)
}

func (n *Node) name() string {
	if n.Platform != "" {
		return n.Platform
	}
	return n.Digest.String()
}

// total adds up what each node reaches.
func (n *Node) total() {
	own := map[digest.Digest]int64{}
	var walk func(n *Node)
	walk = func(n *Node) {
		own[n.Digest] = n.Size
		if n.Config != nil {
			own[n.Config.Digest] = n.Config.Size
		}
		for _, l := range n.Layers {
			own[l.Digest] = l.Size
		}
		for _, c := range n.Children {
			walk(c)
		}
	}
	walk(n)
	n.Total = 0
	for _, size := range own {
		n.Total += size
	}
	for _, c := range n.Children {
		c.total()
	}
}

// renderTree prints the tree.
func renderTree(ctx context.Context, r *reader) error {
	root, err := r.tree(ctx)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", visible(r.res.Name))
	root.print(&b, "", "", map[digest.Digest]string{})
	r.res.out = b.Bytes()
	return nil
}

// renderTreeJSON writes the tree as JSON.
func renderTreeJSON(ctx context.Context, r *reader) error {
	root, err := r.tree(ctx)
	if err != nil {
		return err
	}
	text, err := indented(root)
	r.res.out = []byte(text + "\n")
	return err
}

// print writes a node and what is below it: head goes before its first line, rest before the others.
func (n *Node) print(b *bytes.Buffer, head, rest string, platforms map[digest.Digest]string) {
	for _, c := range n.Children {
		if c.Kind == NodeImage {
			platforms[c.Digest] = c.Platform
		}
	}
	fmt.Fprintf(b, "%s%s\n", head, visible(n.title(platforms)))
	inner := rest + "   "
	if len(n.Children) > 0 {
		inner = rest + "│  "
	}
	fmt.Fprintf(b, "%s%s\n", inner, n.Digest)
	n.details(b, inner)
	for i, c := range n.Children {
		if i == len(n.Children)-1 {
			c.print(b, rest+"└─ ", rest+"   ", platforms)
		} else {
			c.print(b, rest+"├─ ", rest+"│  ", platforms)
		}
	}
}

func (n *Node) title(platforms map[digest.Digest]string) string {
	var parts []string
	add := func(format string, a ...any) { parts = append(parts, fmt.Sprintf(format, a...)) }
	switch n.Kind {
	case NodeIndex:
		if n.Repeated {
			add("index, as above")
			break
		}
		add("index of %d, %s, %s in all", len(n.Children), n.MediaType, humanSize(n.Total))
	case NodeImage:
		name := n.Platform
		if name == "" {
			name = "image of unknown platform"
		}
		layers := "1 layer"
		if len(n.Layers) != 1 {
			layers = fmt.Sprintf("%d layers", len(n.Layers))
		}
		add("%s, %s, %s in all", name, layers, humanSize(n.Total))
	case NodeAttestation:
		of := platforms[n.Attests]
		if of == "" {
			of = string(n.Attests)
		}
		if of == "" {
			of = "?"
		}
		add("attestation of %s, %s in all", of, humanSize(n.Total))
	case NodeArtifact:
		add("artifact %s, %s in all", n.ArtifactType, humanSize(n.Total))
	default:
		add("%s, %s", n.MediaType, humanSize(n.Size))
	}
	if n.Kind == NodeImage && n.MediaType != ocispec.MediaTypeImageManifest {
		add("%s", n.MediaType)
	}
	if n.Missing {
		add("missing or broken")
	}
	return strings.Join(parts, ", ")
}

// details are the lines below a title.
func (n *Node) details(b *bytes.Buffer, indent string) {
	line := func(format string, a ...any) { fmt.Fprintf(b, "%s%s\n", indent, visible(fmt.Sprintf(format, a...))) }
	for _, p := range n.Predicates {
		line("states %s", p)
	}
	if n.Subject != nil {
		line("subject %s", n.Subject.Digest)
	}
	if n.ArtifactType != "" && n.Kind != NodeArtifact {
		line("artifactType %s", n.ArtifactType)
	}
	annotations := func(what string, all map[string]string) {
		for _, k := range slices.Sorted(maps.Keys(all)) {
			line("%s %s=%s", what, k, all[k])
		}
	}
	annotations("entry annotation", n.Entry)
	annotations("annotation", n.Annotations)
	for _, l := range n.Layers {
		if n.Kind != NodeAttestation {
			line("layer %s  %s  %s", l.Digest, humanSize(l.Size), shortType(l.MediaType))
		}
		annotations("   annotation", l.Annotations)
	}
}

// shortType is a layer's media type without what all of them begin with.
func shortType(mt string) string {
	for _, prefix := range []string{"application/vnd.oci.image.layer.v1.", "application/vnd.docker.image.rootfs.diff."} {
		if rest, ok := strings.CutPrefix(mt, prefix); ok {
			return rest
		}
	}
	return mt
}

package serve

import (
	"fmt"
	"mime"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

const (
	maxManifest    = 4 << 20 // bytes; what every registry must accept, and no more
	maxDescriptors = 10_000
	maxTypeLength  = 255 // of a media type

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// document is a manifest or index that was parsed: its bytes, what it is, and
// what it names.
type document struct {
	ocispec.Descriptor // of the document itself, with its artifact type and annotations
	raw                []byte
	needs              []need
	subject            digest.Digest // "" when it has none
}

// need is something that must be in the repository before the document.
type need struct {
	digest digest.Digest
	size   int64
	what   string // "layer"
	child  bool   // of an index: a manifest, or a blob
}

// fields is what a registry reads of any manifest.
type fields struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        *ocispec.Descriptor  `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Blobs         []ocispec.Descriptor `json:"blobs"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
	Subject       *ocispec.Descriptor  `json:"subject"`
	Annotations   map[string]string    `json:"annotations"`
}

// parseDocument reads a manifest as strictly as its readers may differ: what one
// takes for an image and another for an index is neither.
func parseDocument(contentType string, raw []byte) (*document, error) {
	var f fields
	if _, err := jsontree.Decode(raw, &f); err != nil {
		return nil, err
	}
	d := &document{raw: raw}
	var err error
	if d.MediaType, err = documentType(contentType, &f); err != nil {
		return nil, err
	}
	d.Digest, d.Size = digest.FromBytes(raw), int64(len(raw))
	d.ArtifactType, d.Annotations = f.ArtifactType, f.Annotations
	if d.ArtifactType == "" && f.Config != nil {
		d.ArtifactType = f.Config.MediaType
	}
	if n := len(f.Layers) + len(f.Blobs) + len(f.Manifests); n > maxDescriptors {
		return nil, fmt.Errorf("it names %d things: at most %d are allowed", n, maxDescriptors)
	}
	if f.Subject != nil {
		if err := f.Subject.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("subject: %w", err)
		}
		d.subject = f.Subject.Digest
	}
	return d, d.collect(&f)
}

// documentType settles what the document is: by its header, which the document
// must not contradict, else by itself.
func documentType(contentType string, f *fields) (string, error) {
	header, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		header = ""
	}
	index, image := f.Manifests != nil, f.Layers != nil || f.Config != nil || f.Blobs != nil
	t := header
	switch {
	case f.SchemaVersion == 1 || strings.HasPrefix(header, "application/vnd.docker.distribution.manifest.v1+"):
		return "", fmt.Errorf("manifests of schema 1 are not accepted")
	case index && image:
		return "", fmt.Errorf("it is ambiguous: it has manifests as well as a config, layers or blobs")
	case f.MediaType != "" && isType(header) && f.MediaType != header:
		return "", fmt.Errorf("Content-Type is %q, and its mediaType %q", header, f.MediaType)
	case !isType(header) && isType(f.MediaType):
		t = f.MediaType
	case !isType(header) && f.MediaType != "":
		return "", fmt.Errorf("its mediaType %q is not one of manifests", f.MediaType)
	case !isType(header) && index:
		t = ocispec.MediaTypeImageIndex
	case !isType(header) && image:
		t = ocispec.MediaTypeImageManifest
	case !isType(header):
		return "", fmt.Errorf("it is no manifest")
	}
	switch t {
	case ocispec.MediaTypeImageIndex, dockerList:
		if image {
			return "", fmt.Errorf("it says it is an index, and has a config, layers or blobs")
		}
	case ocispec.MediaTypeImageManifest, dockerManifest:
		if index || f.Config == nil {
			return "", fmt.Errorf("it says it is an image, and has manifests or no config")
		}
	}
	return t, nil
}

// isType reports whether a Content-Type says which kind of manifest follows.
func isType(t string) bool {
	// It becomes a header of every answer: the restricted names of RFC 6838 have no other characters.
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$&-^_.+", r)
	}
	rest, ok := strings.CutPrefix(t, "application/vnd.")
	return ok && strings.HasSuffix(rest, "+json") && len(t) <= maxTypeLength && !strings.ContainsFunc(rest, odd)
}

func (d *document) collect(f *fields) error {
	add := func(what string, child bool, list ...ocispec.Descriptor) error {
		for i, desc := range list {
			if err := desc.Digest.Validate(); err != nil {
				return fmt.Errorf("%s %d: %w", what, i, err)
			}
			if desc.Size < 0 {
				return fmt.Errorf("%s %d: negative size", what, i)
			}
			if isForeign(desc) {
				continue
			}
			d.needs = append(d.needs, need{desc.Digest, desc.Size, what, child})
		}
		return nil
	}
	if f.Config != nil {
		if err := add("config", false, *f.Config); err != nil {
			return err
		}
	}
	if err := add("layer", false, f.Layers...); err != nil {
		return err
	}
	if err := add("blob", false, f.Blobs...); err != nil {
		return err
	}
	return add("manifest", true, f.Manifests...)
}

// isForeign reports a layer that may be fetched elsewhere and need not be here.
func isForeign(d ocispec.Descriptor) bool {
	return len(d.URLs) > 0 || strings.Contains(d.MediaType, ".nondistributable.") || strings.Contains(d.MediaType, ".foreign.")
}

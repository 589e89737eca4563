package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
)

// manifestData is .Manifest: the document and its descriptor in one, as `docker buildx imagetools inspect` has it.
type manifestData struct {
	SchemaVersion int                  `json:"schemaVersion,omitempty"`
	MediaType     string               `json:"mediaType"`
	Digest        digest.Digest        `json:"digest"`
	Size          int64                `json:"size"`
	ArtifactType  string               `json:"artifactType,omitempty"`
	Config        *ocispec.Descriptor  `json:"config,omitempty"`
	Layers        []ocispec.Descriptor `json:"layers,omitempty"`
	Manifests     []ocispec.Descriptor `json:"manifests,omitempty"`
	Subject       *ocispec.Descriptor  `json:"subject,omitempty"`
	Annotations   map[string]string    `json:"annotations,omitempty"`
}

func (r *reader) manifestData() (manifestData, error) {
	if err := r.document(); err != nil {
		return manifestData{}, err
	}
	d := manifestData{MediaType: r.res.Desc.MediaType, Digest: r.res.Desc.Digest, Size: int64(len(r.res.Raw))}
	if idx := r.res.Index; idx != nil {
		d.SchemaVersion, d.ArtifactType, d.Manifests = idx.SchemaVersion, idx.ArtifactType, idx.Manifests
		d.Subject, d.Annotations = idx.Subject, idx.Annotations
		return d, nil
	}
	m := r.res.Manifest
	d.SchemaVersion, d.ArtifactType, d.Config, d.Layers = m.SchemaVersion, m.ArtifactType, &m.Config, m.Layers
	d.Subject, d.Annotations = m.Subject, m.Annotations
	return d, nil
}

// configs maps platforms to configs; of two for one platform the first counts.
func (r *Result) configs() map[string]*Config {
	m := make(map[string]*Config, len(r.Images))
	for _, img := range r.Images {
		if _, ok := m[img.Platform.String()]; !ok && img.Config != nil && !img.Platform.IsZero() {
			m[img.Platform.String()] = img.Config
		}
	}
	return m
}

// indexData is what a template sees of an index. Image and Manifest are read when the template asks for them.
type indexData struct {
	Name string
	ctx  context.Context //nolint:containedctx // a template's methods take no arguments
	r    *reader
}

// Manifest is the index.
func (d indexData) Manifest() (manifestData, error) { return d.r.manifestData() }

// Image is the configs by platform.
func (d indexData) Image() (map[string]*Config, error) {
	err := d.r.images(d.ctx)
	return d.r.res.configs(), err
}

// MarshalJSON is for {{json .}}.
func (d indexData) MarshalJSON() ([]byte, error) {
	m, err := d.Manifest()
	if err != nil {
		return nil, err
	}
	images, err := d.Image()
	if err != nil {
		return nil, err
	}
	return jsontree.Marshal(struct {
		Name     string             `json:"name"`
		Manifest manifestData       `json:"manifest"`
		Image    map[string]*Config `json:"image"`
	}{d.Name, m, images})
}

// imageData is what a template sees of a single image: the config's fields as well.
type imageData struct {
	Name     string
	Manifest manifestData
	fields
	config *Config
}

// fields lends its fields to templates: {{.Architecture}}, {{.Config.Labels}}.
type fields struct{ ocispec.Image }

// Image is the config; nil of an artifact.
func (d imageData) Image() *Config { return d.config }

// MarshalJSON is for {{json .}}.
func (d imageData) MarshalJSON() ([]byte, error) {
	return jsontree.Marshal(struct {
		Name     string       `json:"name"`
		Manifest manifestData `json:"manifest"`
		Image    *Config      `json:"image,omitempty"`
	}{d.Name, d.Manifest, d.config})
}

// Functions are what templates of --format can call, named as docker's are.
func Functions() template.FuncMap { return maps.Clone(functions) }

// functions are what templates can call, named as docker's are.
var functions = template.FuncMap{
	"json":  indented,
	"join":  strings.Join,
	"split": strings.Split,
	"upper": strings.ToUpper,
	"lower": strings.ToLower,
	"title": func(s string) string {
		before := ' '
		return strings.Map(func(r rune) rune {
			defer func() { before = r }()
			if unicode.IsSpace(before) {
				return unicode.ToTitle(r)
			}
			return r
		}, s)
	},
	"pad": func(s string, prefix, suffix int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", max(prefix, 0)) + s + strings.Repeat(" ", max(suffix, 0))
	},
	"truncate": func(s string, n int) string {
		runes := []rune(s)
		return string(runes[:min(max(n, 0), len(runes))])
	},
	"println": fmt.Sprintln,
}

// indented is JSON as buildx prints it.
func indented(v any) (string, error) {
	raw, err := jsontree.Marshal(v)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = json.Indent(&b, raw, "", "  ")
	return b.String(), err
}

// templateRenderer checks a template and returns what executes it.
func templateRenderer(text string) (renderer, error) {
	t, err := template.New("--format").Funcs(functions).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return func(ctx context.Context, r *reader) error {
		if err := r.document(); err != nil {
			return err
		}
		var data any
		if r.res.Index != nil {
			data = indexData{Name: r.res.Name, ctx: ctx, r: r}
		} else {
			if err := r.images(ctx); err != nil {
				return err
			}
			m, err := r.manifestData()
			if err != nil {
				return err
			}
			d := imageData{Name: r.res.Name, Manifest: m}
			if len(r.res.Images) == 1 && r.res.Images[0].Config != nil {
				d.config = r.res.Images[0].Config
				d.fields.Image = d.config.Image
			}
			data = d
		}
		var b bytes.Buffer
		if err := t.Execute(&b, data); err != nil {
			// An error of reading the image keeps its kind; any other is the template's.
			var exec template.ExecError
			if errors.As(err, &exec) && errors.Unwrap(exec.Err) == nil {
				return fmt.Errorf("%w: %w", ErrFormat, err)
			}
			return err
		}
		if !bytes.HasSuffix(b.Bytes(), []byte("\n")) {
			b.WriteByte('\n')
		}
		r.res.out = b.Bytes()
		return nil
	}, nil
}

// jsonImage is a row of the table for scripts.
type jsonImage struct {
	Platform string        `json:"platform,omitempty"`
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size"` // of the layers
	Layers   int           `json:"layers"`
	Created  string        `json:"created,omitempty"`
}

type jsonAttestation struct {
	Digest  digest.Digest `json:"digest"`
	Attests digest.Digest `json:"attests,omitempty"`
}

// renderJSON prints everything there is to know.
func renderJSON(ctx context.Context, r *reader) error {
	if err := r.images(ctx); err != nil {
		return err
	}
	m, err := r.manifestData()
	if err != nil {
		return err
	}
	out := struct {
		Name string `json:"name"`
		manifestData
		Platforms    []jsonImage       `json:"platforms"`
		Attestations []jsonAttestation `json:"attestations,omitempty"`
		Image        any               `json:"image,omitempty"`
		Warnings     []string          `json:"warnings,omitempty"`
	}{Name: r.res.Name, manifestData: m, Platforms: []jsonImage{}, Warnings: r.res.Warnings}
	for _, img := range r.res.Images {
		row := jsonImage{Digest: img.Desc.Digest, Size: img.Size, Layers: img.Layers}
		if !img.Platform.IsZero() {
			row.Platform = img.Platform.String()
		}
		if !img.Created.IsZero() {
			row.Created = img.Created.UTC().Format(time.RFC3339Nano)
		}
		out.Platforms = append(out.Platforms, row)
	}
	for _, a := range r.res.Attestations {
		out.Attestations = append(out.Attestations, jsonAttestation{a.Desc.Digest, a.Attests})
	}
	if r.res.Index != nil {
		out.Image = r.res.configs()
	} else if len(r.res.Images) == 1 {
		out.Image = r.res.Images[0].Config
	}
	text, err := indented(out)
	if err != nil {
		return err
	}
	r.res.out = []byte(text + "\n")
	return nil
}

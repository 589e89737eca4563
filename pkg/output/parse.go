package output

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// draft is a Spec while its attributes are read.
type draft struct {
	Spec
	algorithm, level    string
	pushSaid, typesSaid bool
}

// Parse reads one -o argument in buildx's grammar (CSV of key=value, or a path).
// A path without a key is type=local, "-" is type=tar on stdout. Every error is of kind [ErrInvalid].
func Parse(s string) (Spec, error) {
	spec, err := parse(s)
	if err != nil {
		return Spec{}, fmt.Errorf("%w %.200q: %w", ErrInvalid, s, err)
	}
	return spec, nil
}

func parse(s string) (Spec, error) {
	fields, err := splitCSV(s)
	if err != nil {
		return Spec{}, err
	}
	if len(fields) == 1 && fields[0] == s && !isPair(s) {
		if s == "-" {
			return Spec{Type: "tar", Dest: "-"}, nil
		}
		if strings.ContainsRune(s, 0) {
			return Spec{}, fmt.Errorf("%q is no path", s)
		}
		return Spec{Type: "local", Dest: s}, nil
	}
	d := draft{}
	pairs := make([][2]string, 0, len(fields))
	seen := map[string]bool{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		if !ok {
			return Spec{}, fmt.Errorf("%.100q is not KEY=VALUE", f)
		}
		if seen[key] && key != "name" {
			return Spec{}, fmt.Errorf("%.100s is given twice", key)
		}
		seen[key] = true
		if key == "type" {
			d.Type = strings.TrimSpace(value)
		} else {
			pairs = append(pairs, [2]string{key, value})
		}
	}
	if d.Type == "" {
		return Spec{}, errors.New("the type is missing: write type=image, registry, oci, docker, local or tar")
	}
	k, err := kindOf(d.Type)
	if err != nil {
		return Spec{}, err
	}
	for _, p := range pairs {
		if err := d.set(k, p[0], p[1]); err != nil {
			return Spec{}, err
		}
	}
	return d.finish()
}

// isPair tells "type=oci" and "dest=x" from a path.
func isPair(s string) bool {
	key, _, ok := strings.Cut(s, "=")
	if _, known := attribute(key); known || key == "type" {
		return ok
	}
	return s == ""
}

// splitCSV splits as buildx does: commas, and quotes around fields that hold commas.
func splitCSV(s string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(s))
	fields, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty: write a directory, or type=KIND,KEY=VALUE and so on")
	}
	if err != nil {
		return nil, fmt.Errorf("not a list of KEY=VALUE: %w", err)
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one line")
	}
	return fields, nil
}

func (d *draft) set(k kind, key, value string) error {
	a, known := attribute(key)
	switch {
	case known && k.has(key):
		if err := a.set(d, value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	case known:
		return fmt.Errorf("type=%s has no attribute %s: it has %s", k.name, key, strings.ReplaceAll(k.attributes, " ", ", "))
	case strings.HasPrefix(key, "annotation"):
		return fmt.Errorf("%.100s: give annotations by --annotation, or in the spec", key)
	case elsewhere[key] != "":
		return fmt.Errorf("%s is not supported: %s", key, elsewhere[key])
	}
	if best := nearest(key, strings.Fields(k.attributes)); best != "" {
		return fmt.Errorf("unknown attribute %.100q: did you mean %s?", key, best)
	}
	return fmt.Errorf("unknown attribute %.100q: type=%s has %s", key, k.name, strings.ReplaceAll(k.attributes, " ", ", "))
}

// finish applies defaults and checks what attributes say together.
func (d *draft) finish() (Spec, error) {
	var err error
	if d.algorithm != "" || d.level != "" {
		if d.Compression, err = layer.ParseCompression(d.algorithm, d.level); err != nil {
			return Spec{}, fmt.Errorf("compression: %w", err)
		}
	}
	switch d.Type {
	case "registry":
		if d.pushSaid && !d.Push {
			return Spec{}, errors.New("type=registry with push=false: use type=image")
		}
		d.Push = true
	case "docker":
		// As BuildKit has it: Docker's media types have none for zstd.
		if !d.typesSaid {
			d.DockerTypes = d.Compression.Algorithm != layer.Zstd
		}
	}
	if d.PushByDigest && !d.Push {
		return Spec{}, errors.New("push-by-digest=true without push=true")
	}
	if _, err := d.Compression.MediaType(d.DockerTypes); err != nil {
		return Spec{}, err
	}
	switch d.Type {
	case "tar", "docker", "oci":
		if d.Dest == "" && !d.Dir {
			d.Dest = "-"
		}
	}
	return d.Spec, nil
}

package remotecache

import (
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// ErrInvalid is the kind of errors of --cache-to and --cache-from.
var ErrInvalid = errors.New("invalid cache")

// The types of caches.
const (
	TypeRegistry = "registry" // a tag of a registry
	TypeLocal    = "local"    // a directory: an OCI layout
	TypeInline   = "inline"   // in the configs of the images themselves
)

// defaultTag names the cache in a directory.
const defaultTag = "latest"

// Spec is a parsed --cache-to or --cache-from.
type Spec struct {
	Type        string
	Ref         ref.Ref // zero for inline
	Max         bool    // mode=max: every step; else those that are layers of the images
	IgnoreError bool    // an error is a warning
}

// String is the spec as in messages.
func (s Spec) String() string {
	if s.Type == TypeInline {
		return "the inline cache"
	}
	return "the cache " + s.Ref.String()
}

// ParseTo reads --cache-to: "type=registry,ref=HOST/REPO:TAG[,mode=min|max][,ignore-error=BOOL]", "type=local,dest=DIR[,tag=TAG]",
// "type=inline", or the reference of a registry alone.
func ParseTo(text string) (Spec, error) { return parse(text, true) }

// ParseFrom reads --cache-from: "type=registry,ref=HOST/REPO:TAG", "type=local,src=DIR[,tag=TAG]", or a reference alone. The
// reference may be an image with an inline cache.
func ParseFrom(text string) (Spec, error) { return parse(text, false) }

func parse(text string, to bool) (Spec, error) {
	fail := func(format string, a ...any) (Spec, error) {
		return Spec{}, fmt.Errorf("%w %q: %s", ErrInvalid, text, fmt.Sprintf(format, a...))
	}
	if !strings.Contains(text, "=") {
		text = "type=registry,ref=" + text
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fail("want key=value,... : %v", err)
	}
	s := Spec{}
	attrs := map[string]string{}
	for _, f := range fields {
		key, value, ok := strings.Cut(f, "=")
		if !ok {
			return fail("%q is no key=value", f)
		}
		attrs[strings.ToLower(strings.TrimSpace(key))] = value
	}
	take := func(key string) string {
		v := attrs[key]
		delete(attrs, key)
		return v
	}
	switch s.Type = take("type"); s.Type {
	case TypeRegistry:
		name := take("ref")
		if name == "" {
			return fail("ref=HOST/REPO:TAG is missing")
		}
		if s.Ref, err = ref.ParseTag(name); err == nil && s.Ref.Kind != ref.Registry {
			err = fmt.Errorf("%s is no reference of a registry", s.Ref)
		}
	case TypeLocal:
		key := "src"
		if to {
			key = "dest"
		}
		dir, tag := take(key), take("tag")
		if dir == "" {
			return fail("%s=DIR is missing", key)
		}
		if tag == "" {
			tag = defaultTag
		}
		if err = ref.CheckTag(tag); err == nil {
			s.Ref = ref.Ref{Kind: ref.OCILayout, Path: dir, Tag: tag}
		}
	case TypeInline:
		if !to {
			return fail("an inline cache is read by the image that has it: type=registry,ref=IMAGE")
		}
	case "gha", "s3", "azblob":
		return fail("type=%s needs a service of its own and is not supported: use registry, local or inline", s.Type)
	default:
		return fail("type %q: want registry, local or inline", s.Type)
	}
	if err != nil {
		return fail("%v", err)
	}
	if to {
		switch mode := take("mode"); mode {
		case "", "min":
		case "max":
			if s.Type == TypeInline {
				return fail("an inline cache has the layers of the images only: mode=max cannot be")
			}
			s.Max = true
		default:
			return fail("mode %q: want min or max", mode)
		}
	}
	if v := take("ignore-error"); v != "" {
		if s.IgnoreError, err = strconv.ParseBool(v); err != nil {
			return fail("ignore-error=%s: want true or false", v)
		}
	}
	// What buildx's users write and what decides nothing here: caches are always OCI manifests with layers as they are pushed.
	for _, key := range []string{"oci-mediatypes", "image-manifest", "compression", "compression-level", "force-compression"} {
		take(key)
	}
	for key := range attrs {
		return fail("unknown key %q", key)
	}
	return s, nil
}

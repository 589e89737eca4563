package transfer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// AnnotationLevel is where an annotation is put.
type AnnotationLevel string

// The levels, as buildx names them.
const (
	LevelIndex              AnnotationLevel = "index"               // of the index
	LevelManifest           AnnotationLevel = "manifest"            // of an image's manifest, which becomes another
	LevelIndexDescriptor    AnnotationLevel = "index-descriptor"    // of the entry for the index, in a layout
	LevelManifestDescriptor AnnotationLevel = "manifest-descriptor" // of an image's entry in the index
)

var levels = []AnnotationLevel{LevelIndex, LevelManifest, LevelIndexDescriptor, LevelManifestDescriptor}

// Annotation is one annotation with its place.
type Annotation struct {
	Level    AnnotationLevel
	Platform *platform.Platform // of images; nil: all
	Key      string
	Value    string
}

// ParseAnnotation reads [LEVEL[[PLATFORM]][,LEVEL...]:]KEY=VALUE. Without a level it is for the index.
func ParseAnnotation(s string) ([]Annotation, error) {
	fail := func(format string, a ...any) ([]Annotation, error) {
		return nil, fmt.Errorf("%w: annotation %q: %s", ErrInvalid, s, fmt.Sprintf(format, a...))
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return fail("want [LEVEL:]KEY=VALUE")
	}
	words := string(LevelIndex)
	if before, after, found := cutLevels(key); found {
		words, key = before, after
	}
	if key == "" {
		return fail("the key is missing")
	}
	var out []Annotation
	for word := range strings.SplitSeq(words, ",") {
		a := Annotation{Key: key, Value: value}
		name, rest, bracket := strings.Cut(word, "[")
		a.Level = AnnotationLevel(strings.TrimSpace(name))
		if !slices.Contains(levels, a.Level) {
			return fail("%q is none of %s", name, strings.Join(levelNames(), ", "))
		}
		if bracket {
			inside, closed := strings.CutSuffix(rest, "]")
			if !closed {
				return fail("%q has no end", word)
			}
			if a.Level == LevelIndex || a.Level == LevelIndexDescriptor {
				return fail("an index has no platform")
			}
			p, err := platform.Parse(inside)
			if err != nil {
				return nil, fmt.Errorf("annotation %q: %w", s, err)
			}
			a.Platform = &p
		}
		out = append(out, a)
	}
	return out, nil
}

// cutLevels splits "index,manifest[linux/arm64]:KEY". A key may hold colons: what stands before the first one counts
// as levels only when it begins with the name of one.
func cutLevels(key string) (before, after string, found bool) {
	end := 0
	for depth := 0; end < len(key); end++ {
		switch key[end] {
		case '[':
			depth++
		case ']':
			depth--
		}
		if key[end] == ':' && depth <= 0 {
			break
		}
	}
	if end == len(key) {
		return "", "", false
	}
	first, _, _ := strings.Cut(key[:end], ",")
	first, _, _ = strings.Cut(first, "[")
	if !slices.Contains(levels, AnnotationLevel(strings.TrimSpace(first))) {
		return "", "", false
	}
	return key[:end], key[end+1:], true
}

func levelNames() []string {
	out := make([]string, len(levels))
	for i, l := range levels {
		out[i] = string(l)
	}
	return out
}

// AnnotationsFor collects the annotations of a level, for the image of a platform; nil is for what has none.
func AnnotationsFor(all []Annotation, level AnnotationLevel, p *platform.Platform) map[string]string {
	return annotationsOf(all, level, p)
}

// annotationsOf collects the annotations of a level, for a platform.
func annotationsOf(all []Annotation, level AnnotationLevel, p *platform.Platform) map[string]string {
	var out map[string]string
	for _, a := range all {
		if a.Level != level || a.Platform != nil && (p == nil || *a.Platform != *p) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[a.Key] = a.Value
	}
	return out
}

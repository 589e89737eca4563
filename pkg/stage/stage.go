// Package stage is the ledger of builds that are spread over machines: each machine leaves the image of its platform in
// the repository under a tag of its own, _stage.ID.OS-ARCH[-VARIANT], and [Merge] makes one index of them once all that
// are expected are there. Nothing else passes between the machines.
//
// What a machine leaves is a record: a small index of its image and what attests it, with what the build says about the
// whole index. An image that another program pushed to such a tag counts as well.
//
// # Invariants
//
//   - A record is written by one machine for one platform; no object is shared, so there is nothing to race for.
//   - Merge reads the tags that it is told to expect, and lists none: a registry's list may lag.
//   - The destination becomes the index of all required platforms, or stays as it was.
//   - Equal images give the index that a build of all platforms on one machine gives.
package stage

import (
	"errors"
	"fmt"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// The kinds of errors.
var (
	// ErrInvalid is an ID, or something under a stage's tag, that cannot be used.
	ErrInvalid = errors.New("invalid stage")
	// ErrMissing says that an expected image is not there.
	ErrMissing = errors.New("not staged")
)

// prefix begins the tags of stages.
const prefix = transfer.StagePrefix

// The annotations of records. None of them is in what is made of records.
const (
	annotations       = "io.github.manifestctl.stage."
	annotationID      = annotations + "id"
	annotationCreated = annotations + "created" // RFC 3339: so that no two records have one digest, and old ones are found
)

// AnnotationMissing is on an index for which optional platforms were missing: their names, with commas between them.
const AnnotationMissing = "io.github.manifestctl.missing-platforms"

// maxTag is how long a tag may be (distribution specification, "Pulling manifests").
const maxTag = 128

// maxID leaves room for the longest platform.
const maxID = 80

// CheckID reports what is wrong with an ID, or nil; the error is of kind ErrInvalid. An ID is of letters, digits, '_', '.'
// and '-', which may stand at its beginning too.
func CheckID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: the ID is empty", ErrInvalid)
	case len(id) > maxID:
		return fmt.Errorf("%w: the ID %.20q... is longer than %d characters", ErrInvalid, id, maxID)
	}
	if err := ref.CheckTag(prefix + id); err != nil {
		return fmt.Errorf("%w: the ID %q is to be a part of a tag: letters, digits, '_', '.' and '-'", ErrInvalid, id)
	}
	return nil
}

// Tag is the tag of a platform's image in stage id.
func Tag(id string, p platform.Platform) (string, error) {
	if err := CheckID(id); err != nil {
		return "", err
	}
	if p.IsZero() || p.OSVersion != "" || p.OSFeatures != "" {
		return "", fmt.Errorf("%w: %s has no place in a stage: its tags are for OS/ARCH[/VARIANT]", ErrInvalid, p)
	}
	tag := prefix + id + "." + strings.ReplaceAll(p.String(), "/", "-")
	if err := ref.CheckTag(tag); err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return tag, nil
}

// IsTag reports whether a tag is a stage's and no name of a result.
func IsTag(tag string) bool { return strings.HasPrefix(tag, prefix) }

// ParseTag is the reverse of Tag; ok is false for any other tag.
func ParseTag(tag string) (id string, p platform.Platform, ok bool) {
	rest, ok := strings.CutPrefix(tag, prefix)
	at := strings.LastIndexByte(rest, '.')
	if !ok || at <= 0 || len(tag) > maxTag {
		return "", p, false
	}
	id = rest[:at]
	p, err := platform.Parse(strings.ReplaceAll(rest[at+1:], "-", "/"))
	if err != nil {
		return "", p, false
	}
	back, err := Tag(id, p)
	return id, p, err == nil && back == tag
}

// Record makes what a machine leaves under its tag: an index of entries, the image of one platform and what attests it,
// with the annotations that the whole index is to have.
func Record(id string, entries []ocispec.Descriptor, all map[string]string, at time.Time) (ocispec.Descriptor, []byte, error) {
	set := map[string]string{annotationID: id, annotationCreated: at.UTC().Format(time.RFC3339Nano)}
	for k, v := range all {
		if !strings.HasPrefix(k, annotations) {
			set[k] = v
		}
	}
	return index.Assemble(entries, index.Options{Annotations: set})
}

// created is when a record was made; zero for what is no record.
func created(set map[string]string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, set[annotationCreated])
	if err != nil {
		return time.Time{}
	}
	return at
}

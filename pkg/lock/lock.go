// Package lock is manifestctl.lock: what the names of base images meant when a build was locked. With it in version
// control "the same inputs" is a file. It does no I/O but reading and writing that file.
//
// # Invariants
//
//   - A File is written with sorted keys: equal content is equal bytes.
//   - What was read and is written again keeps every entry that was not changed.
package lock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Name is the file's name, beside the spec or the Dockerfile.
const Name = "manifestctl.lock"

// The kinds of errors.
var (
	ErrInvalid = errors.New("invalid lock file")
	// ErrNotLocked says that a build may only use what is locked, and something is not.
	ErrNotLocked = errors.New("not locked")
	// ErrChanged says that a name means something else than is locked.
	ErrChanged = errors.New("not what is locked")
)

// maxSize bounds the file.
const maxSize = 16 << 20

// File is the content of a lock file.
type File struct {
	Version int              `json:"version"`
	Images  map[string]Image `json:"images"` // by the reference that is used, normalised, without its digest
}

// Image is what a reference means.
type Image struct {
	Digest    digest.Digest            `json:"digest"`    // of the manifest or index that the name led to
	Platforms map[string]digest.Digest `json:"platforms"` // of the manifest for each platform that was locked
}

// version is that of the files written here.
const version = 1

// Read reads the lock file in dir; one that is not there is empty.
func Read(dir string) (*File, error) {
	name := filepath.Join(dir, Name)
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &File{Version: version}, nil
	case err != nil:
		return nil, fmt.Errorf("reading the lock file: %w", err)
	case info.Size() > maxSize:
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrInvalid, name, info.Size())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the lock file: %w", err)
	}
	f, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Parse reads the content of a lock file. Unknown fields are an error: a newer file may say more than can be kept.
func Parse(b []byte) (*File, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var f File
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: something follows the object", ErrInvalid)
	}
	if f.Version != version {
		return nil, fmt.Errorf("%w: version %d, and only %d is known", ErrInvalid, f.Version, version)
	}
	for ref, img := range f.Images {
		if err := img.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, ref, err)
		}
		for p, d := range img.Platforms {
			if err := d.Validate(); err != nil {
				return nil, fmt.Errorf("%w: %s for %s: %w", ErrInvalid, ref, p, err)
			}
		}
	}
	return &f, nil
}

// Bytes is f as it is written.
func (f *File) Bytes() ([]byte, error) {
	out := File{Version: version, Images: f.Images}
	if out.Images == nil {
		out.Images = map[string]Image{}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("writing the lock file: %w", err)
	}
	return append(b, '\n'), nil
}

// Set records what ref means for one platform. Another digest than before drops what was known of the other platforms.
func (f *File) Set(ref string, root digest.Digest, platform string, manifest digest.Digest) {
	if f.Images == nil {
		f.Images = map[string]Image{}
	}
	img := f.Images[ref]
	if img.Digest != root {
		img = Image{Digest: root}
	}
	if img.Platforms = maps.Clone(img.Platforms); img.Platforms == nil {
		img.Platforms = map[string]digest.Digest{}
	}
	img.Platforms[platform] = manifest
	f.Images[ref] = img
}

// Check compares what ref turned out to be for one platform with the lock. Nothing is known of what is not in it.
func (f *File) Check(ref, platform string, manifest digest.Digest) error {
	img, ok := f.Images[ref]
	if !ok {
		return nil
	}
	if want, ok := img.Platforms[platform]; ok && want != manifest {
		return fmt.Errorf("%w: %s for %s is %s, and %s is locked", ErrChanged, ref, platform, manifest, want)
	}
	return nil
}

// Merge lays what was found over what was locked and says what is new, sorted.
func Merge(old, found *File) (*File, []string) {
	out := &File{Version: version, Images: maps.Clone(old.Images)}
	var changes []string
	for _, ref := range slices.Sorted(maps.Keys(found.Images)) {
		was, is := old.Images[ref], found.Images[ref]
		for _, p := range slices.Sorted(maps.Keys(is.Platforms)) {
			out.Set(ref, is.Digest, p, is.Platforms[p])
		}
		switch {
		case was.Digest == "":
			changes = append(changes, fmt.Sprintf("%s %s", ref, is.Digest))
		case was.Digest != is.Digest:
			changes = append(changes, fmt.Sprintf("%s %s -> %s", ref, was.Digest, is.Digest))
		case len(out.Images[ref].Platforms) != len(was.Platforms):
			changes = append(changes, ref+" for more platforms")
		}
	}
	return out, changes
}

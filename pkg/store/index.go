package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// reindex writes index.json if it is not what the refs say. The caller holds gc.lock.
func (s *Store) reindex(ctx context.Context) error {
	unlock, err := s.lockPath(ctx, indexLock)
	if err != nil {
		return err
	}
	defer unlock()
	return s.writeIndex()
}

// writeIndex writes index.json from the refs. It is the store's face to other
// tools and nothing here reads it. The caller holds index.lock.
func (s *Store) writeIndex() error {
	want, err := s.indexOfRefs()
	if err != nil {
		return err
	}
	if have, err := readSmall(s.path(indexFile)); err != nil || !bytes.Equal(have, want) {
		// After a power cut the next Open writes it again, if it can know of that.
		if err := s.replaceFile(indexFile, want, bootID() == ""); err != nil {
			return fmt.Errorf("writing %s: %w", indexFile, err)
		}
	}
	if err := os.Remove(s.path(indexStale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// indexOfRefs is the index.json that the refs ask for. Refs that cannot be read
// are left out.
func (s *Store) indexOfRefs() ([]byte, error) {
	refs, _, err := s.readRefs()
	if err != nil {
		return nil, err
	}
	idx := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: make([]ocispec.Descriptor, 0, len(refs)),
	}
	for _, r := range refs {
		d := r.Desc
		d.Annotations = maps.Clone(d.Annotations)
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[ocispec.AnnotationRefName] = r.Name
		idx.Manifests = append(idx.Manifests, d)
	}
	data, err := json.MarshalIndent(idx, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// maxSmall is the limit for documents that are read whole: refs, records and index.json.
const maxSmall = 64 << 20

// readSmall reads a file of ours that must be a file, and not endless.
func readSmall(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		if fi, lerr := os.Lstat(path); lerr == nil && !fi.Mode().IsRegular() {
			return nil, fmt.Errorf("%s: %w: it is %s", path, ErrCorrupt, kindOf(fi.Mode()))
		}
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: it is %s", path, ErrCorrupt, kindOf(fi.Mode()))
	case fi.Size() > maxSmall:
		return nil, fmt.Errorf("%s: %w: it has %d bytes", path, ErrCorrupt, fi.Size())
	}
	return io.ReadAll(io.LimitReader(f, maxSmall))
}

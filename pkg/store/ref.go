package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sort"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Ref is a name in the store.
type Ref struct {
	Name string             // "hello:1.0", "registry.example/app:v1"
	Desc ocispec.Descriptor // its annotations are kept
}

// refFile is a ref on disk. It holds the name too, because long names are cut in file names.
type refFile struct {
	Name string             `json:"name"`
	Desc ocispec.Descriptor `json:"descriptor"`
}

// SetRef points name at desc, durably, after syncing what it reaches; index.json is written anew.
// It reports ErrNotFound when desc's blob is absent. What that blob refers to is not required.
func (s *Store) SetRef(ctx context.Context, name string, desc ocispec.Descriptor) error {
	return s.setRef(ctx, name, desc, func() error { return nil })
}

// SwapRef is SetRef if name points at old at that instant, or at nothing when old is ""; else it is ErrConflict and
// nothing changes. Of concurrent writers who read the same state exactly one succeeds.
func (s *Store) SwapRef(ctx context.Context, name string, old digest.Digest, desc ocispec.Descriptor) error {
	return s.setRef(ctx, name, desc, func() error { return s.expectRef(name, old) })
}

// RemoveRef is DeleteRef if name points at old at that instant; else it is ErrConflict.
func (s *Store) RemoveRef(ctx context.Context, name string, old digest.Digest) error {
	return s.deleteRef(ctx, name, func() error { return s.expectRef(name, old) })
}

// expectRef reports ErrConflict unless name points at old. The caller holds index.lock.
func (s *Store) expectRef(name string, old digest.Digest) error {
	now, err := s.GetRef(name)
	switch {
	case errors.Is(err, ErrNotFound):
		if old == "" {
			return nil
		}
		return fmt.Errorf("%w: it is gone", ErrConflict)
	case err != nil:
		return err
	case now.Digest != old:
		return fmt.Errorf("%w: it is %s now", ErrConflict, now.Digest)
	}
	return nil
}

// setRef sets a ref if condition, which is asked when nobody else can change refs, allows it.
func (s *Store) setRef(ctx context.Context, name string, desc ocispec.Descriptor, condition func() error) error {
	if err := s.writable(); err != nil {
		return err
	}
	if err := checkRefName(name); err != nil {
		return err
	}
	if err := checkDigest(desc.Digest); err != nil {
		return fmt.Errorf("ref %q: %w", name, err)
	}
	data, err := json.Marshal(refFile{Name: name, Desc: desc})
	if err != nil {
		return fmt.Errorf("ref %q: %w", name, err)
	}
	if err := s.syncReached(ctx, desc); err != nil {
		return fmt.Errorf("setting ref %q: %w", name, err)
	}
	err = s.changeRefs(ctx, func() error {
		if err := condition(); err != nil {
			return err
		}
		size, err := s.stat(desc.Digest)
		if err != nil {
			return err
		}
		if desc.Size > 0 && size != desc.Size {
			return corrupt(desc.Digest, "it has %d bytes, its descriptor says %d", size, desc.Size)
		}
		return s.replaceFile(refsDir+"/"+escape(name), data, true)
	})
	if err != nil {
		return fmt.Errorf("setting ref %q: %w", name, err)
	}
	return nil
}

// syncReached makes durable what desc reaches, whoever put it there.
func (s *Store) syncReached(ctx context.Context, desc ocispec.Descriptor) error {
	err := newWalker(s).walk(ctx, []edge{{desc: desc}}, func(e edge) error {
		d := e.desc.Digest
		if fi, err := os.Lstat(s.Path(d)); err == nil && !isDurable(fi) {
			s.noteDirty(d)
		}
		return nil
	}, func(error) error { return nil })
	if err != nil {
		return err
	}
	return s.Sync(ctx)
}

// changeRefs runs change with what it needs and brings index.json up to date. A
// kill in between leaves index.stale behind, which the next Open sees.
func (s *Store) changeRefs(ctx context.Context, change func() error) error {
	leave, err := s.using(ctx)
	if err != nil {
		return err
	}
	defer leave()
	unlock, err := s.lockPath(ctx, indexLock)
	if err != nil {
		return err
	}
	defer unlock()
	marker, err := openLockFile(s.path(indexStale))
	if err != nil {
		return storageError(s.path(indexStale), 0, err)
	}
	_ = marker.Close()
	if err := change(); err != nil {
		return errors.Join(err, s.writeIndex())
	}
	return s.writeIndex()
}

// GetRef returns what name points at, or ErrNotFound.
func (s *Store) GetRef(name string) (ocispec.Descriptor, error) {
	if err := checkRefName(name); err != nil {
		return ocispec.Descriptor{}, err
	}
	r, err := s.readRef(escape(name))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if r.Name != name {
		return ocispec.Descriptor{}, notFound(fmt.Sprintf("ref %q", name))
	}
	return r.Desc, nil
}

// HoldRef is GetRef for who reads what it names: that is leased to this process with all that it reaches, so that a collection
// leaves it, even when the name means something else by then.
func (s *Store) HoldRef(name string) (ocispec.Descriptor, error) {
	leave, err := s.usingToRead()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer leave()
	desc, err := s.GetRef(name)
	if err != nil {
		return desc, err
	}
	// What is not there, or not what it should be, its reader will say.
	if _, err := s.stat(desc.Digest); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) {
		return desc, err
	}
	return desc, nil
}

func (s *Store) readRef(file string) (Ref, error) {
	shown := file
	if name, ok := unescape(file); ok {
		shown = name
	}
	data, err := readSmall(s.path(refsDir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return Ref{}, notFound(fmt.Sprintf("ref %q", shown))
	}
	if err != nil {
		return Ref{}, fmt.Errorf("ref %q: %w", shown, err)
	}
	r, err := parseRef(file, data)
	if err != nil {
		return Ref{}, fmt.Errorf("ref %q (%s): %w", shown, s.path(refsDir, file), err)
	}
	return r, nil
}

// parseRef reads the ref file of that name.
func parseRef(file string, data []byte) (Ref, error) {
	var r refFile
	if err := json.Unmarshal(data, &r); err != nil {
		return Ref{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := checkRefName(r.Name); err != nil {
		return Ref{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if escape(r.Name) != file {
		return Ref{}, fmt.Errorf("%w: it holds the ref %q", ErrCorrupt, r.Name)
	}
	if err := checkDigest(r.Desc.Digest); err != nil {
		return Ref{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if r.Desc.Size < 0 {
		return Ref{}, fmt.Errorf("%w: size %d", ErrCorrupt, r.Desc.Size)
	}
	return Ref(r), nil
}

// DeleteRef removes name, or reports ErrNotFound.
func (s *Store) DeleteRef(ctx context.Context, name string) error {
	return s.deleteRef(ctx, name, func() error { return nil })
}

func (s *Store) deleteRef(ctx context.Context, name string, condition func() error) error {
	if err := s.writable(); err != nil {
		return err
	}
	if err := checkRefName(name); err != nil {
		return err
	}
	err := s.changeRefs(ctx, func() error {
		if err := condition(); err != nil {
			return err
		}
		err := os.Remove(s.path(refsDir, escape(name)))
		if errors.Is(err, fs.ErrNotExist) {
			return ErrNotFound
		}
		if err != nil {
			return err
		}
		return syncDir(s.path(refsDir))
	})
	if err != nil {
		return fmt.Errorf("deleting ref %q: %w", name, err)
	}
	return nil
}

// Refs lists all refs by name.
func (s *Store) Refs() ([]Ref, error) {
	refs, bad, err := s.readRefs()
	if err != nil {
		return nil, err
	}
	for _, err := range bad {
		return nil, fmt.Errorf("%w (run `manifestctl store check --repair`)", err)
	}
	return refs, nil
}

// readRefs returns the refs, sorted, and by file what is wrong with the others.
func (s *Store) readRefs() (refs []Ref, bad map[string]error, err error) {
	entries, err := os.ReadDir(s.path(refsDir))
	if err != nil {
		return nil, nil, fmt.Errorf("listing refs: %w", err)
	}
	bad = map[string]error{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		r, err := s.readRef(e.Name())
		switch {
		case errors.Is(err, ErrNotFound): // deleted meanwhile
		case err != nil:
			bad[e.Name()] = err
		default:
			refs = append(refs, r)
		}
	}
	sort.Slice(refs, func(i, j int) bool { return refs[i].Name < refs[j].Name })
	return refs, bad, nil
}

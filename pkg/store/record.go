package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Record is a small verified file beside the blobs: step cache records ("cache"),
// tables of contents ("toc"), compressed forms of layers ("compressed").
type Record struct {
	Data  []byte          // opaque; written and read whole
	Blobs []digest.Digest // what it needs to be of use: kept by gc, and a record whose blobs are gone is ErrNotFound
}

// header is the first line of a record on disk; Data follows as it is. Sum covers
// both: a record is not synced, so a power cut may damage it.
type header struct {
	Blobs []digest.Digest `json:"blobs,omitempty"`
	Size  int             `json:"size"`
	Sum   digest.Digest   `json:"sum"`
}

const recordSuffix = ".rec" // tells our files from others in a directory that has any name

func (r Record) sum() digest.Digest {
	h := digest.Canonical.Digester()
	for _, b := range r.Blobs {
		fmt.Fprintf(h.Hash(), "%s\n", b)
	}
	fmt.Fprintf(h.Hash(), "%d\n", len(r.Data))
	h.Hash().Write(r.Data)
	return h.Digest()
}

func encodeRecord(r Record) ([]byte, error) {
	for _, d := range r.Blobs {
		if err := checkDigest(d); err != nil {
			return nil, err
		}
	}
	line, err := json.Marshal(header{Blobs: r.Blobs, Size: len(r.Data), Sum: r.sum()})
	if err != nil {
		return nil, err
	}
	return append(append(line, '\n'), r.Data...), nil
}

func decodeRecord(file []byte) (Record, error) {
	line, data, ok := bytes.Cut(file, []byte{'\n'})
	var h header
	if err := json.Unmarshal(line, &h); err != nil || !ok {
		return Record{}, fmt.Errorf("%w: its first line is no header", ErrCorrupt)
	}
	for _, d := range h.Blobs {
		if err := checkDigest(d); err != nil {
			return Record{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	r := Record{Data: data, Blobs: h.Blobs}
	if h.Size != len(data) || h.Sum != r.sum() {
		return Record{}, ErrCorrupt
	}
	return r, nil
}

// checkKind accepts short lower-case names that are nothing else in the store.
func checkKind(kind string) error {
	ok := kind != "" && len(kind) <= 32 && !reserved[kind]
	for _, c := range []byte(kind) {
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("record kind %q: %w: a-z, 0-9 and -, at most 32, and not the name of a part of the store", kind, ErrInvalid)
	}
	return nil
}

func (s *Store) recordPath(kind, key string) (string, error) {
	if err := checkKind(kind); err != nil {
		return "", err
	}
	if key == "" || len(key) > maxRefName {
		return "", fmt.Errorf("%s record %.40q: %w: 1 to %d bytes", kind, key, ErrInvalid, maxRefName)
	}
	return s.path(kind, escape(key)+recordSuffix), nil
}

// PutRecord writes a record atomically. kind and key become file names: key may be a digest.
func (s *Store) PutRecord(kind, key string, r Record) error { return s.putRecord(kind, key, r, false) }

func (s *Store) putRecord(kind, key string, r Record, durable bool) error {
	if err := s.writable(); err != nil {
		return err
	}
	path, err := s.recordPath(kind, key)
	if err != nil {
		return err
	}
	data, err := encodeRecord(r)
	if err != nil {
		return fmt.Errorf("%s record %q: %w", kind, key, err)
	}
	if len(data) > maxSmall {
		return fmt.Errorf("%s record %q: %w: %d bytes, at most %d", kind, key, ErrInvalid, len(data), maxSmall)
	}
	leave, err := s.using(context.Background())
	if err != nil {
		return err
	}
	defer leave()
	if have, err := readSmall(path); err == nil && !durable && bytes.Equal(have, data) {
		touch(path)
		return nil
	}
	name := kind + "/" + filepath.Base(path)
	err = s.replaceFile(name, data, durable)
	if errors.Is(err, fs.ErrNotExist) {
		if err := ensureDir(s.path(kind)); err != nil {
			return storageError(s.path(kind), 0, err)
		}
		err = s.replaceFile(name, data, durable)
	}
	if err != nil {
		return fmt.Errorf("%s record %q: %w", kind, key, err)
	}
	return nil
}

// GetRecord returns a record, or ErrNotFound: also when it is damaged or one of its blobs is gone.
// Its blobs are leased to this process, and it counts as used now.
func (s *Store) GetRecord(kind, key string) (Record, error) {
	path, err := s.recordPath(kind, key)
	if err != nil {
		return Record{}, err
	}
	leave, err := s.usingToRead()
	if err != nil {
		return Record{}, err
	}
	defer leave()
	r, err := s.readRecord(path)
	if errors.Is(err, ErrCorrupt) && !s.readOnly {
		_ = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrCorrupt) {
		return Record{}, fmt.Errorf("%s record %q: %w", kind, key, ErrNotFound)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s record %q: %w", kind, key, err)
	}
	for _, d := range r.Blobs {
		_, err := s.stat(d)
		if errors.Is(err, ErrCorrupt) {
			err = notFound("blob " + d.String())
		}
		if err != nil {
			return Record{}, fmt.Errorf("%s record %q: %w", kind, key, err)
		}
	}
	if !s.readOnly {
		touch(path)
	}
	return r, nil
}

// PeekRecord returns a record as it is, wherever its blobs are, and uses nothing: for lists of what is there.
// key is that of a [CacheEntry].
func (s *Store) PeekRecord(kind, key string) (Record, error) {
	if err := checkKind(kind); err != nil {
		return Record{}, err
	}
	if key == "" || filepath.Base(key) != key {
		return Record{}, fmt.Errorf("%s record %.40q: %w", kind, key, ErrInvalid)
	}
	r, err := s.readRecord(s.path(kind, key+recordSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, notFound(kind + " record " + key)
	}
	return r, err
}

func (s *Store) readRecord(path string) (Record, error) {
	data, err := readSmall(path)
	if err != nil {
		return Record{}, err
	}
	return decodeRecord(data)
}

// kinds lists the directories that hold records.
func (s *Store) kinds() ([]string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	var kinds []string
	for _, e := range entries {
		if e.IsDir() && checkKind(e.Name()) == nil {
			kinds = append(kinds, e.Name())
		}
	}
	return kinds, nil
}

// eachRecord calls f with every record's path. A record that could not be read
// comes with the error.
func (s *Store) eachRecord(f func(path string, r Record, err error) error) error {
	kinds, err := s.kinds()
	if err != nil {
		return err
	}
	for _, kind := range kinds {
		entries, err := os.ReadDir(s.path(kind))
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), recordSuffix) {
				continue
			}
			path := s.path(kind, e.Name())
			r, err := s.readRecord(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := f(path, r, err); err != nil {
				return err
			}
		}
	}
	return nil
}

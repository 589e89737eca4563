package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// The kinds of errors.
var (
	ErrNotFound = errors.New("not found in the store")
	ErrCorrupt  = errors.New("content does not match its digest")
	ErrNoSpace  = errors.New("no space left")
	ErrConflict = errors.New("changed meanwhile")
	ErrInvalid  = errors.New("invalid name") // a ref name, digest, record kind or key that cannot be one
)

// NotAStoreError says why a directory cannot be used as a store and what to do.
type NotAStoreError struct {
	Root string
	Why  string // cause and next step
	Err  error  // nil, or what the system said
}

func (e *NotAStoreError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("store %s: %s: %v", e.Root, e.Why, e.Err)
	}
	return fmt.Sprintf("store %s: %s", e.Root, e.Why)
}

func (e *NotAStoreError) Unwrap() error { return e.Err }

// NoSpaceError is an ErrNoSpace: it names the directory that is full.
type NoSpaceError struct {
	Dir  string
	Need int64 // bytes still to be written; 0 when unknown
	What string
	Err  error
}

func (e *NoSpaceError) Error() string {
	s := fmt.Sprintf("no %s left in %s", e.What, e.Dir)
	if e.Need > 0 {
		s += fmt.Sprintf(", %d more bytes needed", e.Need)
	}
	return s + fmt.Sprintf(" (free some, run `manifestctl store gc`, or choose another --root): %v", e.Err)
}

// Is reports the kind.
func (e *NoSpaceError) Is(target error) bool { return target == ErrNoSpace }

func (e *NoSpaceError) Unwrap() error { return e.Err }

// storageError names the place, and the kind when space is what lacks. need is
// the number of bytes still to be written, 0 when unknown.
func storageError(path string, need int64, err error) error {
	if err == nil || errors.Is(err, ErrNoSpace) {
		return err
	}
	if what, ok := noSpace(filepath.Dir(path), err); ok {
		return &NoSpaceError{Dir: filepath.Dir(path), Need: need, What: what, Err: err}
	}
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return err // it has the path
	}
	return fmt.Errorf("%s: %w", path, err)
}

func notFound(object string) error { return fmt.Errorf("%s: %w", object, ErrNotFound) }

func corrupt(d digest.Digest, format string, args ...any) error {
	return fmt.Errorf("blob %s: %w: %s", d, ErrCorrupt, fmt.Sprintf(format, args...))
}

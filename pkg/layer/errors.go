package layer

import (
	"errors"
	"fmt"
)

// The kinds of errors. Every error about a member of an archive is an [EntryError] around one of them.
var (
	// ErrInvalid reports bytes that are no well-formed layer.
	ErrInvalid = errors.New("invalid layer")
	// ErrUnsafe reports a name that leaves the root or would change the root itself.
	ErrUnsafe = errors.New("unsafe name")
	// ErrLimit reports an archive that costs more than [Limits] allow.
	ErrLimit = errors.New("over the limit")
	// ErrType reports a kind of member that no rootfs holds.
	ErrType = errors.New("unsupported entry type")
	// ErrTarget reports a directory that must not be unpacked into.
	ErrTarget = errors.New("unusable target directory")
	// ErrChanged reports a file that changed while it was read.
	ErrChanged = errors.New("changed while it was read")
	// ErrMediaType reports content that is not what its media type says.
	ErrMediaType = errors.New("content does not match its media type")
	// ErrAccount reports a user or group that the image does not have.
	ErrAccount = errors.New("no such account in the image")
)

// EntryError says which member of an archive is wrong. Name is as written in
// the archive; Error prints it escaped.
type EntryError struct {
	Name   string
	Offset int64 // of the member's first header in the uncompressed tar; -1 when there is none
	Err    error
}

func (e *EntryError) Error() string {
	name := e.Name
	if len(name) > 256 {
		name = name[:256] + "..."
	}
	if e.Offset < 0 {
		return fmt.Sprintf("%q: %v", name, e.Err)
	}
	return fmt.Sprintf("%q at byte %d: %v", name, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *EntryError) Unwrap() error { return e.Err }

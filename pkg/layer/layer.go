// Package layer turns trees into tar layers and back: tables of contents, merged
// views, deterministic writing, diffing an overlay upper directory, applying to a
// directory, and gzip and zstd.
//
// # Invariants
//
//   - The bytes of a layer depend on its inputs only: no clock, host id, umask, locale or map order.
//   - No name, link or type in an archive makes Apply touch anything outside its directory.
//   - Whiteouts are known to whiteout.go only.
package layer

import (
	"context"
	"io"
	"time"
)

// Compression is how a layer is stored in an image.
type Compression struct {
	Algorithm string // "gzip" (the zero value means gzip), "zstd", "uncompressed"
	Level     int    // 0 is the algorithm's default
}

// MediaType is the layer's media type, OCI's or Docker's. Docker has none for zstd: an error.
func (c Compression) MediaType(docker bool) (string, error) { return "", errTODO }

// String is "gzip", "zstd-19", ...: a key for records.
func (c Compression) String() string { return c.Algorithm }

// ParseCompression reads the attributes compression= and compression-level=.
func ParseCompression(algorithm, level string) (Compression, error) { return Compression{}, errTODO }

// Compress streams r to w. The bytes depend on r and c only.
func Compress(ctx context.Context, w io.Writer, r io.Reader, c Compression) error { return errTODO }

// Decompress sniffs gzip (all members), zstd, xz, bzip2 or plain tar and returns the uncompressed stream.
func Decompress(ctx context.Context, r io.Reader, lim Limits) (io.ReadCloser, error) {
	return nil, errTODO
}

// Builder collects the entries of one layer over a base and writes them sorted,
// each name once (the last one given wins), with the parents that the base lacks.
type Builder struct{}

// NewBuilder starts a layer over base (nil: an empty rootfs). Parents that must be made get 0755 0:0 and time mtime.
func NewBuilder(base *View, mtime time.Time) *Builder { return &Builder{} }

// Add adds an entry at e.Name (parent symlinks are resolved in base and in what was added). open gives a
// regular file's e.Size bytes and may be nil when Size is 0.
func (b *Builder) Add(e Entry, open func() (io.ReadCloser, error)) error { return errTODO }

// Remove adds a whiteout for path, dropping anything added below it. Missing in the base is an error.
func (b *Builder) Remove(path string) error { return errTODO }

// Archive adds the members of a tar (compressed or not) under dir. Data is spooled to
// spool (a temporary directory) or reopened by offset when the source is an uncompressed file.
func (b *Builder) Archive(ctx context.Context, dir string, open func() (io.ReadCloser, error), spool string, lim Limits) error {
	return errTODO
}

// WriteTo writes the layer's tar: PAX only where needed, sorted, no atime, ctime, uname or gname.
func (b *Builder) WriteTo(ctx context.Context, w io.Writer) error { return errTODO }

// Ownership is how a tree on disk keeps owners (EXECUTOR.md section 2).
type Ownership string

// The kinds of ownership.
const (
	OwnIDs   Ownership = "ids"   // files have their real ids in the namespace this runs in (root, subuid ranges)
	OwnXattr Ownership = "xattr" // all files belong to one uid; others are recorded in user.manifestctl.owner
)

// ApplyOptions tunes Apply.
type ApplyOptions struct {
	Ownership Ownership
	Limits    Limits
	// Overlay writes whiteouts as overlayfs lower directories want them (char 0:0, user.overlay.opaque);
	// false deletes what they name, as for a directory that holds the whole chain.
	Overlay bool
}

// Apply unpacks the uncompressed tar r into the directory dir, which must exist; nothing outside
// of it is touched whatever r holds. Devices become placeholders where mknod is refused.
func Apply(ctx context.Context, dir string, r io.Reader, o ApplyOptions) error { return errTODO }

// DiffOptions tunes Diff.
type DiffOptions struct {
	Ownership Ownership
	Clamp     *time.Time // mtimes after it become it
	// Skip names paths (relative, clean) to leave out: mount points the executor made; a
	// name that is a directory is left out with all below it.
	Skip map[string]bool
	// Times gives the mtimes to write for directories that only changed because stubs were made in and removed from them.
	Times map[string]time.Time
}

// Diff writes the layer that an overlay upper directory is: whiteouts and opaque markers translated,
// hard links kept, sockets left out, capabilities and user xattrs kept, overlay's and ours dropped.
func Diff(ctx context.Context, upper string, w io.Writer, o DiffOptions) error { return errTODO }

// Flatten writes the merged tree of v as one tar, every file under prefix ("" or "linux_arm64/").
func Flatten(ctx context.Context, v *View, w io.Writer, prefix string) error { return errTODO }

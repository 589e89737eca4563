package layer

import (
	"io"

	"github.com/opencontainers/go-digest"
)

// Source is one layer of a chain as a View needs it.
type Source struct {
	TOC *TOC
	// Open gives random access to the uncompressed tar; called at most once per
	// View, only when data is read. The View closes it.
	Open func() (ReaderAtCloser, error)
}

// ReaderAtCloser is random access that is given back.
type ReaderAtCloser interface {
	io.ReaderAt
	io.Closer
}

// View is a chain of layers merged as a runtime would: whiteouts, opaque
// directories and replaced entries resolved, nothing unpacked.
type View struct{}

// NewView merges layers, bottom first. No layers is an empty rootfs.
func NewView(layers []Source) (*View, error) { return nil, errTODO }

// Close closes what was opened.
func (v *View) Close() error { return nil }

// Lstat returns the entry at path (absolute or relative, in the image), whose
// parent symlinks are followed inside the image but the last is not. ok is false when there is none. The
// root always exists (0755 0:0 unless a layer says otherwise).
func (v *View) Lstat(path string) (Entry, bool) { return Entry{}, false }

// Stat is Lstat that also follows the last symlink.
func (v *View) Stat(path string) (Entry, bool) { return Entry{}, false }

// Resolve returns the real name of path: symlinks in all but the last component
// resolved inside the image; components that do not exist are kept. An error for a loop or a
// parent that is not a directory.
func (v *View) Resolve(path string) (string, error) { return "", errTODO }

// Open reads a regular file (or hard link to one); symlinks are followed.
func (v *View) Open(path string) (io.ReadCloser, error) { return nil, errTODO }

// Walk calls fn for path and everything below it, parents first, by name; hard
// links come as TypeLink only when their target is outside of what was walked before, see Entry.
func (v *View) Walk(path string, fn func(e Entry, open func() (io.ReadCloser, error)) error) error {
	return errTODO
}

// Glob returns the names that match the pattern (path.Match per component, ** for any depth), sorted.
func (v *View) Glob(pattern string) ([]string, error) { return nil, errTODO }

// LookupOwner resolves "user[:group]" (names or numbers) in the image's
// /etc/passwd and /etc/group. A user by name without a group gets its primary group; a number without group gets group 0.
func (v *View) LookupOwner(owner string) (uid, gid int, err error) { return 0, 0, errTODO }

// Account is what a process runs as.
type Account struct {
	UID, GID int
	Groups   []int // supplementary
	Home     string
	Name     string
}

// LookupUser resolves the user of a RUN or a config: "user[:group]", with supplementary groups and home.
func (v *View) LookupUser(user string) (Account, error) { return Account{}, errTODO }

// Digest identifies the content at path (type, mode, owner, xattrs, names, data; no times): the key of what reads it.
func (v *View) Digest(path string) (digest.Digest, error) { return "", errTODO }

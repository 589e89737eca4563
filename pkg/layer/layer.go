// Package layer turns trees into tar layers and back: tables of contents, merged
// views, deterministic writing, diffing an overlay upper directory, applying to a
// directory, and gzip and zstd.
//
// # Invariants
//
//   - The bytes of a layer depend on its inputs only: no clock, host id, umask, locale or map order.
//   - No name, link or type in an archive makes Apply touch anything outside its directory, and nobody who
//     changes that directory meanwhile does either.
//   - One reader (scan.go) applies all rules about members: what ReadTOC takes, Apply and Builder.Archive take.
//   - A View shows what Apply unpacks, and Diff reads back what Apply wrote, with either ownership.
//   - Whiteouts are known to whiteout.go only.
package layer

import (
	"io"
	"os"
	"time"
)

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
	// false deletes what they name, as for a directory that holds the whole chain. With Overlay the layer must
	// stand for itself: what it needs from below ([Missing]) is to come before it ([WriteMembers]).
	Overlay bool
	// NoDevices has placeholders for devices, as where mknod is refused: nobody who is shown the tree can open them.
	NoDevices bool
	// Warn is told what could not be kept on disk, by name in the image; nil drops it.
	Warn func(name, text string)
}

// DiffOptions tunes Diff.
type DiffOptions struct {
	Ownership Ownership
	Clamp     *time.Time // mtimes after it become it
	// Skip names paths (relative, clean) to leave out: mount points the executor made; a
	// name that is a directory is left out with all below it.
	Skip map[string]bool
	// Base is the directory (an O_PATH descriptor is enough) that the upper directory lies over. With it the layer is what
	// BuildKit's exporter writes: what differs from the base, each with the directories above it; whiteouts of single
	// names instead of opaque directories; nothing for a name that was made and removed. Without it, all of the upper.
	Base *os.File
	// BaseOwners looks up what was recorded about a name of the base that cannot carry it; nil: nothing was.
	BaseOwners func(name string) (Owner, bool)
	// Before is what the directory was like when it was what the layer lies over: the directory is then a whole tree that was
	// changed in place, and Base is nil. The layer is the one that an overlay with this Base would give.
	Before *State
	// Content opens a file as it was Before. It is asked only about files that nothing but their time of change tells from
	// what they were; nil: those count as changed.
	Content func(name string) (io.ReadCloser, error)
	// Times gives the mtimes to write for directories that only changed because stubs were made in and removed from them.
	Times map[string]time.Time
}

package layer

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

var errTODO = errors.New("layer: not built yet")

// TOC is the table of contents of one uncompressed layer: every entry's header
// and where its data lies. It is enough to answer questions about a rootfs and,
// with random access to the layer, to read its files without unpacking.
type TOC struct {
	DiffID  digest.Digest `json:"diffID"`
	Size    int64         `json:"size"` // of the uncompressed tar
	Entries []Entry       `json:"entries"`
}

// Entry is one member of a layer. Names are clean, slash separated and relative
// ("usr/bin/sh"; "." is the root).
type Entry struct {
	Name     string            `json:"name"`
	Type     byte              `json:"type"`           // archive/tar's typeflag; TypeReg for TypeRegA and friends
	Link     string            `json:"link,omitempty"` // symlink: as written; hard link: clean name
	Mode     int64             `json:"mode"`           // 07777
	UID      int               `json:"uid,omitempty"`
	GID      int               `json:"gid,omitempty"`
	Size     int64             `json:"size,omitempty"`
	Offset   int64             `json:"offset,omitempty"` // of the data in the uncompressed tar
	ModTime  time.Time         `json:"mtime"`
	Major    int64             `json:"major,omitempty"`
	Minor    int64             `json:"minor,omitempty"`
	Xattrs   map[string]string `json:"xattrs,omitempty"`
	Whiteout bool              `json:"whiteout,omitempty"` // Name is what it deletes, without .wh.
	Opaque   bool              `json:"opaque,omitempty"`   // Name is a directory whose lower contents are hidden
}

// Limits bound what a hostile archive can cost. The zero value is the recommended one.
type Limits struct {
	Entries   int64 // default 5,000,000
	PathLen   int   // default 4096
	Ratio     int64 // uncompressed bytes per compressed byte, default as ROBUSTNESS says
	Size      int64 // uncompressed bytes; default unlimited but for Ratio
	XattrSize int64 // of one entry together
}

// ReadTOC reads a whole uncompressed tar from r, checks every rule of the group
// "layers" (ROBUSTNESS.md a) and returns its table. The digest is computed on the way.
func ReadTOC(ctx context.Context, r io.Reader, lim Limits) (*TOC, error) { return nil, errTODO }

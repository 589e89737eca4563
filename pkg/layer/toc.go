package layer

import (
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

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
	// Sparse, when it is not nil, says which pieces of the Size bytes are in the archive, one
	// after the other from Offset; the rest are zeros.
	Sparse []Extent `json:"sparse,omitempty"`
}

// Limits bound what a hostile archive can cost. The zero value is the recommended one.
type Limits struct {
	Entries   int64 // default 5,000,000
	PathLen   int   // with its final NUL, as PATH_MAX counts; default 4096
	Ratio     int64 // uncompressed bytes per compressed byte, looked at from 1 GiB on; default 200
	Size      int64 // uncompressed bytes; default unlimited but for Ratio
	XattrSize int64 // of one entry together, names and values; default 128 KiB
	Sparse    int64 // bytes of one sparse file with its holes; default 64 GiB
}

// ReadTOC reads a whole uncompressed tar from r, checks every rule of the group
// "layers" (ROBUSTNESS.md a) and returns its table. The digest is computed on the way.
func ReadTOC(ctx context.Context, r io.Reader, lim Limits) (*TOC, error) {
	h := sha256.New()
	s := newScanner(ctx, r, h, lim)
	t := &TOC{}
	for {
		e, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		t.Entries = append(t.Entries, *e)
	}
	t.Size = s.m.read
	t.DiffID = digest.NewDigest(digest.SHA256, h)
	return t, nil
}

// Duplicates returns the names that more than one entry gives, sorted. The last
// one counts; scanners that look at the first are misled, so inspect warns.
func (t *TOC) Duplicates() []string {
	type key struct {
		name             string
		whiteout, opaque bool
	}
	seen := make(map[key]int, len(t.Entries))
	var out []string
	for i := range t.Entries {
		e := &t.Entries[i]
		k := key{e.Name, e.Whiteout, e.Opaque}
		if seen[k]++; seen[k] == 2 {
			out = append(out, e.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

package layer

import (
	"archive/tar"
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

	encoded *tocEncoder // the entries, when there are more than were to be held
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
	return Scan(ctx, r, ScanOptions{Limits: lim})
}

// ScanOptions tunes Scan. The zero value reads the table only.
type ScanOptions struct {
	Limits Limits
	// DiffID is the digest of what is read when the caller's reader verifies it already; it is not computed again then.
	DiffID digest.Digest
	// NoDigest leaves it empty: the caller's writer computes it.
	NoDigest bool
	// Hold is how many entries the table may have for it to have them: of a larger one Entries is nil, and all that can be done
	// with it is Pack. 0: any number.
	Hold int
	// Visit is called for every entry, in order, and for a regular file with its data as it is in the archive: of a sparse file
	// the pieces only. Both are valid until it returns. What it leaves unread is skipped.
	Visit func(e *Entry, packed Packed) error
}

// Packed is the data of a file in an archive. WriteTo hands out pieces of the buffer without copying them.
type Packed interface {
	io.Reader
	io.WriterTo
}

// Scan is ReadTOC that shows the files' data on the way.
func Scan(ctx context.Context, r io.Reader, o ScanOptions) (*TOC, error) {
	h := sha256.New()
	s := newScanner(ctx, r, h, o.Limits)
	if o.DiffID != "" || o.NoDigest {
		s.m.hash = nil
	}
	t := &TOC{DiffID: o.DiffID}
	for {
		e, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		t.append(e, o.Hold)
		if o.Visit != nil {
			var data Packed
			if e.Type == tar.TypeReg && !e.Whiteout && !e.Opaque {
				data = (*packedReader)(s)
			}
			if err := o.Visit(&s.cur, data); err != nil {
				return nil, s.fail(err)
			}
		}
	}
	t.Size = s.m.read
	if o.DiffID == "" && !o.NoDigest {
		t.DiffID = digest.NewDigest(digest.SHA256, h)
	}
	return t, nil
}

// append adds an entry. Of more than hold only the encoded form is kept.
func (t *TOC) append(e *Entry, hold int) {
	if t.encoded == nil && hold > 0 && len(t.Entries) == hold {
		t.encoded = &tocEncoder{}
		for i := range t.Entries {
			t.encoded.add(&t.Entries[i])
		}
		t.Entries = nil
	}
	if t.encoded != nil {
		t.encoded.add(e)
		return
	}
	t.Entries = append(t.Entries, *e)
}

// Len is how many entries the table has, held or not.
func (t *TOC) Len() int {
	if t.encoded != nil {
		return t.encoded.n
	}
	return len(t.Entries)
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

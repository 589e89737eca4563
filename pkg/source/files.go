package source

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// FilesOptions chooses what of a directory is taken of it, as BuildKit's local source does.
type FilesOptions struct {
	Include []string // patterns of what is taken; none is all
	Exclude []string // patterns of what is not, with the exceptions of .dockerignore
	// Follow is paths and patterns that are taken, and what symlinks on the way to them lead to. None is all.
	Follow []string
}

// Files is files of a directory on this machine as one layer, without a tar: modes and times as they are, all owned by
// 0:0. Sockets are left out.
type Files struct {
	// TOC's DiffID identifies what stat says of the files, and is the digest of no tar; Offset is a regular file's place in stats.
	TOC   *layer.TOC
	root  *os.Root
	stats []knownStat // of regular files
	sums  *Sums       // nil: none are known
	dir   fileDir
	kept  keptBytes
}

// knownStat is what stat said of a file, and what was known of it then.
type knownStat struct {
	fileStat
	known *knownSum
}

// OpenFiles reads the directory below root, which stays open until Close and belongs to the tree. sums may be nil.
func OpenFiles(ctx context.Context, root *os.Root, o FilesOptions, sums *Sums) (*Files, error) {
	include := slices.Clone(o.Include)
	if o.Follow != nil {
		followed := followLinks(root, o.Follow)
		if followed != nil {
			include = withoutCovered(append(include, followed...))
		}
	}
	w := filesWalk{ctx: ctx, root: root, links: map[fileID]string{}}
	defer w.ahead.Wait()
	var err error
	if len(include) > 0 {
		if w.include, err = patternmatcher.New(include); err != nil {
			return nil, fmt.Errorf("patterns %s: %w", strings.Join(include, " "), err)
		}
		w.prunable = prefixesOnly(w.include, false)
	}
	if len(o.Exclude) > 0 {
		if w.exclude, err = patternmatcher.New(o.Exclude); err != nil {
			return nil, fmt.Errorf("ignore patterns: %w", err)
		}
		w.excludable = prefixesOnly(w.exclude, true)
	}
	t := &Files{TOC: &layer.TOC{}, root: root, sums: sums}
	w.tree = t
	if err := w.dir("", w.list(""), above{}, nil); err != nil {
		return nil, err
	}
	t.TOC.Entries, t.stats = w.entries.join(), w.stats.join()
	h := sha256.New()
	var line []byte
	for i := range t.TOC.Entries {
		e := &t.TOC.Entries[i]
		var st fileStat
		if e.Type == tar.TypeReg {
			st = t.stats[e.Offset].fileStat
		}
		line = line[:0]
		for _, text := range [...]string{e.Name, e.Link, e.Xattrs["security.capability"]} {
			line = append(binary.AppendUvarint(line, uint64(len(text))), text...)
		}
		line = append(line, e.Type)
		for _, n := range [...]int64{
			e.Mode, e.Size, e.ModTime.Unix(), int64(e.ModTime.Nanosecond()), e.Major, e.Minor,
			st.Size, st.Mtime, st.Ctime, int64(st.Inode), int64(st.Dev),
		} {
			line = binary.AppendVarint(line, n)
		}
		h.Write(line)
		t.TOC.Size += e.Size
	}
	t.TOC.DiffID = digest.NewDigest(digest.SHA256, h)
	return t, nil
}

// Close closes the directory.
func (t *Files) Close() error { return errors.Join(t.kept.close(), t.dir.close(), t.root.Close()) }

// Source is the tree as a layer of a view.
func (t *Files) Source() layer.Source {
	return layer.Source{TOC: t.TOC, OpenEntry: t.open, Sum: t.sum}
}

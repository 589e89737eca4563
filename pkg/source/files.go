package source

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
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
	TOC   *layer.TOC // DiffID identifies what stat says of the files, and is the digest of no tar
	root  *os.Root
	stats map[string]fileStat // of regular files
	sums  *Sums               // nil: none are known
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
	t := &Files{TOC: &layer.TOC{}, root: root, stats: map[string]fileStat{}, sums: sums}
	w.tree = t
	if err := w.dir("", above{}, nil); err != nil {
		return nil, err
	}
	h := sha256.New()
	for i := range t.TOC.Entries {
		e := &t.TOC.Entries[i]
		fmt.Fprintf(h, "%q %c %o %d %q %d.%d %d:%d %q %v\n", e.Name, e.Type, e.Mode, e.Size, e.Link, e.ModTime.Unix(), e.ModTime.Nanosecond(),
			e.Major, e.Minor, e.Xattrs["security.capability"], t.stats[e.Name])
		t.TOC.Size += e.Size
	}
	t.TOC.DiffID = digest.NewDigest(digest.SHA256, h)
	return t, nil
}

// Close closes the directory.
func (t *Files) Close() error { return t.root.Close() }

// Source is the tree as a layer of a view.
func (t *Files) Source() layer.Source {
	return layer.Source{TOC: t.TOC, OpenEntry: t.open, Sum: t.sum}
}

// open reads a file. One that is no longer what it was when the tree was read is an error.
func (t *Files) open(e *layer.Entry) (io.ReadCloser, error) {
	f, err := openIn(t.root, e.Name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != e.Size) {
		err = fmt.Errorf("%q: %w", e.Name, layer.ErrChanged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sum is the digest of a file's bytes, from an earlier time when nothing says that they changed.
func (t *Files) sum(e *layer.Entry) (out [32]byte, ok bool) {
	if t.sums == nil {
		return out, false
	}
	st := t.stats[e.Name]
	if out, ok = t.sums.get(e.Name, st); ok {
		return out, true
	}
	r, err := t.open(e)
	if err != nil {
		return out, false // whoever reads it will say why
	}
	h := sha256.New()
	_, err = io.Copy(h, r)
	if errors.Join(err, r.Close()) != nil {
		return out, false
	}
	h.Sum(out[:0])
	t.sums.put(e.Name, st, out)
	return out, true
}

// above is what the patterns said of a directory.
type above struct{ include, exclude patternmatcher.MatchInfo }

// parent is a directory on the way, which is part of the tree when something in it is.
type parent struct {
	entry layer.Entry
	added bool
	up    *parent
}

type filesWalk struct {
	ctx                  context.Context //nolint:containedctx // lives as long as OpenFiles
	root                 *os.Root
	tree                 *Files
	include, exclude     *patternmatcher.PatternMatcher
	prunable, excludable bool // no pattern can mean something in a directory but by its beginning
	links                map[fileID]string
}

func (w *filesWalk) dir(name string, in above, up *parent) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	at := name
	if at == "" {
		at = "."
	}
	d, err := w.root.Open(at)
	if err != nil {
		return err
	}
	infos, err := d.ReadDir(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("reading %q: %w", at, err)
	}
	slices.SortFunc(infos, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, i := range infos {
		if err := w.entry(path.Join(name, i.Name()), i, in, up); err != nil {
			return err
		}
	}
	return nil
}

// chosen applies the patterns: take says that name is in the tree, descend that something below it may be.
func (w *filesWalk) chosen(name string, isDir bool, in above) (take, descend bool, m above, err error) {
	take, descend = true, isDir
	slash := name + "/"
	if w.include != nil {
		ok, info, err := w.include.MatchesUsingParentResults(name, in.include)
		if err != nil {
			return false, false, m, fmt.Errorf("matching %q: %w", name, err)
		}
		m.include = info
		if !ok {
			take = false
			if isDir && w.prunable && !anyPrefix(w.include, slash, false) {
				return false, false, m, nil
			}
		}
	}
	if w.exclude != nil {
		ok, info, err := w.exclude.MatchesUsingParentResults(name, in.exclude)
		if err != nil {
			return false, false, m, fmt.Errorf("matching %q: %w", name, err)
		}
		m.exclude = info
		if ok {
			take = false
			if isDir && w.excludable && !(w.exclude.Exclusions() && anyPrefix(w.exclude, slash, true)) {
				return false, false, m, nil
			}
		}
	}
	return take, descend, m, nil
}

func (w *filesWalk) entry(name string, d fs.DirEntry, in above, up *parent) error {
	take, descend, m, err := w.chosen(name, d.IsDir(), in)
	if err != nil || !take && !descend {
		return err
	}
	info, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	if d.IsDir() {
		p := &parent{entry: layer.Entry{Name: name, Type: tar.TypeDir, Mode: unixMode(info.Mode()), ModTime: info.ModTime()}, up: up}
		if take {
			w.add(p)
		}
		return w.dir(name, m, p)
	}
	e := layer.Entry{Name: name, Mode: unixMode(info.Mode()), ModTime: info.ModTime()}
	switch kind := info.Mode().Type(); {
	case kind == 0:
		e.Type, e.Size = tar.TypeReg, info.Size()
	case kind&fs.ModeSymlink != 0:
		e.Type, e.Mode = tar.TypeSymlink, 0o777
		if e.Link, err = w.root.Readlink(name); err != nil {
			return err
		}
	case kind&fs.ModeNamedPipe != 0:
		e.Type = tar.TypeFifo
	case kind&fs.ModeDevice != 0:
		e.Type = tar.TypeBlock
		if kind&fs.ModeCharDevice != 0 {
			e.Type = tar.TypeChar
		}
		e.Major, e.Minor = deviceOf(info)
	default:
		return nil
	}
	w.add(up)
	if e.Type == tar.TypeReg {
		st, id, links := statOf(info)
		if links > 1 {
			if first, ok := w.links[id]; ok {
				e.Type, e.Link, e.Size = tar.TypeLink, first, 0
			} else {
				w.links[id] = name
			}
		}
		if e.Type == tar.TypeReg {
			w.tree.stats[name] = st
			if e.Mode&0o111 != 0 {
				if e.Xattrs, err = capability(w.root, name); err != nil {
					return err
				}
			}
		}
	}
	w.tree.TOC.Entries = append(w.tree.TOC.Entries, e)
	return nil
}

// add puts a directory into the tree, with those above it.
func (w *filesWalk) add(p *parent) {
	if p == nil || p.added {
		return
	}
	w.add(p.up)
	p.added = true
	w.tree.TOC.Entries = append(w.tree.TOC.Entries, p.entry)
}

// unixMode is the mode of a file in the bits of a tar.
func unixMode(m fs.FileMode) int64 {
	out := int64(m.Perm())
	for bit, unix := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			out |= unix
		}
	}
	return out
}

// patternChars are those that make a pattern more than the beginning of a path.
const patternChars = `*[]?^\`

func beginning(p *patternmatcher.Pattern) string {
	return strings.TrimSuffix(strings.TrimSuffix(filepath.ToSlash(p.String()), "/**"), "/*")
}

func prefixesOnly(m *patternmatcher.PatternMatcher, exceptions bool) bool {
	for _, p := range m.Patterns() {
		if p.Exclusion() == exceptions && strings.ContainsAny(beginning(p), patternChars) {
			return false
		}
	}
	return true
}

func anyPrefix(m *patternmatcher.PatternMatcher, dir string, exceptions bool) bool {
	for _, p := range m.Patterns() {
		if p.Exclusion() == exceptions && strings.HasPrefix(beginning(p)+"/", dir) {
			return true
		}
	}
	return false
}

// followLinks returns the names that paths mean and those that symlinks on the way lead to, sorted; nil when it is all.
func followLinks(root *os.Root, paths []string) []string {
	f := follower{root: root, found: map[string]bool{}}
	for _, p := range paths {
		f.path(p)
	}
	out := make([]string, 0, len(f.found))
	for name := range f.found {
		out = append(out, name)
	}
	return withoutCovered(out)
}

// withoutCovered sorts names and drops those below others; nil when one is the root.
func withoutCovered(names []string) []string {
	slices.Sort(names)
	out := make([]string, 0, len(names))
	last := ""
	for _, n := range names {
		if n == "." {
			return nil
		}
		if last != "" && strings.HasPrefix(n, last+"/") {
			continue
		}
		out = append(out, n)
		last = n
	}
	return out
}

type follower struct {
	root  *os.Root
	found map[string]bool
	hops  int
}

// maxFollowed bounds how many links are looked at for one context.
const maxFollowed = 100_000

func (f *follower) path(p string) {
	p = strings.TrimPrefix(path.Join("/", p), "/")
	if p == "" {
		p = "."
	}
	current := "."
	for {
		first, rest, _ := strings.Cut(p, "/")
		current = path.Join(current, first)
		targets := f.targets(current)
		p = rest
		if (p == "" || len(targets) > 0) && f.found[current] {
			return
		}
		if len(targets) > 0 {
			f.found[current] = true
			for _, t := range targets {
				if f.hops++; f.hops > maxFollowed {
					return
				}
				f.path(path.Join(t, p))
			}
			return
		}
		if p == "" {
			f.found[current] = true
			return
		}
	}
}

// targets are where the symlinks that p means lead; p may have a wildcard in its last component.
func (f *follower) targets(p string) []string {
	if base := path.Base(p); strings.ContainsAny(base, `*?[`) {
		d, err := f.root.Open(path.Dir(p))
		if err != nil {
			return nil
		}
		infos, err := d.ReadDir(-1)
		if errors.Join(err, d.Close()) != nil {
			return nil
		}
		var out []string
		for _, i := range infos {
			if ok, err := filepath.Match(base, i.Name()); err == nil && ok {
				out = append(out, f.target(path.Join(path.Dir(p), i.Name()))...)
			}
		}
		return out
	}
	return f.target(p)
}

func (f *follower) target(p string) []string {
	if p == "." {
		return nil
	}
	link, err := f.root.Readlink(p)
	if err != nil {
		return nil
	}
	if path.IsAbs(link) {
		return []string{path.Clean(link)}
	}
	return []string{path.Join("/", path.Dir(p), link)}
}

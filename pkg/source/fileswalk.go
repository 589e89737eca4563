package source

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

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

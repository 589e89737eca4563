package source

import (
	"archive/tar"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

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
	entries              pieces[layer.Entry]
	stats                pieces[knownStat]
	ahead                sync.WaitGroup // directories that are being read
}

// readAhead is how many directories beside each other are read while those before them are looked through.
const readAhead = 4

// list begins to read a directory. What it returns waits for it.
func (w *filesWalk) list(name string) func() ([]dirName, error) {
	if name == "" {
		name = "."
	}
	var out []dirName
	var err error
	done := make(chan struct{})
	w.ahead.Go(func() {
		defer close(done)
		out, err = listDir(w.root, name)
		slices.SortFunc(out, func(a, b dirName) int { return strings.Compare(a.name, b.name) })
	})
	return func() ([]dirName, error) {
		<-done
		return out, err
	}
}

// found is what the patterns said of a name.
type found struct {
	take, descend bool
	m             above
}

// dir looks through a directory that is being read.
func (w *filesWalk) dir(name string, list func() ([]dirName, error), in above, up *parent) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	names, err := list()
	if err != nil {
		return err
	}
	chosen := make([]found, len(names))
	var below []int // those that are directories to be looked through
	for i := range names {
		l, c := &names[i], &chosen[i]
		if c.take, c.descend, c.m, err = w.chosen(joined(name, l.name), l.mode.IsDir(), in); err != nil {
			return err
		}
		if c.descend {
			below = append(below, i)
		}
	}
	reading := make([]func() ([]dirName, error), 0, readAhead)
	next := 0 // of below, to be read
	for i := range names {
		l, c := &names[i], &chosen[i]
		if !c.take && !c.descend {
			continue
		}
		if !c.descend {
			if err := w.entry(joined(name, l.name), l, up); err != nil {
				return err
			}
			continue
		}
		for ; next < len(below) && len(reading) < readAhead; next++ {
			reading = append(reading, w.list(joined(name, names[below[next]].name)))
		}
		p := &parent{
			entry: layer.Entry{Name: joined(name, l.name), Type: tar.TypeDir, Mode: unixMode(l.mode), ModTime: time.Unix(0, l.stat.Mtime)}, up: up,
		}
		if c.take {
			w.add(p)
		}
		this := reading[0]
		reading = append(reading[:0], reading[1:]...)
		if err := w.dir(p.entry.Name, this, c.m, p); err != nil {
			return err
		}
	}
	return nil
}

func joined(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
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

// entry takes anything but a directory.
func (w *filesWalk) entry(name string, l *dirName, up *parent) (err error) {
	e := layer.Entry{Name: name, Mode: unixMode(l.mode), ModTime: time.Unix(0, l.stat.Mtime)}
	switch kind := l.mode.Type(); {
	case kind == 0:
		e.Type, e.Size = tar.TypeReg, l.stat.Size
	case kind&fs.ModeSymlink != 0:
		e.Type, e.Mode, e.Link = tar.TypeSymlink, 0o777, l.target
		if e.Link == "" {
			if e.Link, err = w.root.Readlink(name); err != nil {
				return err
			}
		}
	case kind&fs.ModeNamedPipe != 0:
		e.Type = tar.TypeFifo
	case kind&fs.ModeDevice != 0:
		e.Type = tar.TypeBlock
		if kind&fs.ModeCharDevice != 0 {
			e.Type = tar.TypeChar
		}
		e.Major, e.Minor = l.major, l.minor
	default:
		return nil
	}
	w.add(up)
	if e.Type == tar.TypeReg {
		if err := w.regular(&e, l); err != nil {
			return err
		}
	}
	w.entries.add(e)
	return nil
}

// regular completes the entry of a regular file, which may be another name of one that was there.
func (w *filesWalk) regular(e *layer.Entry, l *dirName) (err error) {
	if l.links > 1 {
		if first, ok := w.links[l.id]; ok {
			e.Type, e.Link, e.Size = tar.TypeLink, first, 0
			return nil
		}
		w.links[l.id] = e.Name
	}
	st := knownStat{fileStat: l.stat}
	if w.tree.sums != nil {
		st.known = w.tree.sums.get(e.Name, l.stat)
	}
	e.Offset = int64(w.stats.len())
	w.stats.add(st)
	if e.Mode&0o111 != 0 {
		e.Xattrs, err = capability(w.root, e.Name)
	}
	return err
}

// add puts a directory into the tree, with those above it.
func (w *filesWalk) add(p *parent) {
	if p == nil || p.added {
		return
	}
	w.add(p.up)
	p.added = true
	w.entries.add(p.entry)
}

// pieces is a list that grows without being copied.
type pieces[T any] struct {
	full [][]T
	last []T
}

const piece = 1024

func (p *pieces[T]) add(x T) {
	if len(p.last) == cap(p.last) {
		if p.last != nil {
			p.full = append(p.full, p.last)
		}
		p.last = make([]T, 0, piece)
	}
	p.last = append(p.last, x)
}

func (p *pieces[T]) len() int { return len(p.full)*piece + len(p.last) }

// join gives the list as one, and keeps nothing.
func (p *pieces[T]) join() []T {
	out := make([]T, 0, p.len())
	for i, f := range p.full {
		out = append(out, f...)
		p.full[i] = nil
	}
	out = append(out, p.last...)
	p.full, p.last = nil, nil
	return out
}

// unixMode is the mode of a file in the bits of a tar.
func unixMode(m fs.FileMode) int64 {
	out := int64(m.Perm())
	if m&fs.ModeSetuid != 0 {
		out |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		out |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		out |= 0o1000
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

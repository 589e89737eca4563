package source

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

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

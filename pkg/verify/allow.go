package verify

import (
	"fmt"
	"path"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/exe"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Allow is an exception: what is at Path may be of Platform as well.
type Allow struct {
	Path     string // a pattern: path.Match a component, ** for any depth
	Platform string // a pattern of platforms, or "any": then nothing about the file is said
}

// ParseAllow reads PATH-GLOB=PLATFORM, as --allow has it.
func ParseAllow(s string) (Allow, error) {
	i := strings.LastIndexByte(s, '=')
	if i <= 0 || i == len(s)-1 {
		return Allow{}, fmt.Errorf("%q: want PATH-GLOB=PLATFORM or PATH-GLOB=any", s)
	}
	a := Allow{Path: s[:i], Platform: s[i+1:]}
	return a, a.Check()
}

// Check reports a pattern that is none.
func (a Allow) Check() error {
	for c := range strings.SplitSeq(a.Path, "/") {
		if _, err := path.Match(c, ""); err != nil {
			return fmt.Errorf("%q: %w", a.Path, err)
		}
	}
	if strings.Trim(a.Path, "/") == "" {
		return fmt.Errorf("%q names no file", a.Path)
	}
	if a.Platform == "any" {
		return nil
	}
	_, err := platform.Match(a.Platform, platform.Platform{OS: "linux", Arch: "amd64"})
	return err
}

// allows reports whether the exceptions cover a file. f may be nil: what a file lacks is excused by any only.
func allows(list []Allow, name string, f *exe.File) bool {
	for _, a := range list {
		if !matchPath(a.Path, name) {
			continue
		}
		if a.Platform == "any" {
			return true
		}
		if f == nil {
			continue
		}
		if p, ok := platformOf(f); ok {
			if ok, err := platform.Match(a.Platform, p); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// matchPath matches a name in the image against a pattern. A pattern that ends in / means all below.
func matchPath(pattern, name string) bool {
	all := strings.HasSuffix(pattern, "/")
	pattern, name = strings.Trim(pattern, "/"), strings.Trim(name, "/")
	parts := strings.Split(pattern, "/")
	if all {
		parts = append(parts, "**")
	}
	return matchParts(parts, strings.Split(name, "/"))
}

func matchParts(pattern, name []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			for len(pattern) > 1 && pattern[1] == "**" {
				pattern = pattern[1:]
			}
			if len(pattern) == 1 {
				return true
			}
			for i := range name {
				if matchParts(pattern[1:], name[i:]) {
					return true
				}
			}
			return false
		}
		if len(name) == 0 {
			return false
		}
		if ok, err := path.Match(pattern[0], name[0]); !ok || err != nil {
			return false
		}
		pattern, name = pattern[1:], name[1:]
	}
	return len(name) == 0
}

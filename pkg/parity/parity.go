// Package parity tells what differs between the platforms of one index: packages and their versions, Go programs, files,
// modes, sizes, configs. What differs because the machines do (names of directories, code) is not said.
//
// # Invariants
//
//   - Equal contents give equal reports, in the same order.
//   - A name that is different because it holds the name of the machine is the same name.
package parity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// Area is a kind of difference.
type Area string

// The areas.
const (
	Packages Area = "packages" // a package that not all have, or in another version
	Go       Area = "go"       // Go programs at the same place: Go's version, modules, settings that are not the machine's
	Files    Area = "files"    // a file that not all have, or that is of another type or a link to something else
	Modes    Area = "modes"    // permissions, owner, setuid, capabilities
	Sizes    Area = "sizes"    // of files that are no programs
	Config   Area = "config"   // entrypoint, environment, user, labels, ...
)

// Areas lists all, in the order of reports.
func Areas() []Area { return []Area{Packages, Go, Config, Modes, Files, Sizes} }

// ErrSingle says that there is nothing to compare.
var ErrSingle = errors.New("nothing to compare")

// ParseAreas reads --fail-on: areas, or all.
func ParseAreas(list []string) ([]Area, error) {
	var out []Area
	for _, s := range list {
		switch {
		case s == "all":
			return Areas(), nil
		case slices.Contains(Areas(), Area(s)):
			out = append(out, Area(s))
		default:
			names := make([]string, 0, len(Areas()))
			for _, a := range Areas() {
				names = append(names, string(a))
			}
			return nil, fmt.Errorf("%q: want all or some of %s", s, strings.Join(names, ", "))
		}
	}
	return out, nil
}

// Difference is one thing that is not the same for all platforms.
type Difference struct {
	Area   Area
	Name   string
	Values []string // by platform, in the order of the report; "" where there is none
}

// Summary is what one platform has in all.
type Summary struct {
	Platform string
	Files    int
	Size     int64 // bytes of the files of the merged tree; hard links once
	Packages int
	Layers   int
	Unread   int // layers that were not to be had
}

// Report is the comparison of an index.
type Report struct {
	Name        string
	Platforms   []Summary
	Differences []Difference
	Problems    []string // what could not be read, and was not compared
	Read        int64    // bytes of layers that were read; 0: all was known
}

// Count is how many differences there are in the areas.
func (r *Report) Count(areas []Area) int {
	n := 0
	for _, d := range r.Differences {
		if slices.Contains(areas, d.Area) {
			n++
		}
	}
	return n
}

// Options tunes Run. The zero value is the recommended one.
type Options struct {
	Platforms []platform.Platform // only these; none: all
}

// Run compares the images of an index. It needs two of them.
func Run(ctx context.Context, reader *verify.Reader, img source.Image, o Options) (*Report, error) {
	images, read, err := reader.Images(ctx, img, verify.Options{Platforms: o.Platforms})
	if err != nil {
		return nil, err
	}
	if len(images) < 2 {
		return nil, fmt.Errorf("%s: %w: it holds %d image, two are needed", img.Ref(), ErrSingle, len(images))
	}
	r, err := Compare(images)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", img.Ref(), err)
	}
	r.Name, r.Read = img.Ref().String(), read
	return r, nil
}

// Compare compares images of which everything was read.
func Compare(images []verify.Input) (*Report, error) {
	r := &Report{}
	c := comparison{n: len(images), found: map[Area]map[string][]string{}}
	for i, in := range images {
		s, err := c.image(i, in, r)
		if err != nil {
			return nil, err
		}
		r.Platforms = append(r.Platforms, s)
	}
	r.Differences = c.differences()
	return r, nil
}

// comparison collects values by area and name; equal ones are dropped at the end.
type comparison struct {
	n     int
	found map[Area]map[string][]string
}

// put notes the value of a platform. A second one under the same name is added to it.
func (c *comparison) put(at int, a Area, name, value string) {
	if c.found[a] == nil {
		c.found[a] = map[string][]string{}
	}
	values := c.found[a][name]
	if values == nil {
		values = make([]string, c.n)
		c.found[a][name] = values
	}
	if values[at] != "" && values[at] != value {
		value = values[at] + ", " + value
	}
	values[at] = value
}

func (c *comparison) differences() []Difference {
	out := []Difference{}
	for _, a := range Areas() {
		var list []Difference
		for name, values := range c.found[a] {
			if slices.ContainsFunc(values[1:], func(v string) bool { return v != values[0] }) {
				list = append(list, Difference{a, name, values})
			}
		}
		slices.SortFunc(list, func(x, y Difference) int { return strings.Compare(x.Name, y.Name) })
		out = append(out, list...)
	}
	return c.covered(out)
}

// covered leaves out modes and sizes of files that not all have: that is said already.
func (c *comparison) covered(list []Difference) []Difference {
	return slices.DeleteFunc(list, func(d Difference) bool {
		if d.Area != Modes && d.Area != Sizes && d.Area != Go {
			return false
		}
		return slices.Contains(d.Values, "") && d.Area != Go || slices.Contains(c.found[Files][d.Name], "")
	})
}

package builder

import (
	"fmt"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Candidate is a node and what is known of it.
type Candidate struct {
	Node     Node
	Native   []platform.Platform // what its processor runs
	Emulated []platform.Platform // what its workers run beyond that
	Load     int                 // builds that are under way there
}

// The ranks of a node for a platform, best first.
const (
	rankNativeDeclared = iota
	rankNative
	rankDeclared
	rankEmulated
	rankNone
)

// rank says how well c fits p.
func (c Candidate) rank(p platform.Platform) int {
	declared, native := slices.Contains(c.Node.Platforms, p), slices.Contains(c.Native, p)
	switch {
	case native && declared:
		return rankNativeDeclared
	case native:
		return rankNative
	case declared:
		return rankDeclared
	case slices.Contains(c.Emulated, p):
		return rankEmulated
	}
	return rankNone
}

// Choice is the nodes that a platform can be built on, best first, by their index in the candidates.
type Choice struct {
	Platform platform.Platform
	Nodes    []int
}

// Choose gives for every platform the candidates that can build it, best first: native before emulated, then those
// that were declared for it, then the least loaded. Platforms of one call count as load, those with the fewest nodes first.
func Choose(platforms []platform.Platform, candidates []Candidate) []Choice {
	out := make([]Choice, len(platforms))
	for i, p := range platforms {
		out[i].Platform = p
		for n, c := range candidates {
			if c.rank(p) < rankNone {
				out[i].Nodes = append(out[i].Nodes, n)
			}
		}
	}
	order := make([]int, len(out))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(out[a].Nodes) - len(out[b].Nodes) })
	load := make([]int, len(candidates))
	for n, c := range candidates {
		load[n] = c.Load
	}
	for _, i := range order {
		c := &out[i]
		slices.SortStableFunc(c.Nodes, func(a, b int) int {
			if r := candidates[a].rank(c.Platform) - candidates[b].rank(c.Platform); r != 0 {
				return r
			}
			return load[a] - load[b]
		})
		if len(c.Nodes) > 0 {
			load[c.Nodes[0]]++
		}
	}
	return out
}

// Describe says what a candidate builds, for messages.
func (c Candidate) Describe() string {
	var names []string
	for _, list := range [][]platform.Platform{c.Node.Platforms, c.Native, c.Emulated} {
		for _, p := range list {
			if !slices.Contains(names, p.String()) {
				names = append(names, p.String())
			}
		}
	}
	if len(names) == 0 {
		return c.Node.Name + " builds nothing"
	}
	return fmt.Sprintf("%s builds %s", c.Node.Name, strings.Join(names, ", "))
}

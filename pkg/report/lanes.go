package report

import (
	"cmp"
	"slices"
)

// group is the steps of one platform, in lanes in which none overlaps another.
type group struct {
	platform string // "" is what platforms share
	title    string
	lanes    [][]Step
}

// groups sorts b's steps by platform: what is shared first, then in the order of the images, then by name.
func groups(b Build) []group {
	rank := map[string]int{"": -1}
	for i, img := range b.Images {
		rank[img.Platform] = i
	}
	var out []group
	at := map[string]int{}
	for _, s := range b.Steps {
		i, ok := at[s.Platform]
		if !ok {
			i = len(out)
			at[s.Platform] = i
			title := s.Platform
			if title == "" {
				title = "shared"
			}
			out = append(out, group{platform: s.Platform, title: title})
		}
		out[i].add(s)
	}
	slices.SortStableFunc(out, func(x, y group) int {
		rx, okx := rank[x.platform]
		ry, oky := rank[y.platform]
		if !okx {
			rx = len(b.Images)
		}
		if !oky {
			ry = len(b.Images)
		}
		return cmp.Or(cmp.Compare(rx, ry), cmp.Compare(x.platform, y.platform))
	})
	return out
}

// add puts s into the first lane that is free at its start. Steps come by their start.
func (g *group) add(s Step) {
	for i, lane := range g.lanes {
		if last := lane[len(lane)-1]; !last.End.After(s.Start) {
			g.lanes[i] = append(lane, s)
			return
		}
	}
	g.lanes = append(g.lanes, []Step{s})
}

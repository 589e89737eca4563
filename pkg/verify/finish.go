package verify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// manyErrors is from how many programs of one layer on, none of which is right, the layer is said to be wrong instead of each.
const manyErrors = 5

// finish puts findings about many files together and all in order: the worst first, then by rule, layer and path.
func (j *judgement) finish() []Finding {
	out := j.bases(j.found)
	for k, g := range j.groups {
		out = append(out, many(k, *g))
	}
	order := map[string]int{}
	for i, r := range Rules() {
		order[r.ID] = i
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(
			cmp.Compare(b.Level.rank(), a.Level.rank()), cmp.Compare(order[a.Rule.ID], order[b.Rule.ID]),
			cmp.Compare(a.Layer, b.Layer), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Text, b.Text))
	})
	return out
}

// many words a finding about several files.
func many(k group, f Finding) Finding {
	what := "is " + k.what
	if k.rule == RuleVariant.ID {
		what = k.what
	}
	if f.Count == 1 {
		f.Path, f.Text = f.Paths[0], f.Paths[0]+" "+what
		f.Paths = nil
		return f
	}
	what = strings.Replace(what, "is ", "are ", 1)
	what = strings.Replace(what, "needs ", "need ", 1)
	f.Text = fmt.Sprintf("%d files below %s %s: %s", f.Count, common(f.Paths), what, strings.Join(f.Paths[:min(3, len(f.Paths))], ", "))
	if f.Count > 3 {
		f.Text += ", ..."
	}
	return f
}

// common is the directory that holds all of the paths.
func common(paths []string) string {
	dir := paths[0][:strings.LastIndexByte(paths[0], '/')+1]
	for _, p := range paths {
		for !strings.HasPrefix(p, dir) {
			dir = dir[:strings.LastIndexByte(strings.TrimSuffix(dir, "/"), '/')+1]
		}
	}
	if dir == "/" {
		return dir
	}
	return strings.TrimSuffix(dir, "/")
}

// bases says once of a layer in which all programs are for another machine what would else be said of each.
func (j *judgement) bases(found []Finding) []Finding {
	type key struct {
		layer int
		what  string
	}
	what := func(f Finding) key { return key{f.Layer, strings.TrimPrefix(f.Text, f.Path+" ")} }
	count := map[key]int{}
	for _, f := range found {
		if f.Rule.ID == RuleMachine.ID {
			count[what(f)]++
		}
	}
	bases := map[key]*Finding{}
	var keys []key
	out := found[:0:0]
	for _, f := range found {
		k := what(f)
		if f.Rule.ID != RuleMachine.ID || count[k] < manyErrors || j.right[f.Layer-1] {
			out = append(out, f)
			continue
		}
		b := bases[k]
		if b == nil {
			b = &Finding{Rule: RuleBase, Level: Error, Platform: f.Platform, Digest: f.Digest, Layer: f.Layer, Step: f.Step}
			bases[k], keys = b, append(keys, k)
		}
		if b.Count++; len(b.Paths) < maxPaths {
			b.Paths = append(b.Paths, f.Path)
		}
	}
	for _, k := range keys {
		b := *bases[k]
		b.Text = fmt.Sprintf("all %d programs of a layer are of another platform: %s %s, ...", b.Count, b.Paths[0], k.what)
		out = append(out, b)
	}
	return out
}

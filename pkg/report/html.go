package report

import (
	"cmp"
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageText string

var page = sync.OnceValue(func() *template.Template { return template.Must(template.New("page").Parse(pageText)) })

// WriteHTML writes b as one page that needs nothing else: the timeline of every step by platform, the slowest steps, the
// layers and which platforms share them, and advice.
func WriteHTML(w io.Writer, b Build) error {
	if err := page().Execute(w, newView(b)); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// view is b in the words of the page.
type view struct {
	Build   Build
	Started string
	Totals  []total
	Groups  []viewGroup
	Ticks   []tick
	Slowest []viewStep
	Layers  []viewLayer
	Classes []viewClass
	Advice  []Advice
}

type total struct{ Label, Value string }

type viewGroup struct {
	Title string
	Lanes [][]viewStep
}

type viewStep struct {
	Step
	Index       int // among all steps of the build
	Left, Width string
	Time        string
	Begins      string
	Size        string
	Where       string
	What        string
}

type tick struct{ Left, Label string }

type viewClass struct {
	Class Class
	Label string
	Time  string
}

type viewLayer struct {
	Layer
	Short, Text string
	In          []bool // by image
	Shared      int
}

var classLabels = []viewClass{
	{Class: Native, Label: "native process"},
	{Class: Emulated, Label: "emulated process"},
	{Class: Files, Label: "files, no process"},
	{Class: Transfer, Label: "transfer"},
	{Class: Cached, Label: "cached"},
}

const slowest = 10

func newView(b Build) view {
	v := view{Build: b, Started: b.Start.UTC().Format(time.RFC3339), Advice: Advise(b), Layers: layersOf(b.Images)}
	whole := max(b.Duration(), time.Millisecond)
	index := map[string]int{}
	byClass := map[Class]time.Duration{}
	cached, ran := 0, 0
	var bytes int64
	for i, s := range b.Steps {
		index[key(s)] = i
		byClass[s.Class] += s.Duration()
		switch s.Class {
		case Cached:
			cached++
		case Native, Emulated, Files:
			ran++
		case Transfer:
			bytes += s.Bytes
		}
	}
	at := func(s Step) viewStep {
		vs := viewStep{
			Step: s, Index: index[key(s)], Time: short(s.Duration()), Begins: short(s.Start.Sub(b.Start)),
			Left: percent(s.Start.Sub(b.Start), whole), Width: percent(s.Duration(), whole), Where: s.Platform, What: string(s.Class),
		}
		if vs.Where == "" {
			vs.Where = "shared"
		}
		if s.Bytes > 0 {
			vs.Size = size(s.Bytes)
		}
		return vs
	}
	for _, g := range groups(b) {
		vg := viewGroup{Title: g.title}
		for _, lane := range g.lanes {
			var vl []viewStep
			for _, s := range lane {
				vl = append(vl, at(s))
			}
			vg.Lanes = append(vg.Lanes, vl)
		}
		v.Groups = append(v.Groups, vg)
	}
	order := slices.Clone(b.Steps)
	slices.SortStableFunc(order, func(x, y Step) int { return cmp.Compare(y.Duration(), x.Duration()) })
	for _, s := range order[:min(slowest, len(order))] {
		v.Slowest = append(v.Slowest, at(s))
	}
	for i := range 6 {
		d := whole * time.Duration(i) / 5
		v.Ticks = append(v.Ticks, tick{percent(d, whole), short(d)})
	}
	for _, c := range classLabels {
		if d, ok := byClass[c.Class]; ok {
			c.Time = short(d)
			v.Classes = append(v.Classes, c)
		}
	}
	v.Totals = []total{
		{"total", short(b.Duration())},
		{"platforms", fmt.Sprint(len(b.Images))},
		{"steps run", fmt.Sprint(ran)},
		{"cached", fmt.Sprint(cached)},
		{"under emulation", short(byClass[Emulated])},
		{"moved", size(bytes)},
	}
	return v
}

// key tells steps apart: an ID may come twice, when something is transferred twice.
func key(s Step) string { return s.ID + s.Start.String() }

// layersOf lists the distinct layers, in the order of the images, with the platforms that have them.
func layersOf(images []Image) []viewLayer {
	var out []viewLayer
	at := map[string]int{}
	for i, img := range images {
		for _, l := range img.Layers {
			n, ok := at[l.Digest]
			if !ok {
				n = len(out)
				at[l.Digest] = n
				_, hex, _ := strings.Cut(l.Digest, ":")
				out = append(out, viewLayer{Layer: l, Short: hex[:min(12, len(hex))], Text: size(l.Size), In: make([]bool, len(images))})
			}
			if !out[n].In[i] {
				out[n].In[i] = true
				out[n].Shared++
			}
		}
	}
	return out
}

func percent(d, whole time.Duration) string {
	return fmt.Sprintf("%.3f", 100*float64(d)/float64(whole))
}

// size is n bytes in the largest fitting decimal unit.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 999.95 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strings"
	"time"
)

// The size of one panel of a plot and the space around its axes, in pixels.
const (
	panelWidth, panelHeight         = 420, 280
	panelLeft, panelRight           = 64, 16
	panelTop, panelBottom           = 34, 40
	plotColumns                     = 2
	coldColour, againColour, inkish = "#1f6f8b", "#d1495b", "#444"
)

// plot draws curves, a panel each, as one SVG.
func plot(all []*curve) []byte {
	var drawn []*curve
	for _, c := range all {
		if len(c.cold) > 0 {
			drawn = append(drawn, c)
		}
	}
	rows := (len(drawn) + plotColumns - 1) / plotColumns
	var w bytes.Buffer
	fmt.Fprintf(&w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", plotColumns*panelWidth, rows*panelHeight+24)
	fmt.Fprintln(&w, `<rect width="100%" height="100%" fill="white"/>`)
	for i, c := range drawn {
		fmt.Fprintf(&w, `<g transform="translate(%d,%d)">`+"\n", i%plotColumns*panelWidth, i/plotColumns*panelHeight)
		panel(&w, c)
		fmt.Fprintln(&w, "</g>")
	}
	y := rows*panelHeight + 14
	fmt.Fprintf(&w, `<circle cx="%d" cy="%d" r="4" fill="%s"/><text x="%d" y="%d">with an empty store</text>`, panelLeft, y-4, coldColour, panelLeft+10, y)
	fmt.Fprintf(&w, `<circle cx="%d" cy="%d" r="4" fill="%s"/><text x="%d" y="%d">the same again</text>`+"\n</svg>\n", panelLeft+150, y-4, againColour, panelLeft+160, y)
	return w.Bytes()
}

// scale maps values to pixels.
type scale struct {
	from, to float64 // values
	a, b     float64 // pixels
	log      bool
}

func (s scale) at(v float64) float64 {
	from, to := s.from, s.to
	if s.log {
		v, from, to = math.Log10(v), math.Log10(from), math.Log10(to)
	}
	return s.a + (v-from)/(to-from)*(s.b-s.a)
}

// ticks are about five round values, or powers of ten.
func (s scale) ticks() (out []float64) {
	if s.log {
		for v := math.Pow(10, math.Ceil(math.Log10(s.from)-1e-9)); v <= s.to*1.0001; v *= 10 {
			out = append(out, v)
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10(s.to/4)))
	for _, m := range []float64{1, 2, 5, 10} {
		if s.to/(m*step) <= 5 {
			step *= m
			break
		}
	}
	for v := 0.0; v <= s.to*1.0001; v += step {
		out = append(out, v)
	}
	return out
}

func panel(w *bytes.Buffer, c *curve) {
	seconds := func(d time.Duration) float64 { return max(d.Seconds(), 1e-4) }
	most, least := 0.0, math.Inf(1)
	for _, list := range [][]time.Duration{c.cold, c.again} {
		for _, d := range list {
			most, least = max(most, seconds(d)), min(least, seconds(d))
		}
	}
	x := scale{from: 0, to: float64(c.points[len(c.points)-1]), a: panelLeft, b: panelWidth - panelRight}
	y := scale{from: 0, to: most * 1.05, a: panelHeight - panelBottom, b: panelTop}
	if c.log {
		x.log, x.from = true, float64(c.points[0])
		y.log, y.from, y.to = true, math.Pow(10, math.Floor(math.Log10(least))), math.Pow(10, math.Ceil(math.Log10(most)))
	}
	fmt.Fprintf(w, `<text x="%d" y="18" font-weight="bold">%s</text>`+"\n", panelLeft, html.EscapeString(strings.ReplaceAll(c.name, "`", "")))
	for _, v := range x.ticks() {
		fmt.Fprintf(w, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#eee"/><text x="%.1f" y="%d" text-anchor="middle" fill="%s">%s</text>`+"\n",
			x.at(v), y.a, x.at(v), y.b, x.at(v), panelHeight-panelBottom+16, inkish, number(v))
	}
	for _, v := range y.ticks() {
		fmt.Fprintf(w, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#eee"/><text x="%d" y="%.1f" text-anchor="end" fill="%s">%s s</text>`+"\n",
			x.a, y.at(v), x.b, y.at(v), panelLeft-6, y.at(v)+4, inkish, number(v))
	}
	fmt.Fprintf(w, `<path d="M%.1f %.1f V%.1f H%.1f" fill="none" stroke="%s"/>`+"\n", x.a, y.b, y.a, x.b, inkish)
	for _, series := range []struct {
		colour string
		times  []time.Duration
	}{{coldColour, c.cold}, {againColour, c.again}} {
		var path strings.Builder
		for i, d := range series.times {
			px, py := x.at(float64(c.points[i])), y.at(seconds(d))
			fmt.Fprintf(&path, "%s%.1f %.1f ", map[bool]string{true: "M", false: "L"}[i == 0], px, py)
			fmt.Fprintf(w, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"><title>%s: %s</title></circle>`+"\n", px, py, series.colour, number(float64(c.points[i])), ms(d))
		}
		fmt.Fprintf(w, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.TrimSpace(path.String()), series.colour)
	}
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="middle" fill="%s">%s</text>`+"\n", (panelLeft+panelWidth-panelRight)/2, panelHeight-6, inkish, c.unit)
}

// number is v as people write it.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%.3g", v)
}

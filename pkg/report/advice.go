package report

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"
)

// Advice is a sentence on what would make the build faster, and why.
type Advice struct {
	Title string
	Text  string
	Step  string // ID of the step that it is about; "" for the whole build
}

// How much time a step must have taken before there is advice on it.
const (
	adviceTime  = 2 * time.Second
	adviceShare = 5 // a fifth of the build
)

// compiles matches commands that spend their time in a compiler.
var compiles = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b(go (build|install|test)|cargo (build|install)|rustc|(cmake --build|make|ninja|meson compile)\b|` +
		`g?cc|g\+\+|clang|mvn|gradle|dotnet (build|publish)|npm (ci|install|run build)|yarn|pnpm|pip3? (install|wheel)|gem install|bundle install|mix compile|swift build|zig build)\b`)
})

// Advise says what would make b faster, the most first.
func Advise(b Build) []Advice {
	type weighed struct {
		Advice
		time.Duration
	}
	var found []weighed
	var moved time.Duration
	for _, s := range b.Steps {
		d := s.Duration()
		if s.Class == Transfer {
			moved = max(moved, d)
		}
		if s.Class != Emulated || d < adviceTime || d < b.Duration()/adviceShare {
			continue
		}
		a := Advice{Step: s.ID, Title: fmt.Sprintf("%s runs under emulation for %s", s.Platform, short(d))}
		if tool := compiles().FindString(s.Name); tool != "" {
			a.Text = fmt.Sprintf("%q compiles under %s, which is 10 to 30 times slower than native. Cross-compile instead: run this step in a stage of the "+
				"build's own platform (FROM --platform=$BUILDPLATFORM in a Dockerfile, a stage with platform: build in a spec) with TARGETARCH as the compiler's target, and copy the result.",
				tool, s.Runner)
		} else {
			a.Text = fmt.Sprintf("It ran under %s. What does not depend on the architecture can move to a stage of the build's own platform; the rest is faster on a native machine.", s.Runner)
		}
		found = append(found, weighed{a, d})
	}
	if moved >= adviceTime && moved > b.Duration()/2 {
		found = append(found, weighed{Advice{
			Title: fmt.Sprintf("Transfers take %s of %s", short(moved), short(b.Duration())),
			Text:  "More than half of the time bytes were on their way. A registry closer by, or pushing to the repository that holds the base, saves them.",
		}, moved})
	}
	slices.SortStableFunc(found, func(x, y weighed) int { return cmp.Compare(y.Duration, x.Duration) })
	out := make([]Advice, len(found))
	for i, f := range found {
		out[i] = f.Advice
	}
	return out
}

// short is a duration as people say it: "0.05 s", "12.3 s", "4 min 05 s".
func short(d time.Duration) string {
	switch s := d.Seconds(); {
	case s < 0.0995:
		return fmt.Sprintf("%.0f ms", s*1000)
	case s < 9.995:
		return fmt.Sprintf("%.2f s", s)
	case s < 99.95:
		return fmt.Sprintf("%.1f s", s)
	default:
		n := int(s + 0.5)
		return fmt.Sprintf("%d min %02d s", n/60, n%60)
	}
}

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var (
	curvesPlot = flag.String("plot", "bench/curves.svg", "where the plot of the curves goes")
	mostFiles  = flag.Int("most-files", 1_000_000, "the largest context of the curves; what is larger is left out")
)

// curve is how the time of one kind of build grows with one number.
type curve struct {
	name, unit string
	points     []int
	// build makes a context for n, and returns the arguments of the build after -f and the like.
	build func(dir string, n int) ([]string, error)
	log   bool // both axes of the plot

	cold, again []time.Duration // of points: with an empty store, and once more
	peak        []int64         // bytes that the cold build had resident
}

// curves measures how costs grow: each should be a straight line.
func (b *bench) curves() error {
	stop, err := b.serveBase()
	if err != nil {
		return err
	}
	defer stop()
	all := []*curve{
		{name: "files in the context, copied", unit: "files", points: []int{1_000, 10_000, 100_000, 1_000_000}, log: true, build: filesContext},
		{name: "steps, `RUN true`", unit: "steps", points: []int{1, 25, 50, 100, 200}, build: b.stepsContext},
		{name: "platforms, two files each", unit: "platforms", points: []int{1, 2, 4, 6, 8, 10}, build: platformsContext},
		{name: "layers of files", unit: "layers", points: []int{1, 50, 100, 200, 400}, build: layersContext},
	}
	var w bytes.Buffer
	fmt.Fprintf(&w, "\n## Cost curves\n\n![](%s)\n\nMedians of builds with an empty store, and of the same build again. Growth is how the time per piece of the last point compares with that of the one before, what the smallest build costs taken off: 1 is a straight line.\n\n", filepath.Base(*curvesPlot))
	fmt.Fprintln(&w, "| curve | "+"n | empty store | again | peak MiB |\n|---|---|---|---|---|")
	// That of files is last, and nothing is removed before: ext4 looks at every inode that was freed in the last minutes before it
	// takes one, which is no cost of the builds.
	for _, c := range slices.Backward(all) {
		if !strings.Contains(c.unit, b.way) {
			continue
		}
		if c.unit == "files" {
			c.points = slices.DeleteFunc(c.points, func(n int) bool { return n > *mostFiles })
		}
		if err := b.curve(c); err != nil {
			return fmt.Errorf("%s: %w", c.unit, err)
		}
	}
	for _, c := range all {
		if len(c.cold) == 0 {
			continue
		}
		for i, n := range c.points {
			fmt.Fprintf(&w, "| %s | %d | %s | %s | %d |\n", c.name, n, ms(c.cold[i]), ms(c.again[i]), c.peak[i]>>20)
		}
		fmt.Fprintf(&w, "| %s | growth | %.2f | %.2f | |\n", c.name, growth(c.points, c.cold), growth(c.points, c.again))
	}
	b.sections = append(b.sections, w.Bytes())
	return os.WriteFile(*curvesPlot, plot(all), 0o644)
}

// growth compares the slope at the end of a curve with that before.
func growth(n []int, t []time.Duration) float64 {
	last := len(n) - 1
	if last < 2 {
		return math.NaN()
	}
	per := func(i int) float64 { return float64(t[i]-t[0]) / float64(n[i]-n[0]) }
	return per(last) / per(last-1)
}

// curve measures all points of one curve.
func (b *bench) curve(c *curve) error {
	for _, n := range c.points {
		dir := filepath.Join(b.dir, fmt.Sprintf("curve-%s-%d", c.unit, n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		args, err := c.build(dir, n)
		if err != nil {
			return err
		}
		var cold, again []time.Duration
		var peak int64
		runs := min(b.runs, 3)
		if n >= 1_000_000 {
			runs = 1
		}
		for i := range runs {
			root := filepath.Join(dir, fmt.Sprint("store", i))
			for _, into := range []*[]time.Duration{&cold, &again} {
				cmd := exec.Command(b.bin, append([]string{"--root", root, "build", "--progress", "quiet", "--verify=off"}, args...)...)
				start := time.Now()
				used, err := resident(cmd)
				if err != nil {
					return err
				}
				*into = append(*into, time.Since(start))
				peak = max(peak, used)
			}
		}
		c.cold, c.again, c.peak = append(c.cold, median(cold)), append(c.again, median(again)), append(c.peak, peak)
		if c.unit != "files" {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// filesContext is n files of 100 bytes, 100 a directory.
func filesContext(dir string, n int) ([]string, error) {
	ctx := filepath.Join(dir, "context")
	for i := range n {
		parent := filepath.Join(ctx, fmt.Sprintf("d%03d", i/10_000), fmt.Sprintf("e%02d", i/100%100))
		if i%100 == 0 {
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return nil, err
			}
		}
		if err := os.WriteFile(filepath.Join(parent, fmt.Sprintf("f%02d", i%100)), fmt.Appendf(nil, "%0100d", i), 0o644); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(dir, "Dockerfile")
	return []string{"-f", file, "-t", "curve", ctx}, os.WriteFile(file, []byte("FROM scratch\nCOPY . /srv/\n"), 0o644)
}

// stepsContext is a chain of n processes.
func (b *bench) stepsContext(dir string, n int) ([]string, error) {
	file := filepath.Join(dir, "Dockerfile")
	text := "FROM " + b.registry + "/busybox\n" + strings.Repeat("RUN true\n", n)
	return []string{"-f", file, "--platform", "linux/amd64", "-t", "curve", dir}, os.WriteFile(file, []byte(text), 0o644)
}

// platformsContext is two files for each of n platforms, one of them its own.
func platformsContext(dir string, n int) ([]string, error) {
	platforms := slices.Concat(eightPlatforms, []string{"linux/arm/v6", "linux/mips64le"})[:n]
	file := filepath.Join(dir, "Dockerfile")
	text := "FROM scratch\nARG TARGETPLATFORM\nCOPY shared /shared\nCOPY <<EOF /platform\n$TARGETPLATFORM\nEOF\n"
	return []string{"-f", file, "--platform", strings.Join(platforms, ","), "-t", "curve", dir}, errors.Join(
		os.WriteFile(filepath.Join(dir, "shared"), bytes.Repeat([]byte("text\n"), 1<<18), 0o644),
		os.WriteFile(file, []byte(text), 0o644))
}

// layersContext is n layers of a file each.
func layersContext(dir string, n int) ([]string, error) {
	var spec strings.Builder
	spec.WriteString("version: 1\nplatforms: [linux/amd64, linux/arm64]\nfrom: scratch\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&spec, "  - files: [{path: /f%d, content: \"%d\"}]\n", i, i)
	}
	return []string{"-t", "curve", dir}, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(spec.String()), 0o644)
}

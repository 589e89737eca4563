package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// What rebuilds may take.
const (
	unchangedTarget = 80 * time.Millisecond
	changedTarget   = time.Second
	changedMemory   = 150 // MiB
)

// rebuilds measures builds of what was built before: nothing changed, or one file of very many; and W1 with an empty store.
func (b *bench) rebuilds() error {
	stop, err := b.serveBase()
	if err != nil {
		return err
	}
	defer stop()
	var w bytes.Buffer
	fmt.Fprintln(&w, "\n## Builds again\n\nMedians; the peak is of resident memory. The four platforms are amd64, its variants v2 and v3, and arm64.\n\n| work | manifestctl | peak MiB | target |\n|---|---|---|---|")
	for _, one := range []struct {
		name, target string
		measure      func() (time.Duration, int64, error)
	}{
		{"50 steps, 4 platforms, nothing changed", "at most " + ms(unchangedTarget), b.unchanged},
		{"100,000 files copied, one changed", fmt.Sprintf("at most %s, %d MiB", ms(changedTarget), changedMemory), b.changed},
		{"W1, store empty, pushed", "at most " + ms(150*time.Millisecond), b.coldStore},
	} {
		t, peak, err := one.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
		fmt.Fprintf(&w, "| %s | %s | %d | %s |\n", one.name, ms(t), peak>>20, one.target)
	}
	b.sections = append(b.sections, w.Bytes())
	return nil
}

// repeat runs a command again and again after before, the first time unmeasured.
func (b *bench) repeat(runs int, before func(i int) error, command func() *exec.Cmd) (time.Duration, int64, error) {
	var times []time.Duration
	var peak int64
	for i := range runs + 1 {
		if err := before(i); err != nil {
			return 0, 0, err
		}
		start := time.Now()
		used, err := resident(command())
		if err != nil {
			return 0, 0, err
		}
		if i > 0 {
			times, peak = append(times, time.Since(start)), max(peak, used)
		}
	}
	return median(times), peak, nil
}

// unchanged is a Dockerfile of 25 processes and 25 copies in turn.
func (b *bench) unchanged() (time.Duration, int64, error) {
	dir := filepath.Join(b.dir, "unchanged")
	var text strings.Builder
	fmt.Fprintf(&text, "FROM %s/busybox\n", b.registry)
	err := os.MkdirAll(dir, 0o755)
	for i := range 25 {
		fmt.Fprintf(&text, "RUN echo %d > /r%d\nCOPY f%d /c%d\n", i, i, i%5, i)
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i%5)), fmt.Appendln(nil, i%5), 0o644))
	}
	err = errors.Join(err, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text.String()), 0o644))
	if err != nil {
		return 0, 0, err
	}
	return b.repeat(min(b.runs, 15), func(int) error { return nil }, func() *exec.Cmd {
		return b.ours("--platform", "linux/amd64,linux/amd64/v2,linux/amd64/v3,linux/arm64", "-t", "unchanged", dir)
	})
}

// changed is a context of 100,000 small texts of which one is written between builds.
func (b *bench) changed() (time.Duration, int64, error) {
	dir := filepath.Join(b.dir, "changed")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, 0, err
	}
	args, err := filesContext(dir, 100_000)
	if err != nil {
		return 0, 0, err
	}
	t, peak, err := b.repeat(min(b.runs, 5), func(i int) error {
		return os.WriteFile(filepath.Join(dir, "context", "d005", "e50", "f50"), fmt.Appendf(nil, "change %d\n", i), 0o644)
	}, func() *exec.Cmd {
		return b.ours(append([]string{"--platform", "linux/amd64,linux/arm64"}, args...)...)
	})
	return t, peak, errors.Join(err, os.RemoveAll(dir))
}

// coldStore is the headline build with nothing in the store: the base comes from the registry.
func (b *bench) coldStore() (time.Duration, int64, error) {
	dir, err := b.context("w1-cold", "linux/amd64, linux/arm64", []string{"uname -a"})
	if err != nil {
		return 0, 0, err
	}
	root := filepath.Join(b.dir, "cold-store")
	return b.repeat(min(b.runs, 7), func(int) error { return os.RemoveAll(root) }, func() *exec.Cmd {
		return exec.Command(b.bin, "--root", root, "build", "--progress", "quiet", "-t", b.registry+"/w1-cold", "--push", dir)
	})
}

package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// table prints the rows as bench/RESULTS.md.
func (b *bench) table() []byte {
	var w bytes.Buffer
	fmt.Fprintf(&w, "# Measured\n\nMedians of %d interleaved runs on one machine (%d CPUs, %s, %s): the ratios matter. `make bench` writes this file.\n", b.runs, runtime.NumCPU(), line("uname", "-sr"), runtime.Version())
	fmt.Fprintf(&w, "Peer: %s. Both sides push to the same registry on the loopback; each has its own warm store.\n", line("buildah", "--version"))
	fmt.Fprintf(&w, "buildah runs as root with a handler registered on the host; manifestctl registers nothing there.\n\n")
	fmt.Fprintln(&w, "| work | manifestctl | peer | ratio | floor | over floor | target |")
	fmt.Fprintln(&w, "|---|---|---|---|---|---|---|")
	for _, r := range b.rows {
		floor, over := "", ""
		if r.floor > 0 {
			floor, over = ms(r.floor)+" ("+r.floorWhy+")", ms(r.ours-r.floor)
		}
		fmt.Fprintf(&w, "| %s | %s | %s (%s) | 1/%.1f | %s | %s | %s |\n", r.work, ms(r.ours), ms(r.peer), r.peerName,
			float64(r.peer)/float64(r.ours), floor, over, r.target)
	}
	for _, s := range b.sections {
		w.Write(s)
	}
	return w.Bytes()
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// line is the first line a command prints.
func line(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return name + ": " + err.Error()
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

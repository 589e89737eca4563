package main

import (
	"bytes"
	"strings"
)

// maxLine is where a line of output is broken, so that one without end costs no memory.
const maxLine = 16 << 10

// lineBuffer makes lines of the pieces that a process writes.
type lineBuffer struct{ rest []byte }

// write gives each line that p completes to f, without its end.
func (b *lineBuffer) write(p []byte, f func(line string)) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		end := i
		if i < 0 {
			end = len(p)
		}
		if room := maxLine - len(b.rest); end > room {
			b.rest = append(b.rest, p[:room]...)
			p = p[room:]
			b.flush(f)
			continue
		}
		b.rest = append(b.rest, p[:end]...)
		if i < 0 {
			return
		}
		p = p[i+1:]
		f(string(bytes.TrimSuffix(b.rest, []byte("\r"))))
		b.rest = b.rest[:0]
	}
}

// flush gives an unfinished line to f.
func (b *lineBuffer) flush(f func(line string)) {
	if len(b.rest) > 0 {
		f(string(b.rest))
		b.rest = b.rest[:0]
	}
}

// tail keeps the last lines of an output.
type tail struct {
	lines   []string
	bytes   int
	dropped bool
}

const (
	maxTailLines = 100
	maxTailBytes = 64 << 10
)

func (t *tail) add(line string) {
	t.lines = append(t.lines, line)
	t.bytes += len(line)
	for len(t.lines) > maxTailLines || t.bytes > maxTailBytes {
		t.bytes -= len(t.lines[0])
		t.lines, t.dropped = t.lines[1:], true
	}
}

// last is what a terminal would show of the line: what follows the last carriage return.
func last(line string) string {
	line = strings.TrimRight(line, "\r")
	return line[strings.LastIndexByte(line, '\r')+1:]
}

// fit cuts s to columns. Runes beyond ASCII count as two, which is never too few.
func fit(s string, columns int) string {
	used := 0
	for i, r := range s {
		width := 1
		if r > 0x7e {
			width = 2
		}
		if used+width > columns {
			return s[:i]
		}
		used += width
	}
	return s
}

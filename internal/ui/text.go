package ui

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// escape makes text of others fit for one line: control characters, and those that change the direction of
// writing, are shown as Go writes them ("\n", "\x1b").
func escape(s string) string {
	if !strings.ContainsFunc(s, unsafeRune) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unsafeRune(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func unsafeRune(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co, unicode.Cs)
}

// screenText is what a line of output comes to on a terminal without its power over it: escape sequences are left
// out, a carriage return begins the line again, tabs are blanks.
func screenText(line string) string {
	line = strings.TrimRight(line, "\r")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	if !strings.ContainsFunc(line, unsafeRune) {
		return line
	}
	var b strings.Builder
	for i := 0; i < len(line); {
		if n := sequence(line[i:]); n > 0 {
			i += n
			continue
		}
		r, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case r == '\t':
			b.WriteString("    ")
		case r == utf8.RuneError:
			b.WriteRune('\uFFFD')
		case !unsafeRune(r):
			b.WriteRune(r)
		}
		i += size
	}
	return b.String()
}

// sequence is the length of the escape sequence that s begins with (ECMA-48), 0 if it begins with none.
func sequence(s string) int {
	if len(s) == 0 || s[0] != 0x1b {
		return 0
	}
	if len(s) == 1 {
		return 1
	}
	switch s[1] {
	case '[': // control sequence: parameters, intermediates, a final byte
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
			if s[i] < 0x20 || s[i] > 0x7e {
				return i
			}
		}
		return len(s)
	case ']', 'P', 'X', '^', '_': // a string that ends with BEL or ESC \
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	}
	i := 1
	for i < len(s) && s[i] >= 0x20 && s[i] <= 0x2f {
		i++
	}
	if i < len(s) && s[i] >= 0x30 && s[i] <= 0x7e {
		i++
	}
	return i
}

// width is the number of columns that s takes, or more: writing that some terminals show wide counts as wide.
func width(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if r < 0x1100 {
		return 1
	}
	return 2
}

// fit cuts s to columns.
func fit(s string, columns int) string {
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > columns {
			return s[:i]
		}
	}
	return s
}

// bytesText is a number of bytes as people read it, in powers of 1000.
func bytesText(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + "B"
	}
	f, unit := float64(n), 0
	for f >= 999.995 && unit < 5 {
		f /= 1000
		unit++
	}
	return fmt.Sprintf("%.2f%cB", f, " kMGTP"[unit])
}

// seconds is a duration as the displays write it.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", max(d, 0).Seconds()) }

// maxLine is where a line of output is broken, so that one without end costs no memory.
const maxLine = 16 << 10

// lines makes lines of the pieces that a process writes.
type lines struct{ rest []byte }

// write gives each line that p completes to fn, without its end.
func (l *lines) write(p []byte, fn func(line string)) {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		end := i
		if i < 0 {
			end = len(p)
		}
		if room := maxLine - len(l.rest); end > room {
			l.rest = append(l.rest, p[:room]...)
			p = p[room:]
			l.flush(fn)
			continue
		}
		l.rest = append(l.rest, p[:end]...)
		if i < 0 {
			return
		}
		p = p[i+1:]
		fn(string(bytes.TrimSuffix(l.rest, []byte("\r"))))
		l.rest = l.rest[:0]
	}
}

// flush gives an unfinished line to fn.
func (l *lines) flush(fn func(line string)) {
	if len(l.rest) > 0 {
		fn(string(l.rest))
		l.rest = l.rest[:0]
	}
}

// tail keeps the last lines of an output.
type tail struct {
	lines   []logLine
	dropped bool
}

type logLine struct {
	after time.Duration // since the step began
	text  string
}

func (t *tail) add(l logLine, limit int) {
	t.lines = append(t.lines, l)
	if len(t.lines) > limit {
		t.lines[0].text = ""
		t.lines, t.dropped = t.lines[1:], true
	}
}

package spec

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrInvalid is the kind of every error in a spec.
var ErrInvalid = errors.New("invalid spec")

// Error is one mistake in a spec. Its text is "FILE:LINE:COL: MESSAGE", the line and a caret under the place.
type Error struct {
	File    string
	Line    int // from 1; 0 when the file could not be read at all
	Column  int // from 1, in runes
	Message string
	Hint    string // "did you mean \"steps\"?"
	Excerpt string // the line itself
	Err     error  // the cause, when there is one; Message includes it
}

// Longest excerpt and message that are printed, in runes.
const (
	maxExcerpt = 100
	maxMessage = 300
)

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Place())
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.Excerpt != "" && e.Line > 0 {
		gutter := fmt.Sprintf("%3d | ", e.Line)
		line, col := window(e.Excerpt, e.Column)
		fmt.Fprintf(&b, "\n%s%s\n%s| %s^", gutter, line, strings.Repeat(" ", len(gutter)-2), strings.Repeat(" ", max(col-1, 0)))
	}
	if e.Hint != "" {
		b.WriteString("\n  hint: ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Place is "FILE:LINE:COL", or the file alone when the error has no line.
func (e *Error) Place() string {
	if e.Line == 0 {
		return e.File
	}
	return fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Column)
}

// Unwrap makes errors.Is(err, ErrInvalid) true, and finds the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrInvalid}
	}
	return []error{ErrInvalid, e.Err}
}

// window cuts a long line to what is around column col, and returns the cut's column. Control
// characters become spaces, so that the caret stands right and a terminal obeys nothing.
func window(line string, col int) (string, int) {
	rs := []rune(line)
	for i, r := range rs {
		if !unicode.IsPrint(r) {
			rs[i] = ' '
		}
	}
	from := 0
	if len(rs) > maxExcerpt && col > maxExcerpt-20 {
		from = min(col-maxExcerpt/2, len(rs))
	}
	to := min(from+maxExcerpt, len(rs))
	return strings.TrimRight(string(rs[from:to]), " "), col - from
}

// maxErrors is how many mistakes of one spec are reported.
const maxErrors = 50

// reporter collects the mistakes and warnings of one spec.
type reporter struct {
	file     string
	lines    []string
	errs     []*Error
	count    int // mistakes found, those included that were reported before
	seen     map[string]bool
	warnings []place
}

type place struct {
	line, col int
	text      string
}

func newReporter(file string, text []byte) *reporter {
	return &reporter{file: file, lines: strings.Split(string(text), "\n"), seen: map[string]bool{}}
}

// line returns line n (from 1) without its end.
func (r *reporter) line(n int) string {
	if n < 1 || n > len(r.lines) {
		return ""
	}
	return strings.TrimSuffix(r.lines[n-1], "\r")
}

// add records one mistake; the same one at the same place is recorded once, whatever number of platforms it has.
func (r *reporter) add(line, col int, cause error, hint, format string, args ...any) {
	r.count++
	line = min(max(line, 1), max(len(r.lines), 1))
	msg := clean(fmt.Sprintf(format, args...))
	key := fmt.Sprintf("%d:%d:%s", line, col, msg)
	if r.seen[key] {
		return
	}
	r.seen[key] = true
	excerpt := r.line(line)
	col = min(max(col, 1), utf8.RuneCountInString(excerpt)+1)
	r.errs = append(r.errs, &Error{File: r.file, Line: line, Column: col, Message: msg, Hint: clean(hint), Excerpt: excerpt, Err: cause})
}

// at records a mistake at a node.
func (r *reporter) at(n *node, hint, format string, args ...any) {
	if n.kind == kindBad {
		r.count++
		return
	}
	r.add(n.line, n.col, nil, hint, format, args...)
}

// warn records a warning at a node.
func (r *reporter) warn(n *node, format string, args ...any) {
	w := place{n.line, n.col, clean(fmt.Sprintf(format, args...))}
	for _, have := range r.warnings {
		if have == w {
			return
		}
	}
	r.warnings = append(r.warnings, w)
}

// where is a node's place for messages of later stages: "rootfs.yaml:12:7".
func (r *reporter) where(n *node) string { return fmt.Sprintf("%s:%d:%d", r.file, n.line, n.col) }

// list returns what was recorded, by place.
func (r *reporter) list() []error {
	sort.SliceStable(r.errs, func(i, j int) bool {
		a, b := r.errs[i], r.errs[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	var out []error
	for _, e := range r.errs {
		if len(out) == maxErrors {
			last := *e
			last.Message = fmt.Sprintf("%d more mistakes from here on", len(r.errs)-maxErrors)
			last.Hint = ""
			out = append(out, &last)
			break
		}
		out = append(out, e)
	}
	return out
}

// warningTexts returns the warnings by place.
func (r *reporter) warningTexts() []string {
	sort.SliceStable(r.warnings, func(i, j int) bool {
		a, b := r.warnings[i], r.warnings[j]
		if a.line != b.line {
			return a.line < b.line
		}
		return a.col < b.col
	})
	var out []string
	for _, w := range r.warnings {
		out = append(out, fmt.Sprintf("%s:%d:%d: %s", r.file, w.line, w.col, w.text))
	}
	return out
}

// clean makes a message one short line without control characters.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, s)
	if utf8.RuneCountInString(s) > maxMessage {
		s = string([]rune(s)[:maxMessage]) + "..."
	}
	return s
}

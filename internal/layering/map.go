package layering

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Map is what docs/architecture.md says.
type Map struct {
	Rows       []Row
	Modules    map[string]string // short name → import path prefix
	Exceptions []*Exception
	Fences     []Fence
}

// Row is one line of the table of packages.
type Row struct {
	Level   int
	Package string   // a path or a pattern
	Modules []string // short names
}

// Exception allows one import that the levels do not.
type Exception struct {
	From, To string
	Reason   string
	used     bool
}

// Fence allows imports of What only to packages that match Only.
type Fence struct {
	What, Only []string
	Instead    string
}

// The headings of the four tables, by their first cells.
const (
	headPackages   = "level | package"
	headModules    = "name | module"
	headExceptions = "package | may also import"
	headFences     = "imports of | are for"
)

// Parse reads the tables of docs/architecture.md.
func Parse(markdown string) (*Map, error) {
	m := &Map{Modules: map[string]string{}}
	table := ""
	for i, line := range strings.Split(markdown, "\n") {
		cells, ok := tableRow(line)
		if !ok {
			table = ""
			continue
		}
		if table == "" {
			table = strings.ToLower(strings.Join(cells[:min(2, len(cells))], " | "))
			continue
		}
		if strings.Trim(strings.Join(cells, ""), "-: ") == "" {
			continue
		}
		if err := m.add(table, cells); err != nil {
			return nil, fmt.Errorf("docs/architecture.md:%d: %w", i+1, err)
		}
	}
	for _, r := range m.Rows {
		for _, name := range r.Modules {
			if m.Modules[name] == "" {
				return nil, fmt.Errorf("docs/architecture.md: %s names the module %q, which has no row", r.Package, name)
			}
		}
	}
	if len(m.Rows) == 0 || len(m.Fences) == 0 {
		return nil, fmt.Errorf("docs/architecture.md: the tables of packages and fences are missing")
	}
	return m, nil
}

// add takes one row of the table with that heading; other tables are prose.
func (m *Map) add(table string, cells []string) error {
	want := func(n int) error {
		if len(cells) != n {
			return fmt.Errorf("want %d cells, found %d", n, len(cells))
		}
		return nil
	}
	switch table {
	case headPackages:
		if err := want(4); err != nil {
			return err
		}
		level, err := strconv.Atoi(cells[0])
		if err != nil {
			return fmt.Errorf("level %q: %w", cells[0], err)
		}
		for _, p := range code(cells[1]) {
			m.Rows = append(m.Rows, Row{Level: level, Package: p, Modules: code(cells[3])})
		}
	case headModules:
		for _, name := range code(cells[0]) {
			if paths := code(cells[1]); len(paths) == 1 {
				m.Modules[name] = paths[0]
			}
		}
	case headExceptions:
		if err := want(3); err != nil {
			return err
		}
		if cells[2] == "" {
			return fmt.Errorf("the exception of %s has no reason", cells[0])
		}
		for _, from := range code(cells[0]) {
			for _, to := range code(cells[1]) {
				m.Exceptions = append(m.Exceptions, &Exception{From: from, To: to, Reason: cells[2]})
			}
		}
	case headFences:
		if err := want(3); err != nil {
			return err
		}
		m.Fences = append(m.Fences, Fence{What: code(cells[0]), Only: code(cells[1]), Instead: cells[2]})
	}
	return nil
}

// row finds a package's row; an exact path wins over a pattern.
func (m *Map) row(p string) (Row, bool) {
	for _, r := range m.Rows {
		if r.Package == p {
			return r, true
		}
	}
	for _, r := range m.Rows {
		if match(r.Package, p) {
			return r, true
		}
	}
	return Row{}, false
}

// excepted reports whether an exception allows the import, and remembers that it was needed.
func (m *Map) excepted(from, to string) bool {
	for _, e := range m.Exceptions {
		if e.From == from && e.To == to {
			e.used = true
			return true
		}
	}
	return false
}

// tableRow splits a line of a Markdown table.
func tableRow(line string) ([]string, bool) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, "|") || !strings.HasSuffix(line, "|") || len(line) < 2 {
		return nil, false
	}
	cells := strings.Split(line[1:len(line)-1], "|")
	for i := range cells {
		cells[i] = strings.TrimSpace(cells[i])
	}
	return cells, true
}

var quoted = regexp.MustCompile("`([^`]+)`")

// code returns what stands in backquotes.
func code(cell string) []string {
	var out []string
	for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

// Package layering compares the packages of this module with the map in
// docs/architecture.md: levels, third-party modules and fences. The map is the
// source of truth; this package only reads it and says where the code differs.
//
// # Invariants
//
//   - Every package has a row, and every row of pkg and cmd has a package.
//   - A violation names the rule that is broken and the import that breaks it.
package layering

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Package is what the go command says about one package of the module. Paths are
// relative to the module for its own packages ("pkg/graph"), and full for others.
type Package struct {
	Path        string
	Imports     []string
	TestImports []string // of its tests, external ones too
}

// A Violation is one import, or one row, against one rule.
type Violation struct {
	Rule string
	Text string
}

func (v Violation) String() string { return v.Rule + ": " + v.Text }

// The rules.
const (
	RuleRow    = "every package has a row in docs/architecture.md, and every row a package"
	RuleDown   = "packages import packages of lower levels only; an exception is a row with its reason"
	RuleModule = "a package imports only the modules that its row names"
	RuleFence  = "what is fenced is imported only where the fence says"
	RuleTest   = "tests import packages at or below their own level, and internal/test*"
)

// Check returns every violation of m by packages, sorted.
func Check(m *Map, packages []Package) []Violation {
	var out []Violation
	add := func(rule, format string, a ...any) {
		v := Violation{rule, fmt.Sprintf(format, a...)}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	used := map[string]bool{}
	for _, p := range packages {
		row, ok := m.row(p.Path)
		if !ok {
			add(RuleRow, "%s has no row", p.Path)
			continue
		}
		used[row.Package] = true
		for _, to := range p.Imports {
			checkImport(m, row, p.Path, to, add)
		}
		for _, to := range p.TestImports {
			checkTestImport(m, row, p.Path, to, add)
		}
	}
	for _, r := range m.Rows {
		if !used[r.Package] && !strings.HasPrefix(r.Package, "internal/") {
			add(RuleRow, "the row of %s has no package", r.Package)
		}
	}
	for _, e := range m.Exceptions {
		if !e.used {
			add(RuleDown, "the exception %s → %s is not needed", e.From, e.To)
		}
	}
	slices.SortFunc(out, func(a, b Violation) int { return strings.Compare(a.String(), b.String()) })
	return out
}

func checkImport(m *Map, row Row, from, to string, add func(rule, format string, a ...any)) {
	for _, f := range m.Fences {
		if matchAny(f.What, to) && !matchAny(f.Only, from) {
			add(RuleFence, "%s → %s: only %s may; everything else %s", from, to, listOr(f.Only, "tests"), f.Instead)
		}
	}
	if !own(to) {
		if !slices.ContainsFunc(row.Modules, func(name string) bool { return within(to, m.Modules[name]) }) {
			add(RuleModule, "%s → %s: its row names %s", from, to, listOr(row.Modules, "none"))
		}
		return
	}
	target, ok := m.row(to)
	switch {
	case !ok:
		add(RuleRow, "%s → %s has no row", from, to)
	case target.Level >= row.Level && !m.excepted(from, to):
		add(RuleDown, "%s (level %d) → %s (level %d)", from, row.Level, to, target.Level)
	}
}

func checkTestImport(m *Map, row Row, from, to string, add func(rule, format string, a ...any)) {
	if !own(to) || to == from || match("internal/test*", to) || match("internal/test*/...", to) {
		return
	}
	target, ok := m.row(to)
	switch {
	case !ok:
		add(RuleRow, "%s (test) → %s has no row", from, to)
	case target.Level > row.Level:
		add(RuleTest, "%s (level %d, test) → %s (level %d)", from, row.Level, to, target.Level)
	}
}

// own reports whether an import path is one of this module's: those are relative, others begin with a host.
func own(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// within reports whether importPath is root or below it.
func within(importPath, root string) bool {
	return root != "" && (importPath == root || strings.HasPrefix(importPath, root+"/"))
}

// match compares a path with a pattern: path.Match for each element, "/..." at the end for all below.
func match(pattern, p string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		elements := strings.Split(p, "/")
		n := strings.Count(base, "/") + 1
		return len(elements) >= n && match(base, strings.Join(elements[:n], "/"))
	}
	ok, err := path.Match(pattern, p)
	return ok && err == nil
}

func matchAny(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return match(pattern, p) })
}

func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}

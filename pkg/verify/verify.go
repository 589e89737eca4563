// Package verify tells whether the contents of an image are of the platform that it claims: the machines of its programs,
// what they need to start, and whether that is there. docs/verify.md tells what is judged how, and why.
//
// # Invariants
//
//   - Equal contents give equal findings, in the same order.
//   - An error is what will break when the image is started or a command in it: everything else is a warning or a note.
//   - A layer whose facts are known is not read again.
//   - Nothing is judged by what could not be read: what is missing in such an image is not said to be missing.
package verify

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ErrFindings is the kind of "the contents are not of the platform".
var ErrFindings = errors.New("contents do not match their platform")

// Level is how bad a finding is.
type Level string

// The levels.
const (
	Error   Level = "error"   // it will break
	Warning Level = "warning" // it may be a mistake, or there on purpose
	Note    Level = "note"    // worth knowing
)

// rank orders levels, the worst last.
func (l Level) rank() int {
	switch l {
	case Error:
		return 2
	case Warning:
		return 1
	}
	return 0
}

// AtLeast reports whether l is as bad as o, or worse.
func (l Level) AtLeast(o Level) bool { return l.rank() >= o.rank() }

// ParseLevel reads a level as flags have it.
func ParseLevel(s string) (Level, error) {
	switch l := Level(s); l {
	case Error, Warning, Note:
		return l, nil
	}
	return "", fmt.Errorf("%q: want error, warning or note", s)
}

// Rule is something that is looked for.
type Rule struct {
	ID    string
	Level Level // a finding may be of a lower one
	Text  string
}

// The rules.
var (
	RuleMachine     = Rule{"wrong-machine", Error, "A program that is started is for another machine or system."}
	RuleBase        = Rule{"wrong-base", Error, "All programs of a layer are for another machine: a base image or root file system of another platform."}
	RuleVariant     = Rule{"too-new", Error, "A program needs a newer processor than the platform promises."}
	RuleMissing     = Rule{"missing-entrypoint", Error, "What the image starts is not in it."}
	RuleMode        = Rule{"not-executable", Error, "What the image starts has no execute permission."}
	RuleFormat      = Rule{"not-a-program", Error, "What the image starts is neither a program nor a script with #!."}
	RuleInterpreter = Rule{"missing-interpreter", Error, "The dynamic loader of a program, or the interpreter of a script, is not there."}
	RuleLibrary     = Rule{"missing-library", Error, "A library that a program needs is not there, or there for another machine only."}
	RuleConfig      = Rule{"config-disagrees", Error, "The index and the config of an image say different platforms."}
	RuleBroken      = Rule{"broken-image", Error, "A manifest, config or layer cannot be read, or is not what its digest says."}
	RuleCompatible  = Rule{"compatible-machine", Warning, "A program is for an older machine that most, but not all, kernels of the platform run."}
	RuleForeign     = Rule{"foreign-program", Warning, "Programs or libraries outside of PATH are for another machine or system."}
	RuleObject      = Rule{"foreign-object", Note, "Objects and files that nobody executes are for another machine: firmware, BPF, sysroots."}
	RuleNothing     = Rule{"nothing-to-run", Note, "The image has neither an entrypoint nor a command."}
	RuleUnread      = Rule{"unread-layer", Note, "A layer is not to be had, so that not all could be judged."}
)

// Rules lists all rules, the worst first.
func Rules() []Rule {
	return []Rule{
		RuleMachine, RuleBase, RuleVariant, RuleMissing, RuleMode, RuleFormat, RuleInterpreter, RuleLibrary, RuleConfig, RuleBroken,
		RuleCompatible, RuleForeign, RuleObject, RuleNothing, RuleUnread,
	}
}

// maxPaths is how many paths a finding about many files names.
const maxPaths = 20

// Finding is one thing that is wrong, or one kind of thing in one layer.
type Finding struct {
	Rule     Rule
	Level    Level
	Platform string        // that the image claims
	Digest   digest.Digest // of its manifest; "" while it is being built
	Path     string        // in the image, "/usr/bin/app"; "" when it is about no file
	Paths    []string      // of a finding about several files: the first of them
	Count    int           // of files; 1 for Path alone
	Layer    int           // from 1; 0 when it is about none
	Step     string        // that made the layer, when the history tells
	Text     string        // "/usr/bin/app is x86-64"
}

// String is the finding for a person: "linux/arm64: /usr/bin/app is x86-64 (from layer 3, COPY bin/app /usr/bin/)".
func (f Finding) String() string {
	var b strings.Builder
	if f.Platform != "" {
		b.WriteString(f.Platform + ": ")
	}
	b.WriteString(f.Text)
	if f.Layer > 0 {
		fmt.Fprintf(&b, " (from layer %d", f.Layer)
		if f.Step != "" {
			b.WriteString(", " + f.Step)
		}
		b.WriteString(")")
	}
	return b.String()
}

// Count is how many findings are as bad as level, or worse.
func Count(findings []Finding, level Level) int {
	n := 0
	for _, f := range findings {
		if f.Level.AtLeast(level) {
			n++
		}
	}
	return n
}

// FindingsError refuses what was found. It is of the kind [ErrFindings].
type FindingsError struct {
	Findings []Finding // those that are refused
}

func (e *FindingsError) Error() string {
	lines := make([]string, 0, len(e.Findings)+1)
	lines = append(lines, ErrFindings.Error()+":")
	for _, f := range e.Findings {
		lines = append(lines, "  "+f.String())
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, ErrFindings) true.
func (e *FindingsError) Is(target error) bool { return target == ErrFindings }

// Keep drops the findings that are not as bad as level.
func (report *Report) Keep(level Level) {
	report.Findings = slices.DeleteFunc(report.Findings, func(f Finding) bool { return !f.Level.AtLeast(level) })
}

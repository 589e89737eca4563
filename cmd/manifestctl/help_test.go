package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
)

// TestGroups holds the groups of --help to the commands that there are: each name is one, and is in one group.
func TestGroups(t *testing.T) {
	commands, seen := map[string]bool{}, map[string]string{}
	for _, row := range table {
		commands[row.names[0]] = true
	}
	for _, g := range groups {
		for _, name := range g.names {
			assert.True(t, commands[name], "%s: no command %q", g.title, name)
			assert.Empty(t, seen[name], "%q is in two groups", name)
			seen[name] = g.title
		}
	}
}

// TestFlagHelp: the text of flags is broken between words, where a terminal ends.
func TestFlagHelp(t *testing.T) {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.String("long", "", "`VALUE` "+strings.Repeat("word ", 40)+"end")
	f.BoolP("short", "s", false, strings.Repeat("word ", 20)+"end")
	for _, width := range []int{40, 80, 120} {
		out := flagHelp(f, width)
		for line := range strings.SplitSeq(out, "\n") {
			assert.LessOrEqual(t, len(line), width, line)
		}
		assert.Equal(t, 60, strings.Count(out, "word"), "%d", width)
		assert.Equal(t, 2, strings.Count(out, "end\n"), "%d", width)
		assert.Contains(t, out, "  -s, --short")
	}
	assert.Equal(t, []string{""}, wrap("", 10))
	assert.Equal(t, []string{"averylongword", "b"}, wrap("averylongword b", 5))
}

package main

import (
	"testing"

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

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// printTable writes rows in columns; the first is the heading.
func (e *env) printTable(rows [][]string) error {
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.Join(strings.Fields(escape(cell)), " ")
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// formatFlag checks --format of commands that print a table.
func formatFlag(format string) (asJSON bool, err error) {
	switch format {
	case "table":
		return false, nil
	case "json":
		return true, nil
	}
	return false, usagef("--format %q: want table or json", format)
}

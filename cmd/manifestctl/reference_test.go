package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/cli from the commands")

// TestReference holds docs/cli to the commands; -update writes it.
func TestReference(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "cli")
	want := map[string]string{}
	reference(newRoot(hostEnv(), nil), want)
	if *update {
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.MkdirAll(dir, 0o755))
		for name, text := range want {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		}
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(dir, f.Name()))
		require.NoError(t, err)
		assert.Equal(t, want[f.Name()], string(got), "%s: run make docs", f.Name())
		delete(want, f.Name())
	}
	assert.Empty(t, want, "pages that are missing: run make docs")
}

// reference adds the pages of cmd and of everything below it.
func reference(cmd *cobra.Command, pages map[string]string) {
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- made by `make docs` from the command itself -->\n# %s\n\n%s.\n", cmd.CommandPath(), strings.TrimSuffix(cmd.Short, "."))
	if cmd.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", indentedBlocks(cmd.Long))
	}
	fmt.Fprintf(&b, "\n```\n%s\n```\n", useLine(cmd))
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\n## Examples\n\n```\n%s\n```\n", strings.TrimSpace(strings.ReplaceAll(cmd.Example, "\n  ", "\n")))
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\n| command | |\n|---|---|\n")
		for _, sub := range cmd.Commands() {
			if documented(sub) {
				fmt.Fprintf(&b, "| [%s](%s) | %s |\n", sub.CommandPath(), page(sub), sub.Short)
				reference(sub, pages)
			}
		}
	}
	flagTable(&b, "Flags", cmd.NonInheritedFlags())
	flagTable(&b, "Flags of every command", cmd.InheritedFlags())
	if !cmd.HasParent() {
		b.WriteString("\n## Exit codes\n\n| code | |\n|---|---|\n")
		for _, row := range exitTable {
			fmt.Fprintf(&b, "| %d | %s |\n", row.code, row.text)
		}
	}
	pages[page(cmd)] = b.String()
}

// indentedBlocks fences runs of indented lines.
func indentedBlocks(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.SplitSeq(text, "\n") {
		if indented := strings.HasPrefix(line, "  "); indented != inside {
			b.WriteString("```\n")
			inside = indented
		}
		b.WriteString(line + "\n")
	}
	if inside {
		b.WriteString("```\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func page(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "_") + ".md" }

// documented leaves out what cobra adds by itself, whose text changes with cobra.
func documented(cmd *cobra.Command) bool {
	return cmd.IsAvailableCommand() && cmd.Name() != "help" && cmd.Name() != "completion"
}

func flagTable(b *strings.Builder, title string, f *pflag.FlagSet) {
	lines := flagLines(f)
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(b, "\n## %s\n\n| flag | |\n|---|---|\n", title)
	for _, l := range lines {
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.ReplaceAll(strings.TrimSpace(l.flag), "|", `\|`), strings.ReplaceAll(l.text, "|", `\|`))
	}
}

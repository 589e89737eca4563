package layering

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/manifestctl/manifestctl"

// TestModule holds the module to its map, for every system that it compiles for.
func TestModule(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	require.NoError(t, err)
	for _, system := range []string{"linux", "darwin", "windows"} {
		t.Run(system, func(t *testing.T) {
			m, err := Parse(string(doc))
			require.NoError(t, err)
			for _, v := range Check(m, list(t, system)) {
				t.Error(v)
			}
		})
	}
}

// list asks the go command for the packages of the module and what they import, without the standard library.
func list(t *testing.T, system string) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s", errs.String())

	var packages []Package
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			require.NoError(t, err)
		}
		packages = append(packages, Package{
			Path:        relative(p.ImportPath),
			Imports:     interesting(p.Imports),
			TestImports: interesting(append(p.TestImports, p.XTestImports...)),
		})
	}
	require.NotEmpty(t, packages)
	return packages
}

// interesting drops the standard library and makes the module's own paths relative.
func interesting(imports []string) []string {
	var out []string
	for _, p := range imports {
		if first, _, _ := strings.Cut(p, "/"); strings.Contains(first, ".") && !slices.Contains(out, relative(p)) {
			out = append(out, relative(p))
		}
	}
	return out
}

func relative(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

const example = `
| level | package | what it is | may import beyond std |
|---|---|---|---|
| 0 | ` + "`pkg/a`, `pkg/b`" + ` | two | |
| 1 | ` + "`pkg/c`" + ` | one | ` + "`yaml`" + ` |
| 2 | ` + "`cmd/x`" + ` | the command | |

| name | module | why |
|---|---|---|
| ` + "`yaml` | `example.com/yaml`" + ` | |

| package | may also import | reason |
|---|---|---|
| ` + "`pkg/b` | `pkg/a`" + ` | because |

| imports of | are for | everything else |
|---|---|---|
| ` + "`example.com/heavy/...` | `pkg/heavy`" + ` | asks pkg/heavy |
| ` + "`pkg/a` | `pkg/*`" + ` | asks pkg/c |
`

func TestCheck(t *testing.T) {
	good := func() []Package {
		return []Package{
			{Path: "pkg/a"},
			{Path: "pkg/b", Imports: []string{"pkg/a"}},
			{Path: "pkg/c", Imports: []string{"pkg/a", "example.com/yaml/ast"}, TestImports: []string{"internal/testimage", "pkg/c"}},
			{Path: "cmd/x", Imports: []string{"pkg/c"}},
		}
	}
	for name, tc := range map[string]struct {
		change func(p []Package) []Package
		rule   string
		text   string
	}{
		"as the map says": {change: func(p []Package) []Package { return p }},
		"no row": {
			change: func(p []Package) []Package { return append(p, Package{Path: "pkg/new"}) },
			rule:   RuleRow, text: "pkg/new",
		},
		"no package": {
			change: func(p []Package) []Package { return p[:3] },
			rule:   RuleRow, text: "cmd/x",
		},
		"upward": {
			change: func(p []Package) []Package { p[0].Imports = []string{"pkg/c"}; return p },
			rule:   RuleDown, text: "pkg/a (level 0) → pkg/c (level 1)",
		},
		"sideways": {
			change: func(p []Package) []Package { p[0].Imports = []string{"pkg/b"}; return p },
			rule:   RuleDown, text: "pkg/a (level 0) → pkg/b (level 0)",
		},
		"idle exception": {
			change: func(p []Package) []Package { p[1].Imports = nil; return p },
			rule:   RuleDown, text: "pkg/b → pkg/a is not needed",
		},
		"foreign module": {
			change: func(p []Package) []Package { p[0].Imports = []string{"example.com/yaml"}; return p },
			rule:   RuleModule, text: "pkg/a → example.com/yaml",
		},
		"another module with the same beginning": {
			change: func(p []Package) []Package { p[2].Imports = []string{"example.com/yamlish"}; return p },
			rule:   RuleModule, text: "example.com/yamlish",
		},
		"fenced module": {
			change: func(p []Package) []Package { p[2].Imports = []string{"example.com/heavy/part"}; return p },
			rule:   RuleFence, text: "pkg/c → example.com/heavy/part: only pkg/heavy may; everything else asks pkg/heavy",
		},
		"fenced package": {
			change: func(p []Package) []Package { p[3].Imports = []string{"pkg/a"}; return p },
			rule:   RuleFence, text: "cmd/x → pkg/a",
		},
		"test above its level": {
			change: func(p []Package) []Package { p[0].TestImports = []string{"pkg/c"}; return p },
			rule:   RuleTest, text: "pkg/a (level 0, test) → pkg/c (level 1)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Parse(example)
			require.NoError(t, err)
			got := Check(m, tc.change(good()))
			if tc.rule == "" {
				assert.Empty(t, got)
				return
			}
			assert.True(t, slices.ContainsFunc(got, func(v Violation) bool {
				return v.Rule == tc.rule && strings.Contains(v.Text, tc.text)
			}), "%q", got)
		})
	}
}

func TestParse(t *testing.T) {
	for name, doc := range map[string]string{
		"no tables":      "# nothing\n",
		"level":          strings.Replace(example, "| 1 |", "| one |", 1),
		"unknown module": strings.Replace(example, "`yaml` |\n| 2", "`toml` |\n| 2", 1),
		"no reason":      strings.Replace(example, "| because |", "| |", 1),
		"cells":          strings.Replace(example, "| the command | |", "| the command |", 1),
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEqual(t, example, doc)
			_, err := Parse(doc)
			assert.Error(t, err)
		})
	}
}

package spec

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/graph"
)

// The created_by texts. Each depends on the operation only: a vertex that two places
// of a spec share has one history.

// maxListed is how many paths a history names.
const maxListed = 8

func listed(paths []string) string {
	if n := len(paths); n > maxListed {
		return strings.Join(paths[:maxListed], ", ") + fmt.Sprintf(" and %d more", n-maxListed)
	}
	return strings.Join(paths, ", ")
}

// historyFiles names the entries that are not below another one that is a directory.
func historyFiles(op graph.Layer) string {
	var paths []string
	dirs := map[string]bool{}
	for _, e := range op.Entries {
		inside := false
		for i := range e.Path {
			if e.Path[i] == '/' && i > 0 && dirs[e.Path[:i]] {
				inside = true
				break
			}
		}
		if e.Type == graph.TypeDirectory && e.Path != "/" {
			dirs[e.Path] = true
		}
		if !inside && e.Path != "/" || len(op.Entries) == 1 {
			paths = append(paths, e.Path)
		}
	}
	return strings.TrimSuffix("FILES "+listed(paths), " ")
}

func historyRun(op graph.Exec) string {
	if len(op.Args) == 3 && op.Args[0] == "/bin/sh" && op.Args[1] == "-c" {
		return "RUN " + strings.Join(op.Args, " ")
	}
	b, err := json.Marshal(op.Args)
	if err != nil {
		return "RUN"
	}
	return "RUN " + string(b)
}

func historyAccounts(op graph.Accounts) string {
	var names []string
	for _, g := range op.Groups {
		names = append(names, g.Name)
	}
	for _, u := range op.Users {
		names = append(names, u.Name)
	}
	return strings.TrimSuffix("ACCOUNTS "+listed(names), " ")
}

// shortName is what people see of a history in progress: one line, without the shell.
func shortName(history string) string {
	history = strings.Replace(history, "RUN /bin/sh -c ", "RUN ", 1)
	lines := strings.Split(strings.TrimSpace(history), "\n")
	if len(lines) > 1 {
		return clean(strings.TrimSpace(lines[0])) + " ..."
	}
	return clean(history)
}

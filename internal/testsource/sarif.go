package testsource

import (
	"encoding/json"
	"testing"
)

// Finding is one of a SARIF log.
type Finding struct{ Rule, Level string }

// SARIF reads a log of one run and checks what readers of it rely on: its version, and that each result names its rule by
// name and by number alike.
func SARIF(tb testing.TB, log any) []Finding {
	tb.Helper()
	raw, err := json.Marshal(log)
	if err != nil {
		tb.Fatal(err)
	}
	var doc struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Level     string
			}
		}
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		tb.Fatal(err)
	}
	if doc.Version != "2.1.0" || len(doc.Runs) != 1 {
		tb.Fatalf("SARIF version %q with %d runs", doc.Version, len(doc.Runs))
	}
	var out []Finding
	for _, r := range doc.Runs[0].Results {
		rules := doc.Runs[0].Tool.Driver.Rules
		if r.RuleIndex < 0 || r.RuleIndex >= len(rules) || rules[r.RuleIndex].ID != r.RuleID {
			tb.Fatalf("result of %q points at rule %d", r.RuleID, r.RuleIndex)
		}
		out = append(out, Finding{r.RuleID, r.Level})
	}
	return out
}

package lint

import "github.com/manifestctl/manifestctl/internal/sarif"

// SARIF renders the report. version is this program's.
func (r *Report) SARIF(version string) sarif.Log {
	var rules []sarif.Rule
	for _, x := range Rules() {
		rules = append(rules, sarif.Rule{ID: x.ID, Text: x.Text, Level: string(x.Level)})
	}
	var results []sarif.Result
	for _, f := range r.Findings {
		x := sarif.Result{
			Rule: f.Rule.ID, Level: string(f.Rule.Level), Text: f.Text, URI: r.Name,
			Print: f.Rule.ID + ":" + r.Name + ":" + f.Digest.String(),
		}
		if f.Digest != "" {
			x.Logical = []string{f.Digest.String()}
		}
		results = append(results, x)
	}
	return sarif.New(version, rules, results)
}

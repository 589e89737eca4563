package verify

import "github.com/manifestctl/manifestctl/internal/sarif"

// SARIF renders reports. version is this program's.
func SARIF(version string, reports []*Report) sarif.Log {
	var rules []sarif.Rule
	for _, r := range Rules() {
		rules = append(rules, sarif.Rule{ID: r.ID, Text: r.Text, Level: string(r.Level)})
	}
	var results []sarif.Result
	for _, report := range reports {
		for _, f := range report.Findings {
			uri := report.Name
			if f.Path != "" {
				uri += "#" + f.Path
			}
			x := sarif.Result{
				Rule: f.Rule.ID, Level: string(f.Level), Text: f.String(), URI: uri,
				Print: f.Rule.ID + ":" + report.Name + ":" + f.Platform + ":" + f.Path,
			}
			for _, name := range []string{f.Platform, f.Digest.String()} {
				if name != "" {
					x.Logical = append(x.Logical, name)
				}
			}
			results = append(results, x)
		}
	}
	return sarif.New(version, rules, results)
}

// Package sarif writes findings in the Static Analysis Results Interchange Format 2.1.0, as code hosts read it.
package sarif

// Log is a whole log of one run.
type Log struct {
	Schema  string `json:"$schema"`
	Version string `json:"version"`
	Runs    []run  `json:"runs"`
}

// Rule is something that was looked for. Level is error, warning or note.
type Rule struct {
	ID    string
	Text  string
	Level string
}

// Result is one finding.
type Result struct {
	Rule    string // ID
	Level   string
	Text    string
	URI     string   // what was looked at: a reference, or a file in it
	Logical []string // names inside of it: digests, platforms
	Print   string   // the same for the same finding in the next run
}

type run struct {
	Tool    tool     `json:"tool"`
	Results []result `json:"results"`
}

type tool struct {
	Driver driver `json:"driver"`
}

type driver struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Rules   []rule `json:"rules"`
}

type rule struct {
	ID      string `json:"id"`
	Short   text   `json:"shortDescription"`
	Default config `json:"defaultConfiguration"`
}

type config struct {
	Level string `json:"level"`
}

type text struct {
	Text string `json:"text"`
}

type result struct {
	RuleID    string     `json:"ruleId"`
	RuleIndex int        `json:"ruleIndex"`
	Level     string     `json:"level"`
	Message   text       `json:"message"`
	Locations []location `json:"locations"`
	Prints    prints     `json:"partialFingerprints"`
}

type location struct {
	Physical physical  `json:"physicalLocation"`
	Logical  []logical `json:"logicalLocations,omitempty"`
}

type physical struct {
	Artifact artifact `json:"artifactLocation"`
}

type artifact struct {
	URI string `json:"uri"`
}

type logical struct {
	Name string `json:"fullyQualifiedName"`
}

type prints struct {
	Entry string `json:"entry/v1"`
}

// New makes a log of a run of this program. A result's rule must be among the rules.
func New(version string, rules []Rule, results []Result) Log {
	r := run{Tool: tool{driver{Name: "manifestctl", Version: version, Rules: []rule{}}}, Results: []result{}}
	index := map[string]int{}
	for i, x := range rules {
		index[x.ID] = i
		r.Tool.Driver.Rules = append(r.Tool.Driver.Rules, rule{x.ID, text{x.Text}, config{x.Level}})
	}
	for _, x := range results {
		at := location{Physical: physical{artifact{x.URI}}}
		for _, name := range x.Logical {
			at.Logical = append(at.Logical, logical{name})
		}
		r.Results = append(r.Results, result{
			RuleID: x.Rule, RuleIndex: index[x.Rule], Level: x.Level, Message: text{x.Text},
			Locations: []location{at}, Prints: prints{x.Print},
		})
	}
	return Log{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []run{r}}
}

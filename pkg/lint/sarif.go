package lint

import (
	"github.com/manifestctl/manifestctl/pkg/index"
)

// SARIF is a log in the Static Analysis Results Interchange Format 2.1.0, as code hosts read it.
type SARIF struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool    sarifTool     `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID      string      `json:"id"`
	Short   sarifText   `json:"shortDescription"`
	Default sarifConfig `json:"defaultConfiguration"`
}

type sarifConfig struct {
	Level index.Level `json:"level"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     index.Level     `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
	Prints    sarifPrints     `json:"partialFingerprints"`
}

type sarifLocation struct {
	Physical sarifPhysical  `json:"physicalLocation"`
	Logical  []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifPhysical struct {
	Artifact sarifArtifact `json:"artifactLocation"`
}

type sarifArtifact struct {
	URI string `json:"uri"`
}

type sarifLogical struct {
	Name string `json:"fullyQualifiedName"`
}

type sarifPrints struct {
	Entry string `json:"entry/v1"`
}

// SARIF renders the report. version is this program's.
func (r *Report) SARIF(version string) SARIF {
	run := sarifRun{
		Tool:    sarifTool{sarifDriver{Name: "manifestctl", Version: version, Rules: []sarifRule{}}},
		Results: []sarifResult{},
	}
	for _, rule := range Rules() {
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{rule.ID, sarifText{rule.Text}, sarifConfig{rule.Level}})
	}
	for _, f := range r.Findings {
		at := sarifLocation{Physical: sarifPhysical{sarifArtifact{r.Name}}}
		if f.Digest != "" {
			at.Logical = []sarifLogical{{f.Digest.String()}}
		}
		run.Results = append(run.Results, sarifResult{
			RuleID: f.Rule.ID, RuleIndex: order(f.Rule), Level: f.Rule.Level, Message: sarifText{f.Text},
			Locations: []sarifLocation{at}, Prints: sarifPrints{f.Rule.ID + ":" + r.Name + ":" + f.Digest.String()},
		})
	}
	return SARIF{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}

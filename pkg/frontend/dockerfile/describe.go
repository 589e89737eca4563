package dockerfile

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/moby/buildkit/frontend/subrequests/lint"
)

// Method is a question about a Dockerfile.
type Method string

// The methods, by the names of BuildKit's subrequests.
const (
	Check   Method = "frontend.lint"    // what is wrong or could be better
	Outline Method = "frontend.outline" // arguments, secrets and ssh mounts of the target
	Targets Method = "frontend.targets" // the stages
)

// Description is the answer.
type Description struct {
	Text     string // for people
	JSON     []byte // for programs: BuildKit's
	Findings int    // of Check: warnings, and the mistake that keeps it from being built
}

// Describe answers a question about a Dockerfile and builds nothing.
func Describe(ctx context.Context, o Options, m Method) (Description, error) {
	_, res, err := run(ctx, o, string(m))
	if err != nil {
		return Description{}, err
	}
	d := Description{Text: string(res.Metadata["result.txt"]), JSON: res.Metadata["result.json"]}
	if m != Check {
		return d, nil
	}
	var found lint.LintResults
	if err := json.Unmarshal(d.JSON, &found); err != nil {
		return d, nil // newer frontends may answer otherwise: the text is the answer
	}
	d.Findings = len(found.Warnings)
	if found.Error != nil {
		d.Findings++
		var b strings.Builder
		found.PrintErrorTo(&b, nil)
		d.Text += "\n" + b.String()
	}
	return d, nil
}

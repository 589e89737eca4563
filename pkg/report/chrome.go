package report

import (
	"encoding/json"
	"io"
	"time"
)

// chromeEvent is an event of the Trace Event Format, as chrome://tracing and Perfetto read it. Times are microseconds.
type chromeEvent struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"` // X: complete, M: metadata
	Time     int64          `json:"ts"`
	Duration int64          `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// WriteChrome writes b in the Trace Event Format (JSON object form): a process a platform, a thread for each step that
// runs beside others of its platform.
func WriteChrome(w io.Writer, b Build) error {
	var events []chromeEvent
	for p, g := range groups(b) {
		events = append(events, chromeEvent{
			Name: "process_name", Phase: "M", Process: p + 1, Args: map[string]any{"name": g.title},
		}, chromeEvent{
			Name: "process_sort_index", Phase: "M", Process: p + 1, Args: map[string]any{"sort_index": p},
		})
		for lane, steps := range g.lanes {
			for _, s := range steps {
				events = append(events, chromeEvent{
					Name: s.Name, Category: string(s.Class), Phase: "X",
					Time: s.Start.Sub(b.Start).Microseconds(), Duration: max(s.Duration().Microseconds(), 1),
					Process: p + 1, Thread: lane + 1, Args: attributes(s),
				})
			}
		}
	}
	return json.NewEncoder(w).Encode(struct {
		Events []chromeEvent  `json:"traceEvents"`
		Unit   string         `json:"displayTimeUnit"`
		Other  map[string]any `json:"otherData,omitempty"`
	}{events, "ms", map[string]any{"name": b.Name, "digest": b.Digest, "start": b.Start.UTC().Format(time.RFC3339Nano)}})
}

// attributes are what viewers show of a step beside its name and times.
func attributes(s Step) map[string]any {
	a := map[string]any{"class": string(s.Class)}
	for key, value := range map[string]string{
		"platform": s.Platform, "source": s.Source, "runner": s.Runner, "error": s.Error, "vertex": s.ID,
	} {
		if value != "" {
			a[key] = value
		}
	}
	if s.Bytes > 0 {
		a["bytes"] = s.Bytes
	}
	if s.Canceled {
		a["canceled"] = true
	}
	return a
}

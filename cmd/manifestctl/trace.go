package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/report"
)

// reportFlags ask for files that show a build afterwards.
type reportFlags struct {
	page   string
	traces []string
}

func (f *reportFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.page, "report", "", "`FILE.html` write a page with the timeline of the build, its layers and advice; also when it fails")
	flags.StringArrayVar(&f.traces, "trace", nil, "`[chrome:|otlp:]FILE` write a trace for chrome://tracing and Perfetto (default), or an OTLP/JSON one for collectors; may be repeated")
}

// files are the names of all that is asked for.
func (f *reportFlags) files() []string {
	out := []string{f.page}
	for _, t := range f.traces {
		out = append(out, traceFile(t))
	}
	return out
}

// traceFile is the file of a --trace.
func traceFile(t string) string {
	return strings.TrimPrefix(strings.TrimPrefix(t, "otlp:"), "chrome:")
}

// recorder collects events when any file is asked for; else it is nil.
func (f *reportFlags) recorder(e *env) *report.Recorder {
	if f.page == "" && len(f.traces) == 0 {
		return nil
	}
	return report.NewRecorder(e.now)
}

// tee gives events to the display and, when there is one, to the recorder.
func tee(display event.Sink, r *report.Recorder) event.Sink {
	if r == nil {
		return display
	}
	record := r.Sink()
	return func(e event.Event) {
		record(e)
		display(e)
	}
}

// write writes the files. failure is the build's error, and part of them.
func (f *reportFlags) write(r *report.Recorder, req build.Request, res build.Result, failure error) error {
	if r == nil {
		return nil
	}
	b := r.Build()
	b.Name, b.Images = req.File, res.Report()
	if len(req.Tags) > 0 {
		b.Name = req.Tags[0].String()
	}
	if failure != nil {
		b.Error = failure.Error()
	} else {
		b.Digest = res.Root.Digest.String()
	}
	var errs []error
	put := func(path string, render func(io.Writer, report.Build) error) {
		var buf bytes.Buffer
		err := render(&buf, b)
		if err == nil {
			err = writeFile(path, buf.Bytes())
		}
		errs = append(errs, err)
	}
	if f.page != "" {
		put(f.page, report.WriteHTML)
	}
	for _, t := range f.traces {
		if path, ok := strings.CutPrefix(t, "otlp:"); ok {
			put(path, report.WriteOTLP)
		} else {
			put(strings.TrimPrefix(t, "chrome:"), report.WriteChrome)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the report of the build: %w", err)
	}
	return nil
}

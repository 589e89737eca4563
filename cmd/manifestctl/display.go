package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/manifestctl/manifestctl/pkg/event"
)

// display shows events until it is closed.
type display interface {
	Sink() event.Sink
	Close()
}

// display returns the display for a --progress value.
func (e *env) display(mode string) (display, error) {
	switch mode {
	case "rawjson":
		return &rawDisplay{w: e.stderr}, nil
	case "quiet", "none":
		return silent{}, nil
	case "auto", "plain", "tty":
		return &plainDisplay{w: e.stderr}, nil
	}
	return nil, usagef("--progress %q: want auto, plain, tty, quiet or rawjson", mode)
}

type silent struct{}

func (silent) Sink() event.Sink { return nil }
func (silent) Close()           {}

type rawDisplay struct{ w io.Writer }

func (d *rawDisplay) Sink() event.Sink {
	enc := json.NewEncoder(d.w)
	return event.Serial(func(ev event.Event) { _ = enc.Encode(ev) })
}
func (d *rawDisplay) Close() {}

type plainDisplay struct{ w io.Writer }

func (d *plainDisplay) Sink() event.Sink {
	return event.Serial(func(ev event.Event) {
		if ev.Kind == event.Log {
			fmt.Fprintf(d.w, "%s", escape(string(ev.Data)))
			return
		}
		fmt.Fprintln(d.w, ev.Kind, ev.Platform, ev.Name, ev.Error)
	})
}
func (d *plainDisplay) Close() {}

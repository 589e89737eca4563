package ui_test

import (
	"os"

	"github.com/manifestctl/manifestctl/internal/ui"
	"github.com/manifestctl/manifestctl/pkg/event"
)

func ExampleNew() {
	d := ui.New(ui.Auto, os.Stdout, ui.Options{})
	sink := d.Sink()
	sink(event.Event{Kind: event.VertexStart, ID: "1", Platform: "linux/arm64", Step: 1, Steps: 2, Name: "RUN uname -m"})
	sink(event.Event{Kind: event.Log, ID: "1", Stream: 1, Data: []byte("aarch64\n")})
	sink(event.Event{Kind: event.VertexDone, ID: "1"})
	d.Close()
	// Output:
	// #1 [linux/arm64 1/2] RUN uname -m
	// #1 0.000 aarch64
	// #1 DONE 0.0s
}

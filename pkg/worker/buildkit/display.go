package buildkit

import (
	"fmt"
	"strings"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
)

// display turns a node's progress into events. Solves of one session share vertices; each is shown once, by the solve that
// saw it first.
type display struct {
	events event.Sink
	node   string

	mu       sync.Mutex // guards vertices
	vertices map[string]*shown
}

// shown is a vertex that has been shown.
type shown struct {
	owner <-chan *client.SolveStatus
	begun bool
	done  bool
	found bool // in a cache
	event event.Event
}

// show emits events until statuses is closed.
func (d *display) show(statuses <-chan *client.SolveStatus, known map[digest.Digest]*graph.Vertex, within string) {
	for s := range statuses {
		if within != "" {
			d.inside(s, within)
			continue
		}
		for _, v := range s.Vertexes {
			d.vertex(statuses, v, known[v.Digest])
		}
		for _, l := range s.Logs {
			if e, ok := d.of(statuses, l.Vertex); ok {
				d.events.Emit(event.Event{Kind: event.Log, ID: e.ID, Stream: l.Stream, Data: l.Data})
			}
		}
		for _, p := range s.Statuses {
			if e, ok := d.of(statuses, p.Vertex); ok && p.Total > 0 {
				d.events.Emit(event.Event{Kind: event.Progress, ID: e.ID, Item: p.ID, Current: p.Current, Total: p.Total})
			}
		}
		for _, w := range s.Warnings {
			d.events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("node %s: %s", d.node, w.Short)})
		}
	}
	d.found(statuses)
}

// inside shows output and moved bytes as those of one vertex.
func (d *display) inside(s *client.SolveStatus, id string) {
	for _, l := range s.Logs {
		d.events.Emit(event.Event{Kind: event.Log, ID: id, Stream: l.Stream, Data: l.Data})
	}
	for _, p := range s.Statuses {
		if p.Total > 0 {
			d.events.Emit(event.Event{Kind: event.Progress, ID: id, Item: p.ID, Current: p.Current, Total: p.Total})
		}
	}
}

// of gives the event of a vertex that is under way and shown by this solve.
func (d *display) of(owner <-chan *client.SolveStatus, id digest.Digest) (event.Event, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.vertices[id.String()]
	if !ok || v.owner != owner || !v.begun || v.done {
		return event.Event{}, false
	}
	return v.event, true
}

func (d *display) vertex(owner <-chan *client.SolveStatus, v *client.Vertex, in *graph.Vertex) {
	d.mu.Lock()
	s, ok := d.vertices[v.Digest.String()]
	if !ok {
		e := event.Event{ID: v.Digest.String() + " " + d.node, Name: v.Name, Node: d.node}
		if in != nil {
			e.Platform, e.Name, e.Step, e.Steps, e.Source = in.Meta.For, in.Meta.Name, in.Meta.Step, in.Meta.Steps, in.Meta.Source
		}
		s = &shown{owner: owner, event: e}
		d.vertices[v.Digest.String()] = s
	}
	var out []event.Event
	if s.owner == owner && !s.done && (v.Started != nil || v.Completed != nil) {
		if !s.begun {
			s.begun = true
			s.event.Kind = event.VertexStart
			out = append(out, s.event)
		}
		// A vertex that was found in a cache begins and ends again for each of its layers that is fetched from there, without
		// saying that it was found: the end is the one that says so.
		s.found = s.found || v.Cached
		if v.Completed != nil && (v.Cached || !s.found || v.Error != "") {
			s.done = true
			s.event.Kind, s.event.Cached, s.event.Error = event.VertexDone, v.Cached, quiet(v.Error)
			s.event.Canceled = strings.Contains(v.Error, "context canceled")
			out = append(out, s.event)
		}
	}
	d.mu.Unlock()
	for _, e := range out {
		d.events.Emit(e)
	}
}

// found ends what was found in a cache and of which no more was said.
func (d *display) found(owner <-chan *client.SolveStatus) {
	d.mu.Lock()
	var out []event.Event
	for _, s := range d.vertices {
		if s.owner == owner && s.begun && !s.done && s.found {
			s.done = true
			s.event.Kind, s.event.Cached = event.VertexDone, true
			out = append(out, s.event)
		}
	}
	d.mu.Unlock()
	for _, e := range out {
		d.events.Emit(e)
	}
}

// end closes what a solve that failed left open.
func (d *display) end(known map[digest.Digest]*graph.Vertex, err error) {
	d.mu.Lock()
	var out []event.Event
	for id := range known {
		if s, ok := d.vertices[id.String()]; ok && s.begun && !s.done {
			s.done = true
			s.event.Kind, s.event.Error, s.event.Canceled = event.VertexDone, err.Error(), true
			out = append(out, s.event)
		}
	}
	d.mu.Unlock()
	for _, e := range out {
		d.events.Emit(e)
	}
}

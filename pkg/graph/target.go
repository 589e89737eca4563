package graph

import "github.com/manifestctl/manifestctl/pkg/platform"

// Build is what a frontend makes of its input: one target for each platform.
type Build struct {
	Targets          []Target
	IndexAnnotations map[string]string
	Contexts         map[string]string // name → directory on this machine
	Warnings         []string          // "rootfs.yaml:3:1: ..."
}

// Target is the image of one platform.
type Target struct {
	Platform    platform.Platform
	Root        *Vertex // nil: scratch without layers
	Config      ConfigPatch
	Annotations map[string]string // of the manifest
	Created     int64             // seconds since the epoch: config.created and the history's
}

// ConfigPatch is laid over the base image's config. A nil pointer, slice or map
// leaves the base's value.
type ConfigPatch struct {
	Entrypoint   []string // setting it clears an inherited Cmd, as a Dockerfile does
	Cmd          []string
	Env          []string // KEY=value; replaces the variable of that name or is appended
	Labels       map[string]string
	User         *string
	WorkingDir   *string
	ExposedPorts []string
	Volumes      []string
	StopSignal   *string
	Author       *string
}

package graph

import "github.com/manifestctl/manifestctl/pkg/platform"

// Build is what a frontend makes of its input: one target for each platform.
type Build struct {
	Targets          []Target
	IndexAnnotations map[string]string
	Contexts         map[string]string // name → directory on this machine
	Warnings         []string          // "rootfs.yaml:3:1: ..."
	Allow            []Allow           // exceptions from the check of contents
}

// Allow is an exception: files at Path may be of Platform as well.
type Allow struct {
	Path     string // a pattern, ** for any depth
	Platform string // a pattern of platforms, or "any"
}

// Target is the image of one platform.
type Target struct {
	Platform    platform.Platform
	Root        *Vertex // nil: scratch without layers
	Config      ConfigPatch
	Image       *ImageConfig      // when the frontend makes the whole config: Config is laid over it, not over the base's
	Annotations map[string]string // of the manifest
	// EntryAnnotations are those of the index's entry for the manifest.
	EntryAnnotations map[string]string
	Created          int64 // seconds since the epoch: config.created and the history's
}

// ImageConfig is the whole config of an image but for its layers, as a Dockerfile frontend gives it.
type ImageConfig struct {
	Raw  []byte // image-spec's config: history without empty layers counted, rootfs empty
	Base []byte // the config of the base image, whose history entries keep their times; nil: scratch
	// Epoch is SOURCE_DATE_EPOCH for this target: times of the config and the history are not after it. nil: as they are.
	Epoch *int64
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

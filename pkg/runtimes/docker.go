package runtimes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// docker is an engine behind docker's API (docs.docker.com/reference/api/engine, "load images").
type docker struct {
	api        *api
	machine    platform.Platform
	containerd bool // images are in containerd's store
}

var _ Runtime = (*docker)(nil)

// dockerVersion is the answer to GET /version.
type dockerVersion struct {
	Version    string
	Os, Arch   string
	Components []struct{ Name string }
}

func openDocker(ctx context.Context, _ Target, env Env) (Runtime, error) {
	a, err := dockerEndpoint(env)
	if err != nil {
		return nil, err
	}
	var v dockerVersion
	if err := a.get(ctx, "/version", &v); err != nil {
		return nil, err
	}
	for _, c := range v.Components {
		if c.Name == "Podman Engine" { // its socket, under docker's name
			return newPodmanAPI(ctx, a, v)
		}
	}
	d := &docker{api: a, machine: machineOf(v.Os, v.Arch)}
	var info struct{ DriverStatus [][2]string }
	if err := a.get(ctx, "/info", &info); err != nil {
		return nil, err
	}
	for _, pair := range info.DriverStatus {
		// moby, daemon/containerd/service.go: what an image store of containerd says of itself.
		if pair[0] == "driver-type" && pair[1] == "io.containerd.snapshotter.v1" {
			d.containerd = true
		}
	}
	return d, nil
}

// machineOf is the platform that an engine names.
func machineOf(os, arch string) platform.Platform {
	p, err := platform.Parse(os + "/" + arch)
	if err != nil {
		return platform.Platform{OS: os, Arch: arch}
	}
	return p
}

// String implements fmt.Stringer.
func (d *docker) String() string {
	kind := "classic store"
	if d.containerd {
		kind = "containerd store"
	}
	return fmt.Sprintf("docker at %s (%s)", d.api.name, kind)
}

// Holds implements Runtime.
func (d *docker) Holds(ps []platform.Platform) ([]int, string, error) {
	if d.containerd {
		return every(ps), "", nil
	}
	return one(d.machine, ps, "docker's classic store holds one platform")
}

// Expands implements Runtime.
func (d *docker) Expands() bool { return !d.containerd }

// Load implements Runtime.
func (d *docker) Load(ctx context.Context, b Bundle) error {
	write := func(ctx context.Context, w io.Writer) error {
		if d.containerd {
			return b.OCI(ctx, w, All, true)
		}
		return b.Docker(ctx, w, 0) // what dockers before 25 read as well
	}
	resp, err := d.api.post(ctx, "/images/load?quiet=1", write)
	if err != nil {
		return err
	}
	if err := loaded(resp); err != nil {
		return err
	}
	names := b.Names
	if len(names) == 0 && !d.containerd {
		names = []string{b.Images[0].ID}
	}
	for _, n := range names { // it is there
		var got struct{ ID string }
		if err := d.api.get(ctx, "/images/"+url.PathEscape(n)+"/json", &got); err != nil {
			return fmt.Errorf("looking for %s: %w", n, err)
		}
		if !d.containerd && got.ID != b.Images[0].ID {
			return fmt.Errorf("%s is %s after the load, and should be %s", n, got.ID, b.Images[0].ID)
		}
	}
	return nil
}

// loaded reads the messages of a load, one JSON value each; an error stands among them with status 200.
func loaded(resp *http.Response) (err error) {
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	for d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)); ; {
		var m struct{ Error string }
		switch err := d.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the engine's answer: %w", err)
		case m.Error != "":
			return fmt.Errorf("the engine says: %s", m.Error)
		}
	}
}

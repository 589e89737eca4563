package builder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// instance is a builder as buildx keeps it, in instances/NAME.
type instance struct {
	Name   string
	Driver string
	Nodes  []struct {
		Name       string
		Endpoint   string
		Platforms  []ocispec.Platform
		DriverOpts map[string]string
	}
}

// buildx gives the builders of buildx.
func (c Config) buildx() ([]Builder, error) {
	if c.Buildx == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(c.Buildx, "instances"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing buildx's builders: %w", err)
	}
	var out []Builder
	var errs []error
	for _, e := range entries {
		if e.IsDir() || CheckName(e.Name()) != nil {
			continue
		}
		b, err := c.buildxInstance(e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, b)
	}
	return out, errors.Join(errs...)
}

func (c Config) buildxInstance(name string) (Builder, error) {
	if c.Buildx == "" {
		return Builder{}, fs.ErrNotExist
	}
	path := filepath.Join(c.Buildx, "instances", name)
	raw, err := os.ReadFile(path)
	if err != nil {
		return Builder{}, err
	}
	b, err := decodeInstance(raw)
	if err != nil {
		return Builder{}, fmt.Errorf("%s: %w", path, err)
	}
	b.Name, b.Origin = name, path
	return b, nil
}

// decodeInstance reads a builder of buildx.
func decodeInstance(raw []byte) (Builder, error) {
	var in instance
	if err := json.Unmarshal(raw, &in); err != nil {
		return Builder{}, fmt.Errorf("%w: %v", ErrInvalid, err) //nolint:errorlint // the decoder's errors are no kinds
	}
	b := Builder{Driver: in.Driver}
	for _, n := range in.Nodes {
		out := Node{Name: n.Name, Endpoint: n.Endpoint}
		for _, o := range n.Platforms {
			p, err := platform.FromOCI(o)
			if err != nil {
				continue // one of a system that is unknown here is never asked for
			}
			out.Platforms = append(out.Platforms, p)
			out.Declared = append(out.Declared, p.String())
		}
		switch in.Driver {
		case DriverRemote:
			out.Options = Options{
				CACert: n.DriverOpts["cacert"], Cert: n.DriverOpts["cert"], Key: n.DriverOpts["key"], ServerName: n.DriverOpts["servername"],
			}
			if err := CheckEndpoint(n.Endpoint); err != nil {
				out.Unusable = err.Error()
			}
		case "docker-container":
			// buildx names the container after the node. A URL of an engine, and no endpoint, is that of the docker command.
			out.Endpoint = "docker-container://buildx_buildkit_" + n.Name
			if n.Endpoint != "default" && CheckName(n.Endpoint) == nil { // a context of docker
				out.Endpoint += "?context=" + n.Endpoint
			}
		default:
			out.Unusable = fmt.Sprintf("buildx's driver %q has no endpoint that others can use", in.Driver)
		}
		b.Nodes = append(b.Nodes, out)
	}
	if len(b.Nodes) == 0 {
		return Builder{}, fmt.Errorf("%w: it has no nodes", ErrInvalid)
	}
	return b, nil
}

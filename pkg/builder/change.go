package builder

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Change is what builder create asks for.
type Change struct {
	Name      string // of the builder; "" is one that is not taken
	Node      string // of the node; "" is the next of the builder, or with Endpoint of a single node that node
	Driver    string // "" is remote when Endpoint is given, else local
	Endpoint  string
	Platforms []platform.Platform
	Options   Options
	Append    bool // add a node to a builder that exists, or change the one named Node
}

// driver checks what the driver wants of the endpoint.
func (ch *Change) driver() error {
	if ch.Driver == "" {
		ch.Driver = DriverRemote
		if ch.Endpoint == "" {
			ch.Driver = DriverLocal
		}
	}
	switch ch.Driver {
	case DriverLocal:
		if ch.Endpoint != "" && ch.Endpoint != Local {
			return fmt.Errorf("%w: driver %s takes no endpoint, and %q was given", ErrInvalid, DriverLocal, ch.Endpoint)
		}
		if ch.Options != (Options{}) {
			return fmt.Errorf("%w: driver %s takes no options", ErrInvalid, DriverLocal)
		}
		ch.Endpoint = Local
	case DriverRemote:
		if ch.Endpoint == "" {
			return fmt.Errorf("%w: driver %s needs an endpoint: one of %s", ErrInvalid, DriverRemote, strings.Join(EndpointForms(), ", "))
		}
		if err := CheckEndpoint(ch.Endpoint); err != nil {
			return err
		}
		if ch.Options != (Options{}) && !strings.HasPrefix(ch.Endpoint, "tcp://") {
			return fmt.Errorf("%w: certificates are for tcp:// endpoints, not for %s", ErrInvalid, ch.Endpoint)
		}
		if (ch.Options.Cert == "") != (ch.Options.Key == "") {
			return fmt.Errorf("%w: cert and key belong together", ErrInvalid)
		}
	case "docker-container":
		return fmt.Errorf("%w: driver %s starts a container, which this program never does. The builder \"%s\" needs none; for one,\n"+
			"  docker run -d --privileged --name buildkitd moby/buildkit:buildx-stable-1\n"+
			"  manifestctl builder create --name %s docker-container://buildkitd", ErrInvalid, ch.Driver, Local, cmp.Or(ch.Name, "NAME"))
	case "kubernetes":
		return fmt.Errorf("%w: driver %s starts pods, which this program never does. deploy/kubernetes has them; then\n"+
			"  manifestctl builder create --name %s kube-pod://buildkit-amd64-0", ErrInvalid, ch.Driver, cmp.Or(ch.Name, "NAME"))
	case "docker":
		return fmt.Errorf("%w: driver %s is the docker engine's own builder, which takes no builds of others: the builder \"%s\" needs none, "+
			"and --load brings its images into docker", ErrInvalid, ch.Driver, Local)
	default:
		return fmt.Errorf("%w: there is no driver %q: want %s or %s", ErrInvalid, ch.Driver, DriverLocal, DriverRemote)
	}
	return nil
}

// Create makes a builder, or with Append a node of one.
func (c Config) Create(ch Change) (Builder, error) {
	if err := ch.driver(); err != nil {
		return Builder{}, err
	}
	if ch.Node != "" {
		if err := CheckName(ch.Node); err != nil {
			return Builder{}, err
		}
	}
	if ch.Name == Local {
		return Builder{}, fmt.Errorf("%w: %q is this program, and always there", ErrExists, Local)
	}
	if ch.Name != "" {
		if err := CheckName(ch.Name); err != nil {
			return Builder{}, err
		}
	}
	var made Builder
	err := c.locked(func() (err error) {
		if ch.Name == "" {
			ch.Name, err = c.freeName()
			if err != nil {
				return err
			}
		}
		made, err = c.Get(ch.Name)
		exists := err == nil
		switch {
		case exists && made.Origin != "":
			return fmt.Errorf("%w: %q is buildx's (%s): use it as it is, or take another name", ErrExists, ch.Name, made.Origin)
		case exists && !ch.Append && ch.Node == "":
			return fmt.Errorf("%w: %q: --append adds a node, --node changes one", ErrExists, ch.Name)
		case !exists && !errors.Is(err, ErrNotFound):
			return err
		case !exists && ch.Append:
			return fmt.Errorf("%w: %q: there is nothing to append to", ErrNotFound, ch.Name)
		case !exists:
			made = Builder{Name: ch.Name, Driver: ch.Driver}
		}
		if ch.Node == "" {
			ch.Node = made.newNodeName()
		}
		n := Node{Name: ch.Node, Endpoint: ch.Endpoint, Platforms: ch.Platforms, Options: ch.Options}
		if i, ok := made.node(ch.Node); ok {
			made.Nodes[i] = n
		} else {
			made.Nodes = append(made.Nodes, n)
		}
		if made.Driver = DriverLocal; made.Remote() {
			made.Driver = DriverRemote
		}
		return c.write(made)
	})
	return made, err
}

// freeName is builder0, or the next number that is free.
func (c Config) freeName() (string, error) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("builder%d", i)
		_, err := c.Get(name)
		if errors.Is(err, ErrNotFound) {
			return name, nil
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			return "", err
		}
	}
}

// Leave takes a node out of a builder. The last one cannot leave.
func (c Config) Leave(name, node string) (Builder, error) {
	var b Builder
	err := c.locked(func() (err error) {
		if b, err = c.changeable(name); err != nil {
			return err
		}
		i, ok := b.node(node)
		if !ok {
			return fmt.Errorf("%w: builder %q has no node %q", ErrNotFound, name, node)
		}
		if len(b.Nodes) == 1 {
			return fmt.Errorf("%w: %q is the last node of %q: `builder rm` removes the builder", ErrInvalid, node, name)
		}
		b.Nodes = slices.Delete(b.Nodes, i, i+1)
		return c.write(b)
	})
	return b, err
}

// Remove removes a builder. When it was in use, the local one is again.
func (c Config) Remove(name string) error {
	return c.locked(func() error {
		if err := CheckName(name); err != nil {
			return err
		}
		if _, err := os.Lstat(c.file(name)); name == Local || err != nil { // one that cannot be read can be removed
			_, err := c.changeable(name)
			return err
		}
		if current, err := c.Current(); err != nil {
			return err
		} else if current == name {
			if err := os.Remove(filepath.Join(c.Dir, currentFile)); err != nil {
				return fmt.Errorf("removing builder %q: %w", name, err)
			}
		}
		if err := os.Remove(c.file(name)); err != nil {
			return fmt.Errorf("removing builder %q: %w", name, err)
		}
		return nil
	})
}

// changeable is a builder of ours.
func (c Config) changeable(name string) (Builder, error) {
	b, err := c.Get(name)
	switch {
	case err != nil:
		return b, err
	case name == Local:
		return b, fmt.Errorf("%w: %q is this program", ErrInvalid, Local)
	case b.Origin != "":
		return b, fmt.Errorf("%w: %q is buildx's (%s): docker buildx changes it", ErrInvalid, name, b.Origin)
	}
	return b, nil
}

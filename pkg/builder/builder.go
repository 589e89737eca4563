// Package builder keeps named builders, the machines that builds run on, and chooses which of a builder's nodes a
// platform goes to. It knows no node but by what it is told of it, and connects to nothing.
//
// # Invariants
//
//   - A builder's file is whole or absent: it is replaced by rename, under a lock that all writers take.
//   - The builder named [Local] is always there: this program on this machine.
//   - buildx's files are read and never written.
package builder

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Local is the name of the default builder, of its driver, and of the endpoint of nodes that are this machine.
const Local = "local"

// The drivers of our builders.
const (
	DriverLocal  = "local"
	DriverRemote = "remote"
)

// The kinds of errors.
var (
	ErrInvalid  = errors.New("invalid builder")
	ErrNotFound = errors.New("no such builder")
	ErrExists   = errors.New("the builder exists")
)

// Builder is one or more machines under a name.
type Builder struct {
	Name   string `json:"name"`
	Driver string `json:"driver"` // local, remote; of buildx's builders also docker, docker-container, kubernetes
	Nodes  []Node `json:"nodes"`
	// Origin is "" for ours, or the file of buildx that it was read from.
	Origin string `json:"-"`
}

// Node is one machine.
type Node struct {
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"` // "local", or the URL of a BuildKit daemon
	// Platforms are those that were declared (--platform); none: what the node reports.
	Platforms []platform.Platform `json:"-"`
	Declared  []string            `json:"platforms,omitempty"` // Platforms as text
	Options   Options             `json:"options,omitzero"`
	// Unusable is why the node of another program cannot be used; "" when it can.
	Unusable string `json:"-"`
}

// Options are those of a connection over TCP: --driver-opt, in buildx's words. Files are absolute paths.
type Options struct {
	CACert     string `json:"cacert,omitempty"`     // who signed the daemon's certificate
	Cert       string `json:"cert,omitempty"`       // ours
	Key        string `json:"key,omitempty"`        // ours
	ServerName string `json:"servername,omitempty"` // whom the daemon's certificate must name; "" is the endpoint's host
}

// IsLocal reports whether the node is this machine, without BuildKit.
func (n Node) IsLocal() bool { return n.Endpoint == Local }

// Remote reports whether any node of b is a BuildKit daemon.
func (b Builder) Remote() bool {
	return slices.ContainsFunc(b.Nodes, func(n Node) bool { return !n.IsLocal() })
}

// node gives the index of the node called name.
func (b Builder) node(name string) (int, bool) {
	i := slices.IndexFunc(b.Nodes, func(n Node) bool { return n.Name == name })
	return i, i >= 0
}

// newNodeName is NAME0, or the next number that is free.
func (b Builder) newNodeName() string {
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s%d", b.Name, i)
		if _, taken := b.node(name); !taken {
			return name
		}
	}
}

// CheckName reports what cannot be the name of a builder or node.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 128 && !strings.ContainsRune("._-", rune(name[0]))
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c))
	}
	if !ok {
		return fmt.Errorf("%w: name %q: letters, digits, '.', '_' and '-', at most 128", ErrInvalid, name)
	}
	return nil
}

// schemes are the endpoints of BuildKit daemons, and what their URL names.
var schemes = []struct{ name, form string }{
	{"tcp", "tcp://HOST:PORT"},
	{"unix", "unix:///PATH"},
	{"ssh", "ssh://[USER@]HOST[:PORT][/SOCKET]"},
	{"docker-container", "docker-container://NAME[?context=NAME]"},
	{"podman-container", "podman-container://NAME"},
	{"kube-pod", "kube-pod://POD[?namespace=NAME&context=NAME&container=NAME]"},
}

// EndpointForms are the endpoints that [CheckEndpoint] takes, for help texts.
func EndpointForms() []string {
	out := make([]string, len(schemes))
	for i, s := range schemes {
		out[i] = s.form
	}
	return out
}

// CheckEndpoint reports what is no endpoint of a BuildKit daemon.
func CheckEndpoint(text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return fmt.Errorf("%w: endpoint %q is no URL", ErrInvalid, text)
	}
	i := slices.IndexFunc(schemes, func(s struct{ name, form string }) bool { return s.name == u.Scheme })
	if i < 0 {
		return fmt.Errorf("%w: endpoint %q: want one of %s", ErrInvalid, text, strings.Join(EndpointForms(), ", "))
	}
	bad := u.Host == ""
	switch u.Scheme {
	case "unix":
		bad = u.Host != "" || u.Path == "" // unix:relative has neither
	case "tcp":
		bad = u.Hostname() == "" || u.Port() == "" || u.Path != ""
	case "ssh": // ssh itself asks for passwords, or an agent has keys
		_, password := u.User.Password()
		bad = u.Hostname() == "" || password || u.RawQuery != "" || u.Fragment != ""
	}
	if bad {
		return fmt.Errorf("%w: endpoint %q: want %s", ErrInvalid, text, schemes[i].form)
	}
	return nil
}

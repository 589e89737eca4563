package builder

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// containers are the endpoints that are containers of an engine, by the command that looks after them.
var containers = map[string]string{"docker-container://": "docker", "podman-container://": "podman"}

// IsContainer reports whether the node is a container of docker's or podman's, which can be started and stopped.
func (n Node) IsContainer() bool {
	_, ok := n.engine("start")
	return ok
}

// Start starts the node's container, and is nil when it runs already. What the daemon in it needs to answer takes a moment more.
func (n Node) Start(ctx context.Context) error { return n.run(ctx, "start") }

// Stop stops the node's container.
func (n Node) Stop(ctx context.Context) error { return n.run(ctx, "stop") }

// engine gives the engine's command for the node; false: it is no container.
func (n Node) engine(verb string) ([]string, bool) {
	for prefix, command := range containers {
		rest, ok := strings.CutPrefix(n.Endpoint, prefix)
		if !ok {
			continue
		}
		name, query, _ := strings.Cut(rest, "?")
		args := []string{command}
		if c, ok := strings.CutPrefix(query, "context="); ok && command == "docker" {
			args = append(args, "--context", c)
		}
		return append(args, verb, name), true
	}
	return nil, false
}

// run runs a command of the engine, whose words are the error's.
func (n Node) run(ctx context.Context, verb string) error {
	args, ok := n.engine(verb)
	if !ok {
		return fmt.Errorf("%w: node %s (%s) is no container", ErrInvalid, n.Name, n.Endpoint)
	}
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput() //nolint:gosec // the user named the engine by the endpoint
	if err != nil {
		return fmt.Errorf("node %s: %s: %w\n%s", n.Name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

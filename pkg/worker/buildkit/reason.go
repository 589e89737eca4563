package buildkit

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/moby/buildkit/util/grpcerrors"
)

// unreachable says why a node did not answer.
func (n *Node) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	text := reason(err)
	if !strings.Contains(text, commandEnd) {
		if said := n.said(ctx); strings.Contains(said, commandEnd) {
			text = said
		}
	}
	kind := ErrUnreachable
	for _, word := range []string{"x509:", "tls:", "first record does not look like a TLS handshake"} {
		if strings.Contains(text, word) {
			kind = ErrCertificate
		}
	}
	if kind == ErrUnreachable {
		if refused := n.handshake(ctx); refused != nil {
			kind, text = ErrCertificate, refused.Error()
		}
	}
	if more := wayKind(n.endpoint.URL, text); more != nil {
		return fmt.Errorf("node %s (%s): %w: %w: %s", n.endpoint.Name, n.endpoint.URL, kind, more, text)
	}
	return fmt.Errorf("node %s (%s): %w: %s", n.endpoint.Name, n.endpoint.URL, kind, text)
}

// wayKind tells the reasons that a person can mend from the rest, by what the commands of the ways to a daemon say.
func wayKind(url, text string) error {
	scheme, _, _ := strings.Cut(url, "://")
	switch scheme {
	case "docker-container", "podman-container":
		for _, word := range []string{"is not running", "is paused", "container state improper"} {
			if strings.Contains(text, word) {
				return ErrStopped
			}
		}
	case "ssh", "kube-pod":
	default:
		return nil
	}
	_, said, ran := strings.Cut(text, commandEnd)
	if !ran || !strings.Contains(said, "buildctl") {
		return nil
	}
	for _, word := range []string{"not found", "no such file or directory"} {
		if strings.Contains(said, word) && !strings.Contains(said, ".sock") && !strings.Contains(said, "dial unix") {
			return ErrNoBuildctl
		}
	}
	return nil
}

// commandEnd stands between a command and what became of it.
const commandEnd = "` ended: "

// commandFailure is how docker's library says that the command of a connection ended.
var commandFailure = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?s)^.*?command \[(.*?)\] has exited with (.*?), make sure the URL is valid, and Docker [0-9.]+ or later is installed on the remote host: stderr=(.*)$`)
})

// ofCommand says it in our words: the advice in it is about another program.
func ofCommand(text string) string {
	m := commandFailure().FindStringSubmatch(text)
	if m == nil {
		return text
	}
	said := strings.TrimSpace(strings.ReplaceAll(m[3], `\n`, "\n"))
	if said == "" {
		said = m[2]
	}
	return "`" + m[1] + commandEnd + said
}

// reason is what gRPC says without its wrapping.
func reason(err error) string {
	text := err.Error()
	if s, ok := grpcerrors.AsGRPCStatus(err); ok {
		text = s.Message()
	}
	for _, prefix := range []string{"connection error: desc = ", "transport: "} {
		if _, rest, ok := strings.Cut(text, prefix); ok {
			text = strings.Trim(rest, `"`)
		}
	}
	text = strings.TrimPrefix(text, "transport: ")
	return ofCommand(strings.ReplaceAll(text, `\"`, `"`))
}

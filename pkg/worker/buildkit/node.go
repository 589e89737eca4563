// Package buildkit solves graphs on BuildKit daemons: one platform as a whole on one node, its layers brought into the
// store. What a node needs of this machine (contexts, layers that were made here, secrets, ssh agents, credentials)
// travels over one session, and nothing else does.
//
// # Invariants
//
//   - A layer that a node sends is in the store under the digest of its bytes, or the solve fails.
//   - A node is given credentials for the registries that the build reads and no others.
//   - What went wrong says which node it was, and whether the step failed or the node was lost.
package buildkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	_ "github.com/moby/buildkit/client/connhelper/dockercontainer" // docker-container://
	_ "github.com/moby/buildkit/client/connhelper/kubepod"         // kube-pod://
	_ "github.com/moby/buildkit/client/connhelper/podmancontainer" // podman-container://
	_ "github.com/moby/buildkit/client/connhelper/ssh"             // ssh://
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/grpcerrors"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// The kinds of errors.
var (
	// ErrUnreachable is a node that does not answer; ErrCertificate one that does not trust us, or we it.
	ErrUnreachable = errors.New("the node cannot be reached")
	ErrCertificate = errors.New("the node's certificate or ours is not accepted")
	// ErrStopped is a container that is there and does not run, ErrNoBuildctl a way to a daemon on which there is no
	// buildctl. Both come with ErrUnreachable.
	ErrStopped    = errors.New("its container is not running")
	ErrNoBuildctl = errors.New("there is no buildctl where the daemon is")
	// ErrLost is a node that answered, and does not any more.
	ErrLost = errors.New("the node was lost")
	// ErrPull is an image that the node could not pull.
	ErrPull = errors.New("the node cannot pull it")
)

// Endpoint says where a daemon is. The files are for TLS; without any, tcp:// is not encrypted.
type Endpoint struct {
	Name   string // for messages
	URL    string // tcp://, unix://, ssh://, docker-container://, podman-container://, kube-pod://
	CACert string // file with who signed its certificate; "" with Cert is the system's
	Cert   string // file with our certificate
	Key    string // file with its key
	Server string // whom its certificate must name; "" is the host of URL
}

// Node is a connection to a daemon.
type Node struct {
	endpoint Endpoint
	client   *client.Client
}

// Status is what a node says of itself.
type Status struct {
	Version  string              // of BuildKit, "v0.34.2"; "" of one before 0.11
	Native   []platform.Platform // what its processor runs
	Emulated []platform.Platform // what it runs beyond that
	Workers  []Worker
	Load     int // builds that are under way
}

// Worker is one worker of a node.
type Worker struct {
	ID        string
	Labels    map[string]string
	Platforms []platform.Platform
	GC        []PruneOptions // what it drops of its own accord, in this order
}

// quietly keeps what BuildKit's and containerd's libraries log from the terminal, which is the events': what matters in it
// comes as an error, or with the progress.
var quietly = sync.OnceFunc(func() { bklog.L.Logger.SetOutput(io.Discard) })

// Dial prepares a connection. Nothing is sent before it is used, so only files that cannot be read are an error here.
func Dial(ctx context.Context, e Endpoint) (*Node, error) {
	quietly()
	var opts []client.ClientOpt
	if e.CACert != "" || e.Cert != "" || e.Server != "" {
		for what, file := range map[string]string{"cacert": e.CACert, "cert": e.Cert, "key": e.Key} {
			if file == "" {
				continue
			}
			if _, err := os.Stat(file); err != nil {
				return nil, fmt.Errorf("node %s: %w: %s: %w", e.Name, ErrCertificate, what, err)
			}
		}
		if e.CACert == "" {
			opts = append(opts, client.WithServerConfigSystem(e.Server))
		} else {
			opts = append(opts, client.WithServerConfig(e.Server, e.CACert))
		}
		if e.Cert != "" {
			opts = append(opts, client.WithCredentials(e.Cert, e.Key))
		}
	}
	c, err := client.New(ctx, e.URL, opts...)
	if err != nil && len(opts) > 0 {
		err = fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	if err != nil {
		return nil, fmt.Errorf("node %s (%s): %w", e.Name, e.URL, err)
	}
	return &Node{endpoint: e, client: c}, nil
}

// Name is the endpoint's.
func (n *Node) Name() string { return n.endpoint.Name }

// Close ends the connection.
func (n *Node) Close() error { return n.client.Close() }

// Status asks the node what it is. It waits no longer than ctx.
func (n *Node) Status(ctx context.Context) (Status, error) {
	workers, err := n.client.ListWorkers(ctx)
	if err != nil {
		return Status{}, n.unreachable(ctx, err)
	}
	var s Status
	for i, w := range workers {
		out := Worker{ID: w.ID, Labels: w.Labels, Platforms: platforms(w.Platforms)}
		for _, g := range w.GCPolicy {
			out.GC = append(out.GC, PruneOptions(g))
		}
		s.Workers = append(s.Workers, out)
		if i == 0 { // BuildKit's default worker: builds that name none go to it
			s.Version = w.BuildkitVersion.Version
			s.Native, s.Emulated = split(out.Platforms)
		}
	}
	s.Load = n.load(ctx)
	return s, nil
}

// load counts the builds that are under way; a daemon that does not tell has none.
func (n *Node) load(ctx context.Context) int {
	stream, err := n.client.ControlClient().ListenBuildHistory(ctx, &controlapi.BuildHistoryRequest{ActiveOnly: true, EarlyExit: true})
	if err != nil {
		return 0
	}
	for count := 0; ; count++ {
		if _, err := stream.Recv(); err != nil {
			return count
		}
	}
}

// platforms are those of list that there are.
func platforms(list []ocispec.Platform) []platform.Platform {
	out := make([]platform.Platform, 0, len(list))
	for _, o := range list {
		if p, err := platform.FromOCI(o); err == nil && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// split tells the platforms of a worker's processor, of which the first is one, from those that it emulates.
func split(list []platform.Platform) (native, emulated []platform.Platform) {
	for _, p := range list {
		own := p.OS == list[0].OS && (p.Arch == list[0].Arch || p.Arch == "386" && list[0].Arch == "amd64")
		if own {
			native = append(native, p)
		} else {
			emulated = append(emulated, p)
		}
	}
	return native, emulated
}

// pulse is how often a node is asked during a solve whether it is there, and how long it may take to answer.
const (
	pulse     = 10 * time.Second
	pulseWait = 20 * time.Second
)

// watch cancels a solve whose node stops answering: a machine that is switched off closes no connection.
func (n *Node) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := n.alive(ctx, pulseWait); err != nil && context.Cause(ctx) == nil {
			cancel(fmt.Errorf("node %s: %w: %s", n.endpoint.Name, ErrLost, reason(err)))
			return
		}
	}
}

// alive asks the node for nothing.
func (n *Node) alive(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	_, err := n.client.ControlClient().Info(ctx, &controlapi.InfoRequest{})
	if grpcerrors.Code(err) == codes.Unimplemented {
		return nil
	}
	return err
}

package build

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/worker/buildkit"
)

// The kinds of errors of nodes.
var (
	ErrNodeUnreachable = buildkit.ErrUnreachable
	ErrNodeCertificate = buildkit.ErrCertificate
	ErrNodeLost        = buildkit.ErrLost
	ErrNodeStopped     = buildkit.ErrStopped
	ErrNodeBuildctl    = buildkit.ErrNoBuildctl
	ErrNoNode          = errors.New("no node builds the platform") // and --fallback was not given
	ErrNodeCannot      = errors.New("nodes cannot do that")        // what was asked for is only done on this machine
)

// NodeStatus is what a node says of itself, and NodeWorker what it says of one of its workers.
type (
	NodeStatus = buildkit.Status
	NodeWorker = buildkit.Worker
)

// AskNode asks a BuildKit node what it is.
func AskNode(ctx context.Context, n builder.Node) (s NodeStatus, err error) {
	if n.IsLocal() {
		return NodeStatus{Native: []platform.Platform{emulate.Machine()}}, nil
	}
	err = withNode(ctx, n, func(c *buildkit.Node) error {
		s, err = c.Status(ctx)
		return err
	})
	return s, err
}

func endpoint(n builder.Node) buildkit.Endpoint {
	return buildkit.Endpoint{
		Name: n.Name, URL: n.Endpoint, CACert: n.Options.CACert, Cert: n.Options.Cert, Key: n.Options.Key, Server: n.Options.ServerName,
	}
}

// fleet is the nodes of a builder at work for one build.
type fleet struct {
	engine  *engine
	name    string // of the builder
	members []*member
	choices map[platform.Platform][]*member // best first; none: locally
	hosts   []string                        // registries that nodes may ask credentials for
	from    []nodeCache                     // of whole builds: --cache-from
	to      []nodeCache                     // and --cache-to
	failed  []error                         // of nodes that did not answer when the build began

	mu sync.Mutex // guards choices, and the members' lost
}

// member is one node.
type member struct {
	candidate builder.Candidate
	conn      *buildkit.Node // nil is this machine
	lost      error          // why it is not asked any more
	lends     atomic.Bool    // it could not pull an image: all are sent to it

	once    sync.Once
	session *buildkit.Session
	err     error
}

// newFleet asks the nodes of the builder what they are. Nodes that do not answer are left out, and are an error only
// when a platform has no other.
func newFleet(ctx context.Context, e *engine) (_ *fleet, err error) {
	b := e.o.Builder
	f := &fleet{engine: e, name: b.Name, choices: map[platform.Platform][]*member{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	asked := make([]*member, len(b.Nodes))
	errs := make([]error, len(b.Nodes))
	var g errgroup.Group
	for i, n := range b.Nodes {
		g.Go(func() error {
			asked[i], errs[i] = f.ask(ctx, n)
			return nil
		})
	}
	_ = g.Wait() // errors are kept by node
	for i, m := range asked {
		if errs[i] != nil {
			f.failed = append(f.failed, errs[i])
			continue
		}
		f.members = append(f.members, m)
	}
	if err := context.Cause(ctx); err != nil {
		return f, err
	}
	if len(f.members) == 0 && !e.o.Fallback {
		return f, errors.Join(f.failed...)
	}
	for _, err := range f.failed {
		e.o.Events.Emit(event.Event{Kind: event.Warning, Text: err.Error() + "; the build goes on without it"})
	}
	return f, nil
}

func (f *fleet) ask(ctx context.Context, n builder.Node) (*member, error) {
	m := &member{candidate: builder.Candidate{Node: n}}
	if n.IsLocal() {
		for _, s := range emulate.List(ctx, emulateOptions(f.engine.o)) {
			switch s.How {
			case emulate.Native:
				m.candidate.Native = append(m.candidate.Native, s.Platform)
			case emulate.None:
			default:
				m.candidate.Emulated = append(m.candidate.Emulated, s.Platform)
			}
		}
		return m, nil
	}
	if n.Unusable != "" {
		return nil, fmt.Errorf("node %s: %w: %s", n.Name, ErrNodeCannot, n.Unusable)
	}
	conn, s, err := connect(ctx, n)
	if errors.Is(err, ErrNodeStopped) {
		conn, s, err = f.start(ctx, n)
	}
	if err != nil {
		return nil, err
	}
	m.conn, m.candidate.Native, m.candidate.Emulated, m.candidate.Load = conn, s.Native, s.Emulated, s.Load
	return m, nil
}

// plan chooses the nodes of every platform, all at once so that they share the load.
func (f *fleet) plan(platforms []platform.Platform) error {
	candidates := make([]builder.Candidate, len(f.members))
	for i, m := range f.members {
		candidates[i] = m.candidate
	}
	var errs []error
	for _, c := range builder.Choose(platforms, candidates) {
		var list []*member
		for _, i := range c.Nodes {
			list = append(list, f.members[i])
		}
		f.mu.Lock()
		f.choices[c.Platform] = list
		f.mu.Unlock()
		if len(list) == 0 && !f.engine.o.Fallback {
			errs = append(errs, f.noNode(c.Platform))
		}
	}
	return errors.Join(errs...)
}

// noNode says what the nodes build instead, and which of them did not answer.
func (f *fleet) noNode(p platform.Platform) error {
	texts := make([]string, 0, len(f.members))
	for _, m := range f.members {
		texts = append(texts, m.candidate.Describe())
	}
	err := fmt.Errorf("%s: %w: %s", p, ErrNoNode, strings.Join(texts, "; "))
	return errors.Join(append([]error{err}, f.failed...)...)
}

// next is the best node for p that is not lost; local when it is this machine.
func (f *fleet) next(p platform.Platform) (m *member, local bool, err error) {
	f.mu.Lock()
	_, planned := f.choices[p]
	f.mu.Unlock()
	if !planned { // of a stage of another platform than the results have
		if err := f.plan([]platform.Platform{p}); err != nil {
			return nil, false, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.choices[p]
	var lost []error
	for _, m := range list {
		if m.lost == nil {
			return m, m.conn == nil, nil
		}
		lost = append(lost, m.lost)
	}
	if f.engine.o.Fallback {
		return nil, true, nil
	}
	return nil, false, errors.Join(append(lost, fmt.Errorf("%s: %w: none is left", p, ErrNoNode))...)
}

// lose takes a node out of the build, once.
func (f *fleet) lose(m *member, p platform.Platform, err error) {
	f.mu.Lock()
	again := m.lost != nil
	m.lost = err
	f.mu.Unlock()
	if !again {
		_ = m.conn.Close() // what waits for it fails at once
		f.engine.o.Events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("%v; %s is begun again elsewhere", err, p)})
	}
}

// pulling calls work, and once more with images sent to the node when it could not pull one.
func (f *fleet) pulling(m *member, work func() error) error {
	sent := m.lends.Load()
	err := work()
	if sent || !errors.Is(err, buildkit.ErrPull) {
		return err
	}
	if !m.lends.Swap(true) {
		f.engine.o.Events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("node %s: %v; images are sent to it from here", m.conn.Name(), err)})
	}
	return work()
}

// open begins the session of a node.
func (f *fleet) open(ctx context.Context, m *member) (*buildkit.Session, error) {
	m.once.Do(func() {
		e := f.engine
		m.session, m.err = m.conn.Open(ctx, buildkit.Host{
			Store: e.store, Dirs: e.contexts, Secret: secrets(e.req, e.o), SSH: e.sshSocket,
			Credentials: e.client.Credentials, Hosts: f.hosts, Bring: e.bring, CacheDirs: f.cacheDirs(), Events: e.o.Events,
		})
	})
	return m.session, m.err
}

func (f *fleet) platforms() []platform.Platform {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]platform.Platform, 0, len(f.choices))
	for p := range f.choices {
		out = append(out, p)
	}
	return out
}

// close ends all sessions and connections.
func (f *fleet) close() error {
	if f == nil {
		return nil
	}
	var errs []error
	for _, m := range f.members {
		// The connection first: a session does not end in good order with a machine that does not answer.
		if m.conn != nil && m.lost == nil {
			errs = append(errs, m.conn.Close())
		}
		if m.session != nil {
			errs = append(errs, m.session.Close())
		}
	}
	return errors.Join(errs...)
}

// below gives all vertices that roots need, each once.
func below(roots []*graph.Vertex) iter.Seq[*graph.Vertex] {
	return func(yield func(*graph.Vertex) bool) {
		seen := map[*graph.Vertex]bool{}
		todo := slices.Clone(roots)
		for len(todo) > 0 {
			v := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if v == nil || seen[v] {
				continue
			}
			seen[v] = true
			if !yield(v) {
				return
			}
			todo = append(todo, v.Inputs...)
		}
	}
}

// registries are the hosts of images below roots that nodes pull themselves. What registries.conf forbids is an error.
func (f *fleet) registries(roots []*graph.Vertex) ([]string, error) {
	var out []string
	for v := range below(roots) {
		op, ok := v.Op.(graph.Image)
		if !ok {
			continue
		}
		r, err := ref.Parse(op.Ref)
		if err != nil || r.Kind != ref.Registry {
			continue
		}
		route, err := f.engine.client.Route(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op.Ref, err)
		}
		if route.ByName() && !slices.Contains(out, r.Host) {
			out = append(out, r.Host)
		}
	}
	return out, nil
}

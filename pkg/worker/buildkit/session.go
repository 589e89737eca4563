package buildkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	contentlocal "github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Host is what builds on nodes use of this machine.
type Host struct {
	Store *store.Store
	Dirs  map[string]string // contexts by name; "" is an empty directory
	// Secret gives a secret by its id, and SSH the socket of an agent; nil: none.
	Secret func(id string) (data []byte, ok bool, err error)
	SSH    func(id string) (socket string, ok bool)
	// Credentials gives what is known for a registry (HOST[:PORT]); nil: nothing is. Hosts are those that it is asked for.
	Credentials func(ctx context.Context, host string) (user, secret string, err error)
	Hosts       []string
	// Bring makes sure that a layer which the build ships is in the store.
	Bring     func(ctx context.Context, desc ocispec.Descriptor) error
	CacheDirs []string // of CacheTo and CacheFrom of type local
	Events    event.Sink
}

// Session is a node at work for one build. It is safe for concurrent use.
type Session struct {
	node     *Node
	host     Host
	session  *session.Session
	contents *contents
	mounts   map[string]fsutil.FS
	display  *display
	empty    string // an empty directory, when a context is one
	ran      sync.WaitGroup
	stop     context.CancelFunc
}

// Open begins a session.
func (n *Node) Open(ctx context.Context, h Host) (_ *Session, err error) {
	s := &Session{
		node: n, host: h, contents: newContents(h.Store, h.Bring), mounts: map[string]fsutil.FS{},
		display: &display{events: h.Events, node: n.endpoint.Name, vertices: map[string]*shown{}},
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("node %s: %w", n.endpoint.Name, err), s.Close())
		}
	}()
	if s.session, err = session.NewSession(ctx, sharedKey(h.Dirs)); err != nil {
		return nil, err
	}
	if err := s.directories(); err != nil {
		return nil, err
	}
	stores := map[string]content.Store{"export": s.contents, "oci:" + storeID: s.contents}
	for _, dir := range h.CacheDirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if stores["local:"+dir], err = contentlocal.NewStore(dir); err != nil {
			return nil, err
		}
	}
	s.session.Allow(sessioncontent.NewAttachable(stores))
	s.session.Allow(secretsprovider.NewSecretProvider(secretStore{h.Secret}))
	s.session.Allow(&agents{socket: h.SSH})
	s.session.Allow(&keychain{host: h})
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	s.ran.Go(func() {
		_ = s.session.Run(run, n.client.Dialer()) // a node that ends it fails the solve, which says why
	})
	return s, nil
}

// Close ends the session.
func (s *Session) Close() error {
	var errs []error
	if s.session != nil {
		errs = append(errs, s.session.Close())
	}
	if s.stop != nil {
		s.stop()
	}
	s.ran.Wait()
	if s.empty != "" {
		errs = append(errs, os.RemoveAll(s.empty))
	}
	return errors.Join(errs...)
}

// sharedKey lets a daemon send only what changed in a context since the last build of the same directories.
func sharedKey(dirs map[string]string) string {
	if dir, err := filepath.Abs(dirs["context"]); err == nil && dirs["context"] != "" {
		return "manifestctl:" + filepath.ToSlash(dir)
	}
	return ""
}

// directories opens the contexts as nodes see them: files are root's.
func (s *Session) directories() error {
	for name, dir := range s.host.Dirs {
		if dir == "" {
			if s.empty == "" {
				var err error
				if s.empty, err = os.MkdirTemp("", "manifestctl-empty-"); err != nil {
					return err
				}
			}
			dir = s.empty
		}
		if _, err := os.Stat(dir); err != nil {
			return fmt.Errorf("build context %q: %w", name, err)
		}
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			return fmt.Errorf("build context %q: %w", name, err)
		}
		s.mounts[name], err = fsutil.NewFilterFS(fs, &fsutil.FilterOpt{Map: func(_ string, st *fstypes.Stat) fsutil.MapResult {
			st.Uid, st.Gid = 0, 0
			return fsutil.MapResultKeep
		}})
		if err != nil {
			return fmt.Errorf("build context %q: %w", name, err)
		}
	}
	if len(s.mounts) > 0 {
		s.session.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource(s.mounts), nil))
	}
	return nil
}

// secretStore answers for secrets.
type secretStore struct {
	secret func(id string) ([]byte, bool, error)
}

// GetSecret implements secrets.SecretStore.
func (s secretStore) GetSecret(_ context.Context, id string) ([]byte, error) {
	if s.secret != nil {
		data, ok, err := s.secret(id)
		if ok || err != nil {
			return data, err
		}
	}
	return nil, fmt.Errorf("secret %q: %w", id, secrets.ErrNotFound)
}

// agents forwards connections to ssh agents.
type agents struct {
	socket func(id string) (string, bool)
}

var _ sshforward.SSHServer = (*agents)(nil)

// Register implements session.Attachable.
func (a *agents) Register(server *grpc.Server) { sshforward.RegisterSSHServer(server, a) }

func (a *agents) find(id string) (string, error) {
	if id == "" {
		id = sshforward.DefaultID
	}
	if a.socket != nil {
		if socket, ok := a.socket(id); ok {
			return socket, nil
		}
	}
	return "", status.Errorf(codes.NotFound, "there is no ssh agent %q: give it with --ssh %s", id, id)
}

// CheckAgent implements sshforward.SSHServer.
func (a *agents) CheckAgent(_ context.Context, req *sshforward.CheckAgentRequest) (*sshforward.CheckAgentResponse, error) {
	_, err := a.find(req.ID)
	return &sshforward.CheckAgentResponse{}, err
}

// ForwardAgent implements sshforward.SSHServer.
func (a *agents) ForwardAgent(stream sshforward.SSH_ForwardAgentServer) error {
	id := ""
	if md, ok := metadata.FromIncomingContext(stream.Context()); ok {
		if v := md[sshforward.KeySSHID]; len(v) > 0 {
			id = v[0]
		}
	}
	socket, err := a.find(id)
	if err != nil {
		return err
	}
	var d net.Dialer
	conn, err := d.DialContext(stream.Context(), "unix", socket)
	if err != nil {
		return err
	}
	return sshforward.Copy(stream.Context(), conn, stream, nil)
}

// keychain gives the credentials of registries that the build reads.
type keychain struct {
	auth.UnimplementedAuthServer // tokens are fetched by the node

	host Host
}

// Register implements session.Attachable.
func (k *keychain) Register(server *grpc.Server) { auth.RegisterAuthServer(server, k) }

// hubHost is where docker.io really is.
const hubHost = "registry-1.docker.io"

// Credentials implements auth.AuthServer.
func (k *keychain) Credentials(ctx context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := req.Host
	if host == hubHost {
		host = "docker.io"
	}
	if k.host.Credentials == nil || !slices.Contains(k.host.Hosts, host) {
		return &auth.CredentialsResponse{}, nil
	}
	user, secret, err := k.host.Credentials(ctx, host)
	if err != nil {
		return nil, err
	}
	return &auth.CredentialsResponse{Username: user, Secret: secret}, nil
}

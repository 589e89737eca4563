package buildkit

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/connhelper"
	"github.com/moby/buildkit/session/auth"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func openStore(t *testing.T) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, st.Close()) })
	return st
}

func nowhere(context.Context, ocispec.Descriptor) error { return store.ErrNotFound }

// TestContentsShowOnlyWhatIsShipped: a node reads the layers of the build and nothing else of the store.
func TestContentsShowOnlyWhatIsShipped(t *testing.T) {
	st := openStore(t)
	ours, err := st.PutBytes(t.Context(), ocispec.MediaTypeImageLayer, []byte("a layer"))
	require.NoError(t, err)
	private, err := st.PutBytes(t.Context(), ocispec.MediaTypeImageLayer, []byte("another build's"))
	require.NoError(t, err)
	c := newContents(st, nowhere)
	c.ship(ours)
	doc := c.shipBytes([]byte("{}"))

	for d, want := range map[digest.Digest]string{ours.Digest: "a layer", doc: "{}"} {
		info, err := c.Info(t.Context(), d)
		require.NoError(t, err)
		assert.Equal(t, int64(len(want)), info.Size)
		r, err := c.ReaderAt(t.Context(), ocispec.Descriptor{Digest: d})
		require.NoError(t, err)
		raw := make([]byte, r.Size())
		_, err = r.ReadAt(raw, 0)
		require.NoError(t, err)
		assert.Equal(t, want, string(raw))
		require.NoError(t, r.Close())
	}
	_, err = c.Info(t.Context(), private.Digest)
	require.ErrorIs(t, err, cerrdefs.ErrNotFound)
	_, err = c.ReaderAt(t.Context(), private)
	require.ErrorIs(t, err, cerrdefs.ErrNotFound)
	require.Error(t, c.Delete(t.Context(), ours.Digest))
	require.Error(t, c.Walk(t.Context(), func(content.Info) error { return nil }))
}

// TestContentsBringLayersThatAreElsewhere: a base layer is fetched when a node wants it, not before.
func TestContentsBringLayersThatAreElsewhere(t *testing.T) {
	st := openStore(t)
	desc := ocispec.Descriptor{Digest: digest.FromString("later"), Size: 5}
	brought := 0
	c := newContents(st, func(ctx context.Context, d ocispec.Descriptor) error {
		brought++
		_, err := st.PutBytes(ctx, d.MediaType, []byte("later"))
		return err
	})
	c.ship(desc)
	assert.Zero(t, brought)
	for range 2 {
		r, err := c.ReaderAt(t.Context(), desc)
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	assert.Equal(t, 1, brought)
}

func TestContentsTakeWhatIsWanted(t *testing.T) {
	st := openStore(t)
	c := newContents(st, nowhere)
	write := func(text string, desc ocispec.Descriptor) error {
		w, err := c.Writer(t.Context(), content.WithRef("x"), content.WithDescriptor(desc))
		if err != nil {
			return err
		}
		defer w.Close()
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return w.Commit(t.Context(), desc.Size, desc.Digest)
	}
	good := ocispec.Descriptor{Digest: digest.FromString("layer"), Size: 5}
	require.Error(t, write("other", good), "bytes of another digest are refused")
	_, err := st.Stat(good.Digest)
	require.ErrorIs(t, err, store.ErrNotFound)
	require.Error(t, write("lay", good), "half of a layer is refused")
	require.NoError(t, write("layer", good))
	size, err := st.Stat(good.Digest)
	require.NoError(t, err)
	assert.Equal(t, int64(5), size)
	require.ErrorIs(t, write("layer", good), cerrdefs.ErrAlreadyExists, "it is not sent twice")

	base := ocispec.Descriptor{Digest: digest.FromString("base"), Size: 4}
	c.known = func(_ context.Context, d digest.Digest) bool { return d == base.Digest }
	require.ErrorIs(t, write("base", base), cerrdefs.ErrAlreadyExists, "what a registry has is not sent")
}

// TestCredentialsAreForRegistriesOfTheBuild: a node cannot ask for others.
func TestCredentialsAreForRegistriesOfTheBuild(t *testing.T) {
	var asked []string
	k := &keychain{host: Host{
		Hosts: []string{"docker.io", "registry.example:5000"},
		Credentials: func(_ context.Context, host string) (string, string, error) {
			asked = append(asked, host)
			return "me", "of " + host, nil
		},
	}}
	for host, want := range map[string]string{
		"registry.example:5000": "of registry.example:5000", "registry-1.docker.io": "of docker.io", "other.example": "", "registry.example": "",
	} {
		r, err := k.Credentials(t.Context(), &auth.CredentialsRequest{Host: host})
		require.NoError(t, err)
		assert.Equal(t, want, r.Secret, host)
	}
	assert.ElementsMatch(t, []string{"registry.example:5000", "docker.io"}, asked)
}

// TestDisplayShowsAVertexOnce: two platforms on one node share vertices.
func TestDisplayShowsAVertexOnce(t *testing.T) {
	var got []string
	d := &display{node: "n", vertices: map[string]*shown{}, events: func(e event.Event) {
		got = append(got, string(e.Kind)+" "+e.Name+" "+string(e.Data)+e.Node)
	}}
	one := digest.FromString("one")
	v := graph.New(graph.Merge{}, platform.Platform{}, graph.Meta{Name: "RUN x", Source: "Dockerfile:1"})
	known := map[digest.Digest]*graph.Vertex{one: v}
	now := time.Now()
	statuses := func() chan *client.SolveStatus {
		c := make(chan *client.SolveStatus, 3)
		c <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: one, Name: "theirs", Started: &now}}}
		c <- &client.SolveStatus{Logs: []*client.VertexLog{{Vertex: one, Stream: 1, Data: []byte("hi")}}}
		c <- &client.SolveStatus{Vertexes: []*client.Vertex{{Digest: one, Name: "theirs", Started: &now, Completed: &now}}}
		close(c)
		return c
	}
	d.show(statuses(), known, "")
	d.show(statuses(), known, "")
	assert.Equal(t, []string{"start RUN x n", "log  hi", "done RUN x n"}, got)
	got = nil
	d.show(statuses(), known, "vertex of ours")
	assert.Equal(t, []string{"log  hi"}, got, "of a vertex that is shown already there is the output")
}

// TestDisplayOfWhatIsFound: a vertex of an imported cache ends once for each of its layers that is fetched, and once more as
// found. These are the statuses of BuildKit 0.34.
func TestDisplayOfWhatIsFound(t *testing.T) {
	now := time.Now()
	one := digest.FromString("one")
	known := map[digest.Digest]*graph.Vertex{one: graph.New(graph.Merge{}, platform.Platform{}, graph.Meta{Name: "RUN x", Source: "Dockerfile:1"})}
	for name, last := range map[string][]*client.Vertex{
		"the end is said": {{Digest: one, Started: &now, Completed: &now, Cached: true}},
		"it is not":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			d := &display{node: "n", vertices: map[string]*shown{}, events: func(e event.Event) {
				got = append(got, fmt.Sprint(e.Kind, " ", e.Name, e.Item, " ", e.Cached))
			}}
			statuses := make(chan *client.SolveStatus, 9)
			for _, v := range append([]*client.Vertex{
				{Digest: one},
				{Digest: one, Started: &now, Cached: true},
				{Digest: one, Started: &now},
				{Digest: one, Started: &now, Completed: &now},
				{Digest: one, Started: &now},
				{Digest: one, Started: &now, Completed: &now},
			}, last...) {
				statuses <- &client.SolveStatus{Vertexes: []*client.Vertex{v}, Statuses: []*client.VertexStatus{{Vertex: one, ID: "layer", Current: 1, Total: 1}}}
			}
			close(statuses)
			d.show(statuses, known, "")
			assert.Equal(t, "start RUN x false", got[0])
			assert.Equal(t, "done RUN x true", got[len(got)-1])
			assert.Contains(t, got, "status layer false", "what is fetched is shown")
			assert.Equal(t, 1, strings.Count(strings.Join(got, "\n"), "done"), got)
		})
	}
}

func TestNativeAndEmulated(t *testing.T) {
	p := func(text string) platform.Platform {
		out, err := platform.Parse(text)
		require.NoError(t, err)
		return out
	}
	native, emulated := split([]platform.Platform{p("linux/amd64"), p("linux/amd64/v2"), p("linux/arm64"), p("linux/386"), p("linux/arm/v7")})
	assert.Equal(t, []platform.Platform{p("linux/amd64"), p("linux/amd64/v2"), p("linux/386")}, native)
	assert.Equal(t, []platform.Platform{p("linux/arm64"), p("linux/arm/v7")}, emulated)
	native, emulated = split(nil)
	assert.Empty(t, append(native, emulated...))
}

func TestReasons(t *testing.T) {
	for text, want := range map[string]string{
		`failed to solve: failed to compute cache key: failed to calculate checksum of ref a::b: "/x": not found`: `"/x": not found`,
		"rpc error: code = Unknown desc = no": "no",
		"process failed":                      "process failed",
	} {
		assert.Equal(t, want, quiet(text))
	}
}

// TestWays: what the commands of a connection say is passed on, and what can be mended is told apart.
func TestWays(t *testing.T) {
	const failed = "error reading server preface: command [%s] has exited with exit status 1, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr=%s"
	for name, tc := range map[string]struct {
		url, said string
		want      error
	}{
		"docker, stopped": {"docker-container://x", "Error response from daemon: Container 5aff is not running", ErrStopped},
		"podman, stopped": {"podman-container://x", "Error: can only create exec sessions on running containers: container state improper", ErrStopped},
		"no container":    {"docker-container://x", "Error: No such container: x", nil},
		"ssh's shell":     {"ssh://x", "sh: 1: buildctl: not found", ErrNoBuildctl},
		"bash":            {"ssh://x", "bash: line 1: buildctl: command not found", ErrNoBuildctl},
		"runc":            {"docker-container://x", `OCI runtime exec failed: exec: "buildctl": executable file not found in $PATH: unknown`, ErrNoBuildctl},
		"no daemon":       {"ssh://x", "buildctl: dial unix /run/buildkit/buildkitd.sock: connect: no such file or directory", nil},
		"a key":           {"ssh://x", "Host key verification failed.", nil},
	} {
		text := ofCommand(fmt.Sprintf(failed, "run buildctl dial-stdio", tc.said+"\n"))
		assert.Equal(t, "`run buildctl dial-stdio` ended: "+tc.said, text, name)
		assert.Equal(t, tc.want, wayKind(tc.url, text), name)
	}
	assert.Equal(t, "`x` ended: exit status 255", ofCommand("command [x] has exited with exit status 255, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr="))
	assert.Equal(t, "connection refused", ofCommand("connection refused"))
	require.NoError(t, wayKind("tcp://x:1", "buildctl: not found"))
}

// TestSchemes: every endpoint that builders may have leads somewhere.
func TestSchemes(t *testing.T) {
	for _, url := range []string{
		"ssh://me@host", "ssh://me@host:22/run/user/1000/buildkit/buildkitd.sock", "docker-container://box", "docker-container://box?context=other", "podman-container://box",
		"kube-pod://pod?namespace=builds&context=c&container=buildkitd",
	} {
		require.NoError(t, builder.CheckEndpoint(url))
		h, err := connhelper.GetConnectionHelper(url)
		require.NoError(t, err, url)
		assert.NotNil(t, h, url)
	}
	for _, url := range []string{"tcp://h:1", "unix:///s"} {
		require.NoError(t, builder.CheckEndpoint(url))
	}
	for _, url := range []string{"ssh://me@host?socket=/s", "ssh://me:secret@host", "ssh://host#x", "docker-container://", "kube-pod://"} {
		require.ErrorIs(t, builder.CheckEndpoint(url), builder.ErrInvalid, url)
		_, err := connhelper.GetConnectionHelper(url)
		require.Error(t, err, "BuildKit does not take it either: %s", url)
	}
}

// TestUnreachable: what keeps us from a node is said, at once, and is of the right kind.
func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	ca, err := testregistry.NewAuthority("daemon")
	require.NoError(t, err)
	stranger, err := testregistry.NewAuthority("stranger")
	require.NoError(t, err)
	cert, key, err := ca.Issue(time.Now().Add(-time.Minute), "127.0.0.1")
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), NextProtos: []string{"h2"},
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = tls.Server(c, config).Handshake()
				if tcp, ok := c.(*net.TCPConn); ok {
					_ = tcp.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, c) // with what is not read it would be a reset, which the client may see before the reason
			}()
		}
	}()
	caFile, otherCA := file("ca", ca.PEM), file("other", stranger.PEM)
	theirCert, theirKey, err := stranger.Issue(time.Now().Add(-time.Minute), "me")
	require.NoError(t, err)
	certFile, keyFile := file("cert", theirCert), file("key", theirKey)
	url := "tcp://" + l.Addr().String()
	t.Setenv("PATH", dir)
	// It ends before gRPC has written to it, most often.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "podman"), []byte("#!/bin/sh\nexec <&-\necho Error: container state improper >&2\nexit 255\n"), 0o755))
	for name, tc := range map[string]struct {
		endpoint Endpoint
		want     error
	}{
		"nobody there":       {Endpoint{URL: "tcp://" + testregistry.Nobody(t)}, ErrUnreachable},
		"no socket":          {Endpoint{URL: "unix://" + filepath.Join(dir, "none.sock")}, ErrUnreachable},
		"we do not trust it": {Endpoint{URL: url, CACert: otherCA}, ErrCertificate},
		"it wants ours":      {Endpoint{URL: url, CACert: caFile}, ErrCertificate},
		"it refuses ours":    {Endpoint{URL: url, CACert: caFile, Cert: certFile, Key: keyFile}, ErrCertificate},
		"another name":       {Endpoint{URL: url, CACert: caFile, Server: "daemon.example"}, ErrCertificate},
		"no docker":          {Endpoint{URL: "docker-container://box"}, ErrUnreachable},
		"a stopped one":      {Endpoint{URL: "podman-container://box"}, ErrStopped},
		"no such file":       {Endpoint{URL: url, CACert: filepath.Join(dir, "none")}, ErrCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			tc.endpoint.Name = "node"
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			n, err := Dial(ctx, tc.endpoint)
			if err == nil {
				_, err = n.Status(ctx)
				require.NoError(t, n.Close())
			}
			require.ErrorIs(t, err, tc.want)
			assert.True(t, strings.HasPrefix(err.Error(), "node node"), err)
		})
	}
}

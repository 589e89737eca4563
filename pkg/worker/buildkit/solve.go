package buildkit

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	bkllb "github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// storeID names this side's images in definitions.
const storeID = "manifestctl"

// Cache is a place where BuildKit keeps its own records.
type Cache struct {
	Type  string // registry, local
	Attrs map[string]string
}

// SolveOptions tune a solve.
type SolveOptions struct {
	Platform           platform.Platform
	Allow              llb.Allow
	CacheFrom, CacheTo []Cache
	// Within is the ID of the event of a vertex that is shown already and that all of this is work for; "": vertices are shown.
	Within string
	// Known tells whether a blob need not be sent, because this side knows where it is; nil: all are sent.
	Known func(ctx context.Context, d digest.Digest) bool
}

// Layer is a layer that a node sent, or that it knows this side has.
type Layer struct {
	Desc   ocispec.Descriptor
	DiffID digest.Digest
}

// Ship makes an image of layers that this side has, for nodes to read, and gives the source that names it in definitions.
// descs have the media types of OCI layers; those of layers that are not in the store yet are brought when a node wants them.
func (s *Session) Ship(descs []ocispec.Descriptor, diffIDs []digest.Digest, p platform.Platform) (llb.Source, error) {
	o := p.OCI()
	config := ocispec.Image{Platform: ocispec.Platform{
		Architecture: o.Architecture, OS: o.OS, Variant: o.Variant, OSVersion: o.OSVersion, OSFeatures: o.OSFeatures,
	}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: diffIDs}}
	rawConfig, err := json.Marshal(config)
	if err != nil {
		return llb.Source{}, fmt.Errorf("making a config: %w", err)
	}
	manifest := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: descs}
	manifest.SchemaVersion = 2
	manifest.Config = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig, Digest: s.contents.shipBytes(rawConfig), Size: int64(len(rawConfig)),
	}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return llb.Source{}, fmt.Errorf("making a manifest: %w", err)
	}
	for _, d := range descs {
		s.contents.ship(d)
	}
	return llb.Source{
		Identifier: "oci-layout://" + storeID + "/image@" + s.contents.shipBytes(rawManifest).String(),
		Attrs:      map[string]string{"oci.store": storeID, "oci.session": s.session.ID()}, Platform: p,
	}, nil
}

// Solve runs a definition and brings the layers of its result into the store. A step that fails is a [*solve.StepError].
func (s *Session) Solve(ctx context.Context, enc *llb.Encoded, o SolveOptions) ([]Layer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go s.node.watch(ctx, cancel)
	s.contents.mu.Lock()
	if o.Known != nil {
		s.contents.known = either(s.contents.known, o.Known)
	}
	s.contents.mu.Unlock()

	def := new(bkllb.Definition)
	def.FromPB(enc.Definition)
	opt := client.SolveOpt{
		Exports: []client.ExportEntry{{Type: client.ExporterOCI, Attrs: map[string]string{
			"tar": "false", "oci-mediatypes": "true", "compression": "uncompressed",
		}}},
		LocalMounts: s.mounts, SharedSession: s.session, SessionPreInitialized: true,
		CacheImports: caches(o.CacheFrom), CacheExports: caches(o.CacheTo), AllowedEntitlements: entitlements(o.Allow),
	}
	statuses := make(chan *client.SolveStatus)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		s.display.show(statuses, enc.Vertices, o.Within)
	}()
	res, err := s.node.client.Solve(ctx, def, opt, statuses)
	<-shown
	if err != nil {
		err = s.explain(ctx, err, enc.Vertices)
		s.display.end(enc.Vertices, err)
		return nil, err
	}
	return s.layers(ctx, res.ExporterResponse)
}

// either asks both.
func either(a, b func(context.Context, digest.Digest) bool) func(context.Context, digest.Digest) bool {
	if a == nil {
		return b
	}
	return func(ctx context.Context, d digest.Digest) bool { return b(ctx, d) || a(ctx, d) }
}

func caches(list []Cache) []client.CacheOptionsEntry {
	var out []client.CacheOptionsEntry
	for _, c := range list {
		out = append(out, client.CacheOptionsEntry{Type: c.Type, Attrs: maps.Clone(c.Attrs)})
	}
	return out
}

func entitlements(a llb.Allow) []string {
	var out []string
	if a.NetworkHost {
		out = append(out, "network.host")
	}
	if a.SecurityInsecure {
		out = append(out, "security.insecure")
	}
	if a.Device {
		out = append(out, "device")
	}
	for _, name := range a.Devices {
		out = append(out, "device="+name)
	}
	return out
}

// maxDocument bounds manifests and configs of nodes.
const maxDocument = 16 << 20

// layers reads what the node exported.
func (s *Session) layers(ctx context.Context, response map[string]string) ([]Layer, error) {
	var desc ocispec.Descriptor
	raw, err := base64.StdEncoding.DecodeString(response[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(raw, &desc)
	}
	if err != nil {
		return nil, fmt.Errorf("node %s: reading its answer: %w", s.node.endpoint.Name, err)
	}
	var manifest ocispec.Manifest
	var config ocispec.Image
	if err := s.document(ctx, desc, &manifest); err != nil {
		return nil, err
	}
	if err := s.document(ctx, manifest.Config, &config); err != nil {
		return nil, err
	}
	if len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return nil, fmt.Errorf("node %s: an image of %d layers whose config has %d: %w",
			s.node.endpoint.Name, len(manifest.Layers), len(config.RootFS.DiffIDs), store.ErrCorrupt)
	}
	out := make([]Layer, len(manifest.Layers))
	for i, l := range manifest.Layers {
		out[i] = Layer{
			Desc:   ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size},
			DiffID: config.RootFS.DiffIDs[i],
		}
	}
	return out, nil
}

func (s *Session) document(ctx context.Context, desc ocispec.Descriptor, into any) error {
	raw, err := s.host.Store.ReadAll(ctx, desc, maxDocument)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fmt.Errorf("node %s: reading %s: %w", s.node.endpoint.Name, desc.Digest, err)
	}
	return nil
}

// lostWait is how long a node may take to say that it is there, after something failed.
const lostWait = 5 * time.Second

// explain says what an error of a solve means: a step that failed, with its place; a node that is gone; or what the node said.
func (s *Session) explain(ctx context.Context, err error, vertices map[digest.Digest]*graph.Vertex) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var exit *gatewayapi.ExitError
	failed := errors.As(err, &exit)
	if code := grpcerrors.Code(err); !failed && (code == codes.Unavailable || code == codes.Unknown || code == codes.Canceled || code == codes.Internal) {
		if gone := s.node.alive(ctx, lostWait); gone != nil {
			return fmt.Errorf("node %s: %w: %s", s.node.endpoint.Name, ErrLost, reason(gone))
		}
		if code == codes.Unavailable && strings.Contains(err.Error(), "no active session") {
			return fmt.Errorf("node %s: %w: %s", s.node.endpoint.Name, ErrLost, reason(err))
		}
	}
	cause := s.cause(err, exit)
	var at *errdefs.VertexError
	if errors.As(err, &at) {
		if v := vertices[digest.Digest(at.Digest)]; v != nil {
			if _, ok := v.Op.(graph.Image); ok {
				cause = fmt.Errorf("%w: %w", ErrPull, cause)
			}
			return &solve.StepError{
				Platform: v.Platform, For: v.Meta.For, Step: v.Meta.Name, Source: v.Meta.Source, Excerpt: v.Meta.Excerpt, Err: cause,
			}
		}
	}
	return fmt.Errorf("node %s: %w", s.node.endpoint.Name, cause)
}

// cause is the innermost of an error that a person needs.
func (s *Session) cause(err error, exit *gatewayapi.ExitError) error {
	if exit != nil && exit.ExitCode != gatewayapi.UnknownExitStatus {
		return &sandbox.ExitError{Code: int(exit.ExitCode)}
	}
	text := quiet(err.Error())
	if strings.Contains(text, "no space left on device") {
		return fmt.Errorf("the node has no space left: %s", text)
	}
	return errors.New(text)
}

// noise is what BuildKit puts before the cause.
var noise = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(failed to solve: |failed to compute cache key: |failed to calculate checksum of ref [^"]*: |rpc error: code = \w+ desc = )+`)
})

func quiet(text string) string { return noise().ReplaceAllString(text, "") }

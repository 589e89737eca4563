package dockerfile

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	mllb "github.com/manifestctl/manifestctl/pkg/llb"
)

// ResolveSourceMetadata implements client.Client. The frontend asks for the time of a commit or of a download, to be
// SOURCE_DATE_EPOCH; a directory has none.
func (b *bridge) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	if ref, ok := strings.CutPrefix(op.GetIdentifier(), "docker-image://"); ok {
		if opt.ImageOpt == nil {
			opt.ImageOpt = &sourceresolver.ResolveImageOpt{}
		}
		_, dgst, config, err := b.ResolveImageConfig(ctx, ref, opt)
		if err != nil {
			return nil, err
		}
		return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: dgst, Config: config}}, nil
	}
	v, err := b.source(ctx, op)
	if err != nil {
		return nil, err
	}
	e := event.Event{Kind: event.VertexStart, ID: opt.LogName, Name: opt.LogName}
	b.o.Events.Emit(e)
	o, err := b.o.Host.Origin(ctx, v)
	e.Kind = event.VertexDone
	if err != nil {
		e.Error, e.Canceled = err.Error(), context.Cause(ctx) != nil
	}
	b.o.Events.Emit(e)
	if err != nil {
		return nil, ofHost(err)
	}
	out := &sourceresolver.MetaResponse{Op: op}
	switch v.Op.(type) {
	case graph.Git:
		out.Git = &sourceresolver.ResolveGitResponse{Checksum: o.Commit, CommitObject: o.Object}
	case graph.HTTP:
		out.HTTP = &sourceresolver.ResolveHTTPResponse{Digest: o.Digest, Filename: op.GetAttrs()[pb.AttrHTTPFilename], LastModified: o.LastModified}
	case graph.Local:
		if strings.HasPrefix(op.GetIdentifier(), "http") { // an archive of this machine, whose files have times
			out.HTTP = &sourceresolver.ResolveHTTPResponse{Filename: op.GetAttrs()[pb.AttrHTTPFilename]}
		}
	}
	return out, nil
}

// source is the vertex of one source.
func (b *bridge) source(ctx context.Context, op *pb.SourceOp) (*graph.Vertex, error) {
	st := llb.NewState(llb.NewSource(op.GetIdentifier(), maps.Clone(op.GetAttrs()), llb.Constraints{}).Output())
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the source %s: %w", op.GetIdentifier(), err)
	}
	return mllb.Decode(def.ToPB(), b.decoding())
}

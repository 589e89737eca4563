package tags

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// deleteTag deletes a tag. Of a registry that can only delete manifests, with all of their tags, the tag is moved to a
// manifest of its own first. That the registry deletes at all is tried before anything is changed.
func deleteTag(ctx context.Context, client *registry.Client, r ref.Ref) error {
	desc, err := client.Resolve(ctx, r)
	if err != nil {
		return err
	}
	err = client.Delete(ctx, r)
	if !refuses(err) {
		return err
	}
	trial, err := placeholder(r, desc, "trial")
	if err != nil {
		return err
	}
	if err := trial.push(ctx, client, r.WithDigest(trial.digest())); err != nil {
		return err
	}
	if err := client.Delete(ctx, r.WithDigest(trial.digest())); err != nil {
		return explain(r, err)
	}
	last, err := placeholder(r, desc, "last")
	if err != nil {
		return err
	}
	// From here to the delete the tag points at the placeholder: a kill in between is mended by deleting again.
	if err := last.push(ctx, client, r.WithTag(r.Tag)); err != nil {
		return err
	}
	if err := client.Delete(context.WithoutCancel(ctx), r.WithDigest(last.digest())); err != nil {
		if _, raw, rerr := client.Manifest(ctx, r.WithDigest(desc.Digest)); rerr == nil {
			_, rerr = client.PushManifest(context.WithoutCancel(ctx), r.WithTag(r.Tag), desc.MediaType, raw)
			err = errors.Join(err, rerr)
		}
		return explain(r, err)
	}
	return nil
}

// manifest is an artifact that holds nothing and that no other tag points at.
type manifest struct{ raw []byte }

func placeholder(r ref.Ref, desc ocispec.Descriptor, purpose string) (manifest, error) {
	raw, err := jsontree.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.manifestctl.deleted",
		Config:       ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: ocispec.DescriptorEmptyJSON.Size},
		Layers:       []ocispec.Descriptor{},
		Annotations: map[string]string{
			"io.github.manifestctl.deleted":         r.WithTag(r.Tag).String(),
			"io.github.manifestctl.deleted.digest":  desc.Digest.String(),
			"io.github.manifestctl.deleted.purpose": purpose,
		},
	})
	if err != nil {
		return manifest{}, fmt.Errorf("making a placeholder: %w", err)
	}
	return manifest{raw}, nil
}

func (m manifest) digest() digest.Digest { return digest.FromBytes(m.raw) }

func (m manifest) push(ctx context.Context, client *registry.Client, to ref.Ref) error {
	empty := ocispec.DescriptorEmptyJSON
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(empty.Data)), nil }
	if _, err := client.PushBlob(ctx, to.WithDigest(empty.Digest), ocispec.Descriptor{MediaType: empty.MediaType, Digest: empty.Digest, Size: empty.Size}, open, nil); err != nil {
		return err
	}
	_, err := client.PushManifest(ctx, to, ocispec.MediaTypeImageManifest, m.raw)
	return err
}

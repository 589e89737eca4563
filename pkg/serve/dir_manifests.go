package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// readDescriptor reads a file that holds one; errUnknown when there is none.
func readDescriptor(name string) (ocispec.Descriptor, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return ocispec.Descriptor{}, unknown(err)
	}
	var desc ocispec.Descriptor
	if err := json.Unmarshal(data, &desc); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s is damaged: %w", name, err)
	}
	if err := desc.Digest.Validate(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%s is damaged: %w", name, err)
	}
	return desc, nil
}

func writeDescriptor(name string, desc ocispec.Descriptor) error {
	data, err := json.Marshal(desc)
	if err != nil {
		return err
	}
	return writeFile(name, append(data, '\n'))
}

// Resolve implements storage.
func (d *directory) Resolve(_ context.Context, repo, tag string) (ocispec.Descriptor, error) {
	return readDescriptor(d.repo(repo, tagsDir, tagFile(tag)))
}

// HasManifest implements storage.
func (d *directory) HasManifest(_ context.Context, repo string, dgst digest.Digest) (bool, error) {
	_, err := os.Stat(d.repo(repo, manifestsDir, blobPath(dgst)))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Manifest implements storage. What it returns is verified: a damaged manifest
// would be handed to every client with a digest that it does not have.
func (d *directory) Manifest(_ context.Context, repo string, dgst digest.Digest) (ocispec.Descriptor, []byte, error) {
	desc, err := readDescriptor(d.repo(repo, manifestsDir, blobPath(dgst)))
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	name := d.path(blobsDir, blobPath(dgst))
	raw, err := os.ReadFile(name)
	if err != nil {
		return ocispec.Descriptor{}, nil, unknown(err)
	}
	if dgst.Algorithm().FromBytes(raw) != dgst {
		return ocispec.Descriptor{}, nil, fmt.Errorf("%s is damaged: it does not have its digest", name)
	}
	return desc, raw, nil
}

// PutManifest implements storage. Each step is durable before what needs it: the
// bytes, that the repository has them, that they refer to something, the tags.
func (d *directory) PutManifest(_ context.Context, repo string, m *document, tags []string) (had bool, err error) {
	d.content.RLock()
	defer d.content.RUnlock()
	defer d.arrive.lock(m.Digest.String())()
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
	if had, err = exists(d.path(blobsDir, blobPath(m.Digest))); err != nil {
		return false, err
	}
	if err := writeFile(d.path(blobsDir, blobPath(m.Digest)), m.raw); err != nil {
		return had, err
	}
	if err := writeDescriptor(d.repo(repo, manifestsDir, blobPath(m.Digest)), desc); err != nil {
		return had, err
	}
	if m.subject != "" {
		if err := writeDescriptor(d.referrer(repo, m.subject, m.Digest), m.Descriptor); err != nil {
			return had, err
		}
	}
	for _, t := range tags {
		if err := writeDescriptor(d.repo(repo, tagsDir, tagFile(t)), desc); err != nil {
			return had, err
		}
	}
	return had, nil
}

func (d *directory) referrer(repo string, subject, from digest.Digest) string {
	return d.repo(repo, referrersDir, blobPath(subject), from.Algorithm().String()+"-"+from.Encoded())
}

// DeleteManifest implements storage: what points at the manifest goes first.
func (d *directory) DeleteManifest(ctx context.Context, repo string, dgst digest.Digest) error {
	has, err := d.HasManifest(ctx, repo, dgst)
	if err != nil {
		return err
	}
	if !has {
		return errUnknown
	}
	tags, err := d.Tags(ctx, repo)
	if err != nil {
		return err
	}
	for _, t := range tags {
		desc, err := d.Resolve(ctx, repo, t)
		if err == nil && desc.Digest == dgst {
			err = d.DeleteTag(ctx, repo, t)
		}
		if err != nil && !errors.Is(err, errUnknown) {
			return err
		}
	}
	if _, raw, err := d.Manifest(ctx, repo, dgst); err == nil {
		if m, err := parseDocument("", raw); err == nil && m.subject != "" {
			if err := remove(d.referrer(repo, m.subject, dgst)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return unknown(remove(d.repo(repo, manifestsDir, blobPath(dgst))))
}

// DeleteTag implements storage.
func (d *directory) DeleteTag(_ context.Context, repo, tag string) error {
	return unknown(remove(d.repo(repo, tagsDir, tagFile(tag))))
}

// Tags implements storage.
func (d *directory) Tags(_ context.Context, repo string) ([]string, error) {
	entries, err := os.ReadDir(d.repo(repo, tagsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var tags []string
	for _, e := range entries {
		if t, ok := tagOfFile(e.Name()); ok {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

// Referrers implements storage.
func (d *directory) Referrers(_ context.Context, repo string, dgst digest.Digest) ([]ocispec.Descriptor, error) {
	dir := d.repo(repo, referrersDir, blobPath(dgst))
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []ocispec.Descriptor
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		desc, err := readDescriptor(filepath.Join(dir, e.Name()))
		if errors.Is(err, errUnknown) {
			continue // removed this moment
		}
		if err != nil {
			return nil, err
		}
		out = append(out, desc)
	}
	return out, nil
}

package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeLayout writes an OCI layout with the index as tag 1 and with more of them, each with one other layer than the one
// before, and returns the tags. The bytes are random and the same in every run.
func writeLayout(dir string, more int) (tags []string, err error) {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	random := rand.NewChaCha8([32]byte{6})
	layer := func() (descriptor, error) {
		f, err := os.CreateTemp(blobs, "new-")
		if err != nil {
			return descriptor{}, err
		}
		sum := sha256.New()
		size := int64(copyBytes / copyPlatforms / copyLayers)
		_, err = io.CopyN(io.MultiWriter(f, sum), random, size)
		d := descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: fmt.Sprintf("sha256:%x", sum.Sum(nil)), Size: size}
		return d, errors.Join(err, f.Chmod(0o644), f.Close(), os.Rename(f.Name(), filepath.Join(blobs, strings.TrimPrefix(d.Digest, "sha256:"))))
	}
	document := func(mediaType string, v any) (descriptor, error) {
		raw, err := json.Marshal(v)
		if err != nil {
			return descriptor{}, err
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(raw))
		return descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: int64(len(raw))}, os.WriteFile(filepath.Join(blobs, sum), raw, 0o644)
	}
	arches := []string{"amd64", "arm64", "arm", "ppc64le", "s390x", "riscv64"}
	layers := make([][]descriptor, copyPlatforms)
	for p := range layers {
		for range copyLayers {
			l, err := layer()
			if err != nil {
				return nil, err
			}
			layers[p] = append(layers[p], l)
		}
	}
	var top []descriptor
	for n := range more + 1 {
		tag := "1"
		if n > 0 {
			tag = fmt.Sprintf("next%d", n-1)
			if layers[n%copyPlatforms][copyLayers-1], err = layer(); err != nil {
				return nil, err
			}
		}
		var children []descriptor
		for p, arch := range arches {
			var diffs []string
			for _, l := range layers[p] {
				diffs = append(diffs, l.Digest)
			}
			config, err := document("application/vnd.oci.image.config.v1+json", map[string]any{
				"architecture": arch, "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}, "config": map[string]any{},
			})
			if err != nil {
				return nil, err
			}
			m, err := document("application/vnd.oci.image.manifest.v1+json", map[string]any{
				"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers[p],
			})
			if err != nil {
				return nil, err
			}
			m.Platform = map[string]string{"os": "linux", "architecture": arch}
			children = append(children, m)
		}
		idx, err := document("application/vnd.oci.image.index.v1+json", map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children,
		})
		if err != nil {
			return nil, err
		}
		idx.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
		top, tags = append(top, idx), append(tags, tag)
	}
	return tags, errors.Join(
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644),
		writeIndex(dir, top))
}

// descriptor is what documents say of others.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type indexFile struct {
	SchemaVersion int          `json:"schemaVersion"`
	Manifests     []descriptor `json:"manifests"`
}

func writeIndex(dir string, list []descriptor) error {
	raw, err := json.Marshal(indexFile{2, list})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "index.json"), raw, 0o644)
}

// keepOnly leaves one tag in a layout's index.json.
func keepOnly(dir, tag string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return err
	}
	var idx indexFile
	if err := json.Unmarshal(raw, &idx); err != nil {
		return err
	}
	idx.Manifests = slices.DeleteFunc(idx.Manifests, func(d descriptor) bool { return d.Annotations["org.opencontainers.image.ref.name"] != tag })
	return writeIndex(dir, idx.Manifests)
}

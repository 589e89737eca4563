package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// metadata is what --metadata-file holds: buildx's keys, in their order.
type metadata struct {
	ConfigDigest string             `json:"containerimage.config.digest,omitempty"`
	Descriptor   ocispec.Descriptor `json:"containerimage.descriptor,omitzero"`
	Digest       string             `json:"containerimage.digest,omitempty"`
	Name         string             `json:"image.name,omitempty"`
	// Digests are those of several images that were staged, by platform: there is no index of them yet.
	Digests map[string]string `json:"containerimage.digests,omitempty"`
}

// report writes what was built to the files that were asked for, and the digest to stdout, unless an output went there.
func (b *buildFlags) report(e *env, req build.Request, res build.Result) error {
	m := metadata{Descriptor: res.Root, Digest: res.Root.Digest.String()}
	names := make([]string, 0, len(res.Names))
	for _, n := range res.Names {
		names = append(names, n.String())
	}
	m.Name = strings.Join(names, ",")
	if len(res.Images) == 1 && res.Images[0].Desc.Digest == res.Root.Digest {
		m.ConfigDigest = res.Images[0].CfgDesc.Digest.String()
	}
	id := m.Digest
	if m.ConfigDigest != "" {
		id = m.ConfigDigest
	}
	if b.stage != "" && len(res.Images) > 1 {
		m.Descriptor, m.Digest, m.Digests = ocispec.Descriptor{}, "", map[string]string{}
		var ids []string
		for _, img := range res.Images {
			m.Digests[img.Platform.String()] = img.Desc.Digest.String()
			ids = append(ids, img.CfgDesc.Digest.String())
		}
		id = strings.Join(ids, "\n")
	}
	if err := e.stepOutput(m, id, res.Raw); err != nil {
		return err
	}
	if b.iidFile != "" {
		if err := writeFile(b.iidFile, []byte(id)); err != nil {
			return err
		}
	}
	if b.metadata != "" {
		data, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return fmt.Errorf("writing %q: %w", b.metadata, err)
		}
		if err := writeFile(b.metadata, append(data, '\n')); err != nil {
			return err
		}
	}
	for _, o := range req.Outputs {
		if o.Dest == "-" {
			return nil
		}
	}
	if b.stage != "" { // no index was pushed
		for _, img := range res.Images {
			if err := e.println(img.Desc.Digest); err != nil {
				return err
			}
		}
		return nil
	}
	return e.println(m.Digest)
}

// canWrite tells before a long build that path, which is written after it, cannot be; "" is none. A directory that is not there may
// be one that the build makes.
func canWrite(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return usagef("%q is a directory, and a file is to be written", path)
		}
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".manifestctl-*")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%q cannot be written: %w", path, err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// writeFile replaces path as a whole: readers see the old or the new content. What is no regular file, /dev/stdout for
// one, is written to directly.
func writeFile(path string, data []byte) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, data, 0o644)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".manifestctl-*")
	if err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // what is left of it is of no use, and err says why
			err = fmt.Errorf("writing %q: %w", path, err)
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

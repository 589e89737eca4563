package output

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func openOCI(s Spec, env Env) (Destination, error) {
	if !s.Dir {
		f, err := openFile(s, env)
		return &ociArchive{spec: s, env: env, file: f}, err
	}
	d, err := openDirectory(s, env, checkLayout)
	return &ociLayout{spec: s, env: env, dir: d}, err
}

// ociArchive is an image layout as a tar.
type ociArchive struct {
	spec Spec
	env  Env
	file file
}

// Write implements Destination.
func (o *ociArchive) Write(ctx context.Context, p Product) error {
	c, err := closureOf(ctx, p)
	if err != nil {
		return err
	}
	idx, err := addToIndex(nil, p.Root, p.Names)
	if err != nil {
		return err
	}
	bar := track(o.env.Events, o.spec, c.size())
	err = o.file.write(func(w io.Writer) error {
		a := newArchive(w, p.Epoch)
		if err := a.file(ocispec.ImageLayoutFile, layoutFile()); err != nil {
			return err
		}
		if err := a.file(ocispec.ImageIndexFile, idx); err != nil {
			return err
		}
		if err := a.blobs(ctx, c, bar); err != nil {
			return err
		}
		return a.close()
	})
	if err == nil {
		bar.done()
	}
	return err
}

// layoutFile is the content of the file oci-layout.
func layoutFile() []byte {
	return []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)
}

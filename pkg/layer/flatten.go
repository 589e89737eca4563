package layer

import (
	"archive/tar"
	"context"
	"io"
	"strings"
)

// Flatten writes the merged tree of v as one tar, every file under prefix ("" or "linux_arm64/").
func Flatten(ctx context.Context, v *View, w io.Writer, prefix string) error {
	prefix = strings.TrimRight(prefix, "/")
	tw := newTarWriter(w)
	err := v.Walk("/", func(e Entry, open func() (io.ReadCloser, error)) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if e.Name == "." {
			if prefix == "" {
				return nil
			}
			e.Name = prefix
		} else {
			e.Name = joinName(prefix, e.Name)
		}
		if e.Type == tar.TypeLink {
			e.Link = joinName(prefix, e.Link)
		}
		if e.Type != tar.TypeReg || e.Size == 0 {
			return tw.header(&e)
		}
		r, err := open()
		if err != nil {
			return err
		}
		defer r.Close()
		return tw.file(&e, &ctxReader{ctx, r})
	})
	if err != nil {
		return err
	}
	return tw.close()
}

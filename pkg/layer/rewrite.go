package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Rewrite copies the uncompressed tar r to w; times after limit become limit, and access and change times are dropped.
func Rewrite(ctx context.Context, w io.Writer, r io.Reader, limit time.Time) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return fmt.Errorf("reading a layer: %w", err)
		}
		if h.ModTime.After(limit) {
			h.ModTime = limit
		}
		h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
		h.Format = tar.FormatUnknown
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("writing %s: %w", h.Name, err)
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return fmt.Errorf("copying %s: %w", h.Name, err)
		}
	}
}

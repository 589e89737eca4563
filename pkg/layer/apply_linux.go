package layer

import (
	"context"
	"errors"
	"io"
)

func Apply(ctx context.Context, dir string, r io.Reader, o ApplyOptions) error {
	return errors.ErrUnsupported
}
func Diff(ctx context.Context, upper string, w io.Writer, o DiffOptions) error {
	return errors.ErrUnsupported
}

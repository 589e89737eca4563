package packages

import (
	"fmt"
	"io"
)

// ReadAt reads a database of size bytes that is no text.
func ReadAt(kind Kind, r io.ReaderAt, size int64) ([]Package, error) {
	return nil, fmt.Errorf("%w: %s is not read", ErrInvalid, kind)
}

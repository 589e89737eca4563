package store

import (
	_ "crypto/sha256" // the algorithms that digests may name
	_ "crypto/sha512"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// checkDigest accepts what can be a file name below blobs/: the registered
// algorithms with their exact number of lower-case hex digits.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", string(d), ErrInvalid, err)
	}
	return nil
}

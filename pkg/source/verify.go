package source

import (
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// verifier reads a blob and reports ErrCorrupt in place of io.EOF when it is not what desc says.
type verifier struct {
	io.Closer
	from     io.Reader
	desc     ocispec.Descriptor
	digester digest.Digester
	read     int64
	err      error // what every further Read returns
}

// verify wraps rc. Size 0 or less in desc is not checked: the digest alone decides.
func verify(rc io.ReadCloser, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if !desc.Digest.Algorithm().Available() {
		return nil, errors.Join(
			fmt.Errorf("%w: %s cannot be verified: unknown algorithm %q", errors.ErrUnsupported, desc.Digest, desc.Digest.Algorithm()),
			rc.Close())
	}
	return &verifier{Closer: rc, from: rc, desc: desc, digester: desc.Digest.Algorithm().Digester()}, nil
}

// Verifies says which digest the bytes have of whoever reads them to their end: nobody needs to hash them once more.
func (v *verifier) Verifies() digest.Digest { return v.desc.Digest }

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.from.Read(p)
	if v.err = v.see(p[:n], err); v.read > v.desc.Size && v.desc.Size > 0 {
		n = 0
	}
	return n, v.err
}

// Bare takes the verification apart from the reading, for whoever has a goroutine for each: raw reads what there is, and check
// is to be given all of that in order, with what the reads said. It says what Read would have said. Read must not be used
// any more.
func (v *verifier) Bare() (raw io.Reader, check func(p []byte, err error) error) {
	v.err = errors.New("it is read by somebody else")
	return v.from, v.see
}

// see hashes what a read gave and judges it.
func (v *verifier) see(p []byte, err error) error {
	v.digester.Hash().Write(p) // a hash's Write never fails
	v.read += int64(len(p))
	return v.judge(err)
}

// judge is what to say after a read that said err: what is wrong with the bytes so far, if it shows by now.
func (v *verifier) judge(err error) error {
	switch {
	case v.desc.Size > 0 && v.read > v.desc.Size:
		return fmt.Errorf("%w: %s is longer than its %d bytes", ErrCorrupt, v.desc.Digest, v.desc.Size)
	case err == io.EOF && v.desc.Size > 0 && v.read < v.desc.Size:
		return fmt.Errorf("%w: %s ends after %d of its %d bytes", ErrCorrupt, v.desc.Digest, v.read, v.desc.Size)
	case err == io.EOF && v.digester.Digest() != v.desc.Digest:
		return fmt.Errorf("%w: %s holds the bytes of %s", ErrCorrupt, v.desc.Digest, v.digester.Digest())
	}
	return err
}

package source

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

// asideSize is how many bytes are hashed at once: few enough to stay in a core's own cache between the copy and the hash.
const asideSize = 64 << 10

var _ registry.Aside = (*verifier)(nil)

// Aside gives the file of a blob of which nothing but its beginning was read, for whoever can pass its bytes on without
// reading them, and check, which reads as many bytes as it is told from there by itself. The check of the last byte gives
// the verdict of the whole, as a Read would. Until then nothing is known of what the file holds, and Read must not be used
// any more. file is nil when the bytes are in no file of their own.
func (v *verifier) Aside() (file *os.File, check func(n int64) error) {
	f, ok := v.from.(*os.File)
	if !ok || v.desc.Size <= 0 || v.err != nil {
		return nil, nil
	}
	v.err = errors.New("it is read by somebody else")
	return f, func(n int64) error { return v.check(f, n) }
}

// asideBuffers are for as many checks as run at a time: of many that wait for their turn, few do.
var asideBuffers = sync.Pool{New: func() any { return new([asideSize]byte) }}

// check hashes the next n bytes.
func (v *verifier) check(f *os.File, n int64) error {
	buf, _ := asideBuffers.Get().(*[asideSize]byte)
	defer asideBuffers.Put(buf)
	for n > 0 {
		k, err := f.ReadAt(buf[:min(n, int64(len(buf)))], v.read)
		v.digester.Hash().Write(buf[:k])
		v.read += int64(k)
		n -= int64(k)
		switch {
		case n == 0: // whatever the last read said beside its bytes
		case errors.Is(err, io.EOF):
			return v.judge(io.EOF)
		case err != nil:
			return fmt.Errorf("the blob %s: %w", v.desc.Digest, err)
		}
	}
	if v.read < v.desc.Size {
		return nil
	}
	if k, _ := f.ReadAt(buf[:1], v.read); k > 0 {
		v.read++
	}
	if err := v.judge(io.EOF); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

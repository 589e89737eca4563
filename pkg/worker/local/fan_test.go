package local

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFanGivesEveryReaderAllOfIt(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{0, 1, fanPiece - 1, fanPiece, fanPiece + 1, 11*fanPiece + 7} {
		data := make([]byte, size)
		_, _ = random.Read(data)
		var f fan
		var copied, read, direct bytes.Buffer
		f.add(func(r io.Reader) error { _, err := io.Copy(&copied, r); return err })
		f.add(func(r io.Reader) error { _, err := io.Copy(&read, struct{ io.Reader }{r}); return err })
		f.add(func(r io.Reader) error { return nil })
		f.add(func(r io.Reader) error {
			_, err := io.CopyN(&direct, r, int64(size/2))
			return err
		})
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 100_003)
			_, err := f.Write(rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.NoError(t, f.finish(nil))
		assert.True(t, bytes.Equal(data, copied.Bytes()), "%d bytes", size)
		assert.True(t, bytes.Equal(data, read.Bytes()), "%d bytes", size)
		assert.True(t, bytes.Equal(data[:size/2], direct.Bytes()), "%d bytes", size)
	}
}

func TestFanFailures(t *testing.T) {
	errReads, errWrites := errors.New("reads"), errors.New("writes")
	t.Run("a reader", func(t *testing.T) {
		var f fan
		f.add(func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
		f.add(func(r io.Reader) error { _, _ = io.CopyN(io.Discard, r, 10); return errReads })
		var err error
		for range 1 << 20 { // it must end, though nobody reads for the one that failed
			if _, err = f.Write(make([]byte, 64<<10)); err != nil {
				break
			}
		}
		require.Error(t, err)
		assert.ErrorIs(t, f.finish(err), errReads)
	})
	t.Run("the writer", func(t *testing.T) {
		var f fan
		var seen error
		f.add(func(r io.Reader) error { _, seen = io.Copy(io.Discard, r); return seen })
		_, err := f.Write(make([]byte, 100))
		require.NoError(t, err)
		assert.ErrorIs(t, f.finish(errWrites), errWrites)
		assert.ErrorIs(t, seen, errWrites, "it must not take the half for the whole")
	})
}

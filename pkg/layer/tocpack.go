package layer

import (
	"encoding/json"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	packFrom = 16 << 10 // bytes of a table from which it is compressed: smaller ones are read more often than they are large
	packMost = 2 << 30  // bytes that a packed table may have
)

var (
	packers = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	})
	unpackers = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(packMost))
	})
)

// Pack is the form in which tables of contents are kept: the binary one, a large one compressed.
func (t *TOC) Pack() ([]byte, error) {
	b, err := t.MarshalBinary()
	if err != nil || len(b) < packFrom {
		return b, err
	}
	return Squeeze(b)
}

// UnpackTOC reads what Pack wrote, and the JSON form.
func UnpackTOC(b []byte) (*TOC, error) {
	t := new(TOC)
	if len(b) > 0 && b[0] == '{' {
		return t, json.Unmarshal(b, t)
	}
	if len(b) > 0 && b[0] == zstdMagic {
		var err error
		if b, err = Unsqueeze(b); err != nil {
			return nil, err
		}
	}
	return t, t.UnmarshalBinary(b)
}

const zstdMagic = 0x28 // the first byte of a zstd frame, and of no table

// Squeeze compresses a document for keeping, quickly. Its bytes are in no output.
func Squeeze(b []byte) ([]byte, error) {
	enc, err := packers()
	if err != nil {
		return nil, fmt.Errorf("compressing a document: %w", err)
	}
	return enc.EncodeAll(b, nil), nil
}

// Unsqueeze reads what Squeeze wrote.
func Unsqueeze(b []byte) ([]byte, error) {
	dec, err := unpackers()
	if err != nil {
		return nil, fmt.Errorf("reading a compressed document: %w", err)
	}
	out, err := dec.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: compressed document: %w", ErrInvalid, err)
	}
	return out, nil
}

package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow bounds the memory of a decoder, in bytes. zstd's own limit without --long is 8 MiB at level 19, 128 MiB at --ultra.
	maxWindow = 128 << 20
	// ratioFrom is how much must have come out before the ratio is looked at: less harms nobody, and
	// a file of zeros is no attack.
	ratioFrom = 1 << 30
)

// The further formats that Sniff finds.
const (
	xzFormat    = "xz"
	bzip2Format = "bzip2"
	tarFormat   = "tar"
)

// Sniff says what the first bytes of a stream are (512 are enough): gzip, zstd, xz, bzip2 or tar, and "" for anything else.
func Sniff(p []byte) string {
	switch {
	case bytes.HasPrefix(p, []byte{0x1f, 0x8b, 8}):
		return Gzip
	case bytes.HasPrefix(p, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(p) >= 4 && p[0]&0xf0 == 0x50 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18:
		return Zstd // a frame, or a skippable frame before it
	case bytes.HasPrefix(p, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xzFormat
	case len(p) >= 10 && bytes.HasPrefix(p, []byte("BZh")) && p[3] >= '1' && p[3] <= '9' &&
		(string(p[4:10]) == "1AY&SY" || string(p[4:10]) == "\x17rE8P\x90"):
		return bzip2Format
	case len(p) >= blockSize && (allZero(p[:blockSize]) || checkSum(p) == nil):
		return tarFormat
	}
	return ""
}

// Decompress sniffs gzip (all members), zstd, xz, bzip2 or plain tar and returns the uncompressed stream.
// Whatever follows the compressed data is an error; whoever reads to EOF has read all of r.
func Decompress(ctx context.Context, r io.Reader, lim Limits) (io.ReadCloser, error) {
	return decompress(ctx, r, lim, "")
}

// DecompressLayer is Decompress for a layer of the given media type: content that is
// something else is ErrMediaType.
func DecompressLayer(ctx context.Context, r io.Reader, mediaType string, lim Limits) (io.ReadCloser, error) {
	want := tarFormat
	switch base, _, _ := strings.Cut(mediaType, ";"); {
	case strings.HasSuffix(base, "+gzip"), strings.HasSuffix(base, ".gzip"):
		want = Gzip
	case strings.HasSuffix(base, "+zstd"), strings.HasSuffix(base, ".zstd"):
		want = Zstd
	case strings.HasSuffix(base, ".tar"):
	default:
		return nil, fmt.Errorf("%w: %q is no type of a layer", ErrMediaType, mediaType)
	}
	return decompress(ctx, r, lim, want)
}

func decompress(ctx context.Context, r io.Reader, lim Limits, want string) (io.ReadCloser, error) {
	lim = lim.withDefaults()
	in := &countReader{ctx: ctx, r: r}
	br := bufio.NewReaderSize(in, meterSize)
	head, err := br.Peek(blockSize)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading layer: %w", err)
	}
	found := Sniff(head)
	if want != "" && found != want {
		return nil, fmt.Errorf("%w: declared %s, found %s", ErrMediaType, want, describe(found, head))
	}
	out := &limitReader{in: in, lim: lim}
	switch found {
	case Gzip:
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: gzip: %w", ErrInvalid, noEOF(err))
		}
		out.r, out.name = z, Gzip
	case Zstd:
		z, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, fmt.Errorf("%w: zstd: %w", ErrInvalid, noEOF(err))
		}
		out.r, out.name = z, Zstd
		out.close = z.Close
	case xzFormat:
		z, err := newXZReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: xz: %w", ErrInvalid, noEOF(err))
		}
		out.r, out.name = z, xzFormat
	case bzip2Format:
		out.r, out.name = bzip2.NewReader(br), bzip2Format
	case tarFormat:
		out.r, out.plain = br, true
	default:
		if len(head) < blockSize {
			return nil, fmt.Errorf("%w: %w after %d bytes", ErrInvalid, io.ErrUnexpectedEOF, len(head))
		}
		return nil, fmt.Errorf("%w: %s is neither a tar archive nor compressed by gzip, zstd, xz or bzip2", ErrInvalid, describe(found, head))
	}
	return out, nil
}

// describe names what was found for a message.
func describe(found string, head []byte) string {
	text := bytes.ToLower(bytes.TrimSpace(head))
	switch {
	case found != "":
		return found
	case len(head) == 0:
		return "nothing"
	case bytes.HasPrefix(text, []byte("<!doctype")), bytes.HasPrefix(text, []byte("<html")):
		return "html"
	case bytes.HasPrefix(text, []byte("{")):
		return "json"
	}
	return fmt.Sprintf("data starting with %q", head[:min(len(head), 8)])
}

// countReader counts what is read and ends with the context.
type countReader struct {
	ctx context.Context //nolint:containedctx // lives as long as the stream
	r   io.Reader
	n   atomic.Int64 // decoders read ahead on a goroutine of theirs
}

func (c *countReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// limitReader holds a decoder to the limits. Each of the decoders reads to the end of the input: what follows
// the last member, frame or stream is the start of another one to them, or an error.
type limitReader struct {
	r     io.Reader
	in    *countReader
	name  string
	lim   Limits
	n     int64
	plain bool
	err   error
	close func()
}

func (l *limitReader) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	n, err := l.r.Read(p)
	l.n += int64(n)
	switch {
	case l.lim.Size > 0 && l.n > l.lim.Size:
		n, err = 0, fmt.Errorf("%w: more than %d uncompressed bytes", ErrLimit, l.lim.Size)
	case !l.plain && l.n > ratioFrom && l.n/l.lim.Ratio > l.in.n.Load():
		n, err = 0, fmt.Errorf("%w: %d compressed bytes gave %d, more than %d times as many", ErrLimit, l.in.n.Load(), l.n, l.lim.Ratio)
	case err == nil || err == io.EOF || context.Cause(l.in.ctx) != nil:
	case errors.Is(err, ErrLimit), errors.Is(err, ErrType):
		err = fmt.Errorf("%s: %w", l.name, err)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = fmt.Errorf("%w: %s: %w", ErrLimit, l.name, err)
	case !l.plain:
		err = fmt.Errorf("%w: %s: %w", ErrInvalid, l.name, err)
	}
	l.err = err
	return n, err
}

func (l *limitReader) Close() error {
	l.err = errors.New("read after close")
	if l.close != nil {
		l.close()
	}
	return nil
}

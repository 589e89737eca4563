package layer

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader reads the xz container (its file format 1.2.1); LZMA2 itself is the library's. The library's own
// container takes a file that was cut between two blocks for a whole one and gives a block whatever
// dictionary it asks for.
type xzReader struct {
	r       *bufio.Reader
	n       int64 // bytes used of r
	first   bool
	check   byte
	records int64 // blocks of the stream
	index   hash.Hash
	block   *lzma.Reader2
	start   int64 // of the block
	out     int64 // bytes that came out of the block
	sum     hash.Hash
	want    [2]int64 // sizes the block's header declares; -1: none
	err     error
}

var errXZ = errors.New("xz: damaged container")

// maxXZDict is the largest dictionary byte taken: 30 means 128 MiB.
const maxXZDict = 30

func newXZReader(r *bufio.Reader) (*xzReader, error) {
	x := &xzReader{r: r, first: true}
	if _, err := x.header(); err != nil {
		return nil, err
	}
	return x, nil
}

// ReadByte and readRaw count what is used, so that the LZMA2 reader takes exactly its part.
func (x *xzReader) ReadByte() (byte, error) {
	c, err := x.r.ReadByte()
	if err == nil {
		x.n++
	}
	return c, err
}

func (x *xzReader) readRaw(p []byte) (int, error) {
	n, err := x.r.Read(p)
	x.n += int64(n)
	return n, err
}

// xzRaw is the compressed side as the LZMA2 reader sees it.
type xzRaw struct{ x *xzReader }

func (r xzRaw) Read(p []byte) (int, error) { return r.x.readRaw(p) }
func (r xzRaw) ReadByte() (byte, error)    { return r.x.ReadByte() }

func (x *xzReader) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	m, err := io.ReadFull(x.r, b)
	x.n += int64(m)
	return b, noEOF(err)
}

// header reads a stream's header, after padding when it is not the first. more is false at the end of the input.
func (x *xzReader) header() (more bool, err error) {
	for !x.first {
		if _, err := x.r.Peek(1); err == io.EOF {
			return false, nil
		}
		b, err := x.r.Peek(4)
		if err != nil {
			return false, noEOF(err)
		}
		if !allZero(b) {
			break
		}
		if _, err := x.bytes(4); err != nil {
			return false, err
		}
	}
	b, err := x.bytes(12)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(b[:6], []byte{0xfd, '7', 'z', 'X', 'Z', 0}) || b[6] != 0 || binary.LittleEndian.Uint32(b[8:]) != crc32.ChecksumIEEE(b[6:8]) {
		return false, errXZ
	}
	x.first, x.check, x.records, x.index = false, b[7], 0, sha256.New()
	switch x.check {
	case 0, 1, 4, 10:
		return true, nil
	}
	return false, fmt.Errorf("%w: check of type %d", ErrType, x.check)
}

func (x *xzReader) newSum() hash.Hash {
	switch x.check {
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		return sha256.New()
	}
	return nil
}

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			x.err = x.next()
			continue
		}
		n, err := x.block.Read(p)
		x.out += int64(n)
		if x.sum != nil {
			x.sum.Write(p[:n])
		}
		if err == io.EOF {
			err = x.endBlock()
		} else {
			err = noEOF(err)
		}
		x.err = err
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next goes to the next block or, through the index, to the next stream; io.EOF when there is none.
func (x *xzReader) next() error {
	x.start = x.n
	size, err := x.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if size == 0 {
		if err := x.endStream(); err != nil {
			return err
		}
		more, err := x.header()
		if err == nil && !more {
			err = io.EOF
		}
		return err
	}
	rest, err := x.bytes((int(size)+1)*4 - 1)
	if err != nil {
		return err
	}
	head := append([]byte{size}, rest...)
	body := head[:len(head)-4]
	if binary.LittleEndian.Uint32(head[len(body):]) != crc32.ChecksumIEEE(body) {
		return errXZ
	}
	p := body[2:]
	for i, bit := range []byte{0x40, 0x80} {
		x.want[i] = -1
		if body[1]&bit != 0 {
			v, n := binary.Uvarint(p)
			if n <= 0 || v > 1<<62 {
				return errXZ
			}
			x.want[i], p = int64(v), p[n:]
		}
	}
	if body[1]&0x3c != 0 {
		return errXZ
	}
	if body[1]&3 != 0 || len(p) < 3 || p[0] != 0x21 || p[1] != 1 {
		return fmt.Errorf("%w: xz with a filter other than LZMA2", ErrType)
	}
	if p[2] > maxXZDict {
		return fmt.Errorf("%w: xz dictionary of more than %d bytes", ErrLimit, maxWindow)
	}
	if !allZero(p[3:]) {
		return errXZ
	}
	dict := (2 | int(p[2])&1) << (p[2]/2 + 11)
	x.out, x.sum = 0, x.newSum()
	x.block, err = lzma.Reader2Config{DictCap: max(dict, lzma.MinDictCap)}.NewReader2(xzRaw{x})
	return err
}

// endBlock checks a block's sizes and sum and notes it for the index.
func (x *xzReader) endBlock() error {
	header := x.start // the sizes count from here
	unpadded := x.n - header
	if x.want[1] >= 0 && x.want[1] != x.out {
		return errXZ
	}
	if err := x.zeros(-unpadded & 3); err != nil {
		return err
	}
	if x.sum != nil {
		got := x.sum.Sum(nil)
		want, err := x.bytes(len(got))
		if err != nil {
			return err
		}
		if x.check != 10 { // little-endian
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		if !bytes.Equal(got, want) {
			return errXZ
		}
		unpadded += int64(len(got))
	}
	x.records++
	x.note(unpadded, x.out)
	x.block = nil
	return nil
}

// note remembers a block's sizes without a list of blocks.
func (x *xzReader) note(unpadded, out int64) {
	b := binary.LittleEndian.AppendUint64(nil, uint64(unpadded))
	x.index.Write(binary.LittleEndian.AppendUint64(b, uint64(out)))
}

func (x *xzReader) zeros(n int64) error {
	b, err := x.bytes(int(n))
	if err == nil && !allZero(b) {
		err = errXZ
	}
	return err
}

// xzSummer counts and sums the index.
type xzSummer struct {
	x   *xzReader
	crc uint32
}

func (s *xzSummer) ReadByte() (byte, error) {
	c, err := s.x.ReadByte()
	if err == nil {
		s.crc = crc32.Update(s.crc, crc32.IEEETable, []byte{c})
	}
	return c, noEOF(err)
}

// endStream checks the index, whose first byte was read, against the blocks, and the footer.
func (x *xzReader) endStream() error {
	seen := x.index.Sum(nil)
	x.index = sha256.New()
	s := &xzSummer{x: x, crc: crc32.ChecksumIEEE([]byte{0})}
	n, err := binary.ReadUvarint(s)
	if err != nil {
		return noEOF(err)
	}
	if n != uint64(x.records) {
		return errXZ
	}
	for range n {
		unpadded, err1 := binary.ReadUvarint(s)
		out, err2 := binary.ReadUvarint(s)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		x.note(int64(unpadded), int64(out))
	}
	for (x.n-x.start)&3 != 0 {
		c, err := s.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			return errXZ
		}
	}
	if !bytes.Equal(seen, x.index.Sum(nil)) {
		return errXZ
	}
	b, err := x.bytes(4)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != s.crc {
		return errXZ
	}
	size := x.n - x.start
	f, err := x.bytes(12)
	if err != nil {
		return err
	}
	if string(f[10:]) != "YZ" || f[8] != 0 || f[9] != x.check || binary.LittleEndian.Uint32(f) != crc32.ChecksumIEEE(f[4:10]) ||
		(int64(binary.LittleEndian.Uint32(f[4:]))+1)*4 != size {
		return errXZ
	}
	return nil
}

package layer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// manyFiles is a layer of n files in n/20 directories, as a package manager writes them.
func manyFiles(b testing.TB, n int) []byte {
	b.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	data := noise(64 << 10)
	var members []member
	for i := range n {
		if i%20 == 0 {
			members = append(members, dir(fmt.Sprintf("usr/share/d%d", i/20)))
		}
		m := file(fmt.Sprintf("usr/share/d%d/file%d", i/20, i), data[:rnd.IntN(8<<10)])
		switch i % 50 {
		case 7:
			m = symlink(m.name, "../x")
		case 9:
			m = hardlink(m.name, fmt.Sprintf("usr/share/d%d/file%d", (i-1)/20, i-1))
		}
		members = append(members, m)
	}
	return archive(b, append([]member{dir("usr"), dir("usr/share")}, members...)...)
}

// noise is text that compresses about three to one.
func noise(n int) string {
	rnd := rand.New(rand.NewPCG(3, 4))
	words := make([]string, 500)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", rnd.Uint64()>>rnd.IntN(50))
	}
	b := make([]byte, 0, n+32)
	for len(b) < n {
		b = append(b, words[rnd.IntN(len(words))]...)
	}
	return string(b[:n])
}

// repeated reads data again and again up to n bytes.
func repeated(data string, n int64) io.Reader {
	return io.LimitReader(&loop{data: data}, n)
}

type loop struct {
	data string
	at   int
}

func (l *loop) Read(p []byte) (int, error) {
	n := copy(p, l.data[l.at:])
	l.at = (l.at + n) % len(l.data)
	return n, nil
}

func BenchmarkReadTOC(b *testing.B) {
	l := manyFiles(b, 10_000)
	b.SetBytes(int64(len(l)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadTOC(context.Background(), bytes.NewReader(l), Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkView(b *testing.B) {
	toc := readTOC(b, manyFiles(b, 10_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewView([]Source{{TOC: toc}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTOCBinary(b *testing.B) {
	data, err := readTOC(b, manyFiles(b, 10_000)).MarshalBinary()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		var t TOC
		if err := t.UnmarshalBinary(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	data := noise(16 << 20)
	for _, c := range []Compression{{Algorithm: Gzip, Level: 1}, {Algorithm: Gzip}, {Algorithm: Gzip, Level: 9}, {Algorithm: Zstd}, {Algorithm: Zstd, Level: 19}} {
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(64 << 20)
			var n countWriter
			for b.Loop() {
				n = 0
				if err := Compress(context.Background(), &n, repeated(data, 64<<20), c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(64<<20)/float64(n), "ratio")
		})
	}
}

func BenchmarkDecompress(b *testing.B) {
	data := noise(16 << 20)
	for _, alg := range []string{Gzip, Zstd} {
		var z bytes.Buffer
		if err := Compress(context.Background(), &z, repeated(data, 64<<20), Compression{Algorithm: alg}); err != nil {
			b.Fatal(err)
		}
		b.Run(alg, func(b *testing.B) {
			b.SetBytes(64 << 20)
			for b.Loop() {
				r, err := Decompress(context.Background(), bytes.NewReader(z.Bytes()), Limits{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }
